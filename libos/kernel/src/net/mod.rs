//! The network joined to the kernel: the one [`Net`], its clock and randomness, and the timer that keeps it going.
//!
//! The network is made at its first use, or at start where cards have to ask for addresses, and begins with the loopback. Received frames are looked
//! for at every chance ([`look`]): when a program asks for something that is not there, when a thread blocks, in the idle loop. Interrupts
//! come only to a vCPU that halts ([`rest`]) and to a program that does not call for a while ([`WATCH`]).
//!
//! - [`card`]: drivers and interrupts. [`setup`]: what the configuration says.
//! - [`socket`]: a socket as an open file. `crate::sys::socket`: the system calls.

pub mod card;
pub mod setup;
pub mod socket;

use crate::arch::vcpu::Vectors;
use crate::errno::{Errno, Result};
use crate::lock::Locked;
use crate::mm::{PAGE, frames};
use crate::process::PID;
use crate::sched::timers::{self, Action};
use crate::{arch, random, time};
use alloc::rc::Rc;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, Ordering};
use unik_core::timers::TimerId;
use unik_net::message::Credentials;
use unik_net::{Host, Kind, Limits, Net, Report};

static NET: Locked<Option<Rc<Net>>> = Locked::new(None);
/// When [`poll`] is called next, and by which timer.
static ALARM: Locked<Option<(u64, TimerId)>> = Locked::new(None);

/// Bytes of stack for making a link: smoltcp's interface is built by value.
const SETUP_STACK: usize = 256 << 10;
/// Part of the memory that TCP buffers may take.
const POOL_SHARE: u64 = 8;
/// The network is not looked at again within this time, nanoseconds.
const GRAIN: u64 = 100_000;
/// A program that makes no calls for so long is interrupted by received frames, nanoseconds.
const WATCH: u64 = 10_000_000;

/// Cards were asked for interrupts.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Since the alarm rang somebody looked and found something.
static LOOKED: AtomicBool = AtomicBool::new(false);

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
    *NET.get() = Some(net.clone());
    setup::add_all(&net);
    net
}

/// Takes what cards have received and does what is due; from now on somebody has to look again.
pub fn poll() {
    if ARMED.swap(false, Ordering::Relaxed) {
        card::disarm();
    }
    let watch = card::any().then(|| time::now() + WATCH);
    alarm([work(), watch].into_iter().flatten().min());
}

/// Takes what cards have received and does what is due. When there is more to do.
fn work() -> Option<u64> {
    let net = NET.get().clone()?;
    let more = net.poll();
    card::note_seen();
    if more { Some(0) } else { net.deadline() }
}

/// Takes what cards have received, if there is anything. True when there was.
#[inline]
pub fn look() -> bool {
    let found = card::waiting();
    if found {
        LOOKED.store(true, Ordering::Relaxed);
        poll();
    }
    found
}

/// Before a vCPU halts: from now on frames interrupt. True when there are some already.
pub fn rest() -> bool {
    if !card::any() || ARMED.load(Ordering::Relaxed) {
        return card::waiting();
    }
    if card::arm() {
        return true;
    }
    ARMED.store(true, Ordering::Relaxed);
    // Nobody needs to watch now.
    if let Some((_, timer)) = ALARM.get().take() {
        timers::cancel(timer);
    }
    set_alarm(deadline());
    false
}

/// Handles the cards' interrupts.
pub fn interrupt(vectors: Vectors) {
    if card::any() && card::interrupted(vectors) {
        poll();
    }
}

/// The alarm rang: a program that did not look since gets interrupts again.
fn ring() {
    *ALARM.get() = None;
    if LOOKED.swap(false, Ordering::Relaxed) || rest() {
        poll();
    } else {
        alarm(work());
    }
}

fn deadline() -> Option<u64> {
    NET.get().clone()?.deadline()
}

/// Sees to it that [`poll`] is called in time. Called after everything that may have brought its moment forward.
pub fn watch() {
    alarm(deadline());
}

fn alarm(next: Option<u64>) {
    if set_alarm(next) {
        timers::watch_next();
    }
}

/// Brings the alarm forward to `next`. True when it was later or not set at all.
fn set_alarm(next: Option<u64>) -> bool {
    let Some(next) = next else { return false };
    let known = *ALARM.get();
    match known {
        Some((at, _)) if at <= next => return false,
        Some((_, timer)) => timers::cancel(timer),
        None => {}
    }
    let at = next.max(time::now() + GRAIN);
    let timer = timers::add(at, Action::Call(Rc::new(ring)));
    *ALARM.get() = Some((at, timer));
    true
}

/// The text of `/proc/net/NAME`.
pub fn report(name: &str) -> String {
    let sockets = |kind| Report::Sockets {
        kind,
        v6: name.ends_with('6'),
    };
    net().report(match name {
        "arp" => Report::Arp,
        "dev" => Report::Dev,
        "icmp" | "icmp6" => sockets(Kind::Ping),
        "if_inet6" => Report::Inet6,
        "pnp" => Report::NameServers,
        "route" => Report::Route,
        "sockstat" => Report::SockStat,
        "tcp" | "tcp6" => sockets(Kind::Tcp),
        "udp" | "udp6" => sockets(Kind::Udp),
        _ => return String::new(),
    })
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
