//! The network joined to the kernel: the one [`Net`], its clock and randomness, and the timer that keeps it going.
//!
//! The network is made at its first use and begins with the loopback. A card is added to it with `Net::add_link`, inside of
//! [`crate::arch::on_large_stack`]; its interrupt calls [`poll`].
//!
//! - [`socket`]: a socket as an open file. `crate::sys::socket`: the system calls.

pub mod socket;

use crate::errno::{Errno, Result};
use crate::lock::Locked;
use crate::mm::{PAGE, frames};
use crate::process::PID;
use crate::sched::timers::{self, Action};
use crate::{arch, random, time};
use alloc::rc::Rc;
use unik_core::timers::TimerId;
use unik_net::message::Credentials;
use unik_net::{Host, Limits, Net};

static NET: Locked<Option<Rc<Net>>> = Locked::new(None);
/// When [`poll`] is called next, and by which timer.
static ALARM: Locked<Option<(u64, TimerId)>> = Locked::new(None);

/// Bytes of stack for making a link: smoltcp's interface is built by value.
const SETUP_STACK: usize = 256 << 10;
/// Part of the memory that TCP buffers may take.
const POOL_SHARE: u64 = 8;
/// The network is not looked at again within this time, nanoseconds.
const GRAIN: u64 = 100_000;

/// What the network needs of the kernel.
struct Machine;

impl Host for Machine {
    fn now(&self) -> u64 {
        time::now()
    }

    fn realtime(&self) -> u64 {
        time::realtime()
    }

    fn random(&self) -> u64 {
        random::number()
    }
}

/// The network.
pub fn net() -> Rc<Net> {
    if let Some(net) = NET.get().as_ref() {
        return net.clone();
    }
    let memory = frames::stats().1 as u64 * PAGE;
    let default = Limits::default();
    let limits = Limits {
        tcp_pool: default.tcp_pool.min((memory / POOL_SHARE) as usize),
        ..default
    };
    let net = arch::on_large_stack(SETUP_STACK, || Net::new(Rc::new(Machine), limits));
    NET.get().insert(net).clone()
}

/// Takes what cards have received and does what is due.
pub fn poll() {
    let Some(net) = NET.get().clone() else { return };
    let more = net.poll();
    alarm(if more { Some(0) } else { net.deadline() });
}

/// Sees to it that [`poll`] is called in time. Called after everything that may have brought its moment forward.
pub fn watch() {
    let Some(net) = NET.get().clone() else { return };
    alarm(net.deadline());
}

fn alarm(next: Option<u64>) {
    let Some(next) = next else { return };
    let known = *ALARM.get();
    match known {
        Some((at, _)) if at <= next => return,
        Some((_, timer)) => timers::cancel(timer),
        None => {}
    }
    let at = next.max(time::now() + GRAIN);
    let ring = || {
        *ALARM.get() = None;
        poll();
    };
    let timer = timers::add(at, Action::Call(Rc::new(ring)));
    *ALARM.get() = Some((at, timer));
    timers::watch_next();
}

/// Who the process is, for messages that carry it.
pub fn credentials() -> Credentials {
    Credentials {
        pid: PID as i32,
        uid: 0,
        gid: 0,
    }
}

/// An answer of the network as one of the kernel: the numbers are the same.
pub fn answer<T>(result: unik_net::Result<T>) -> Result<T> {
    result.map_err(|error| Errno(error.0))
}
