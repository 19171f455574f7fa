//! Consoles in their places, and the thread that carries their output to the host's streams.
//!
//! Output leaves on a thread of its own, because writing to a full pipe or a stopped terminal blocks: neither vCPUs nor signals
//! wait for it. Input is read by the event loop ([`crate::input`]).

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use unik_devices::console::{BATCH, Console, RECEIVE, TRANSMIT};
use unik_devices::virtio::mmio::Effect;
use unik_host::EventFd;
use unik_host::poll::{self, Watch};

use super::slot::{Bell, Slot, Window};

/// After output was carried, more is gathered for so long without a doorbell, which costs the guest 20 to 100 us where KVM is paravirtual. A guest
/// that cannot wait (its ring fills up, or it wants to know that all is out) rings nevertheless.
const GATHER: Duration = Duration::from_micros(500);

/// A console, its place and its bells.
pub struct ConsoleWindow {
    /// The device.
    pub slot: Slot<Console>,
    /// Rings when the guest posted buffers for input.
    pub receive: Bell,
    /// Rings when the guest has output.
    pub transmit: Bell,
}

impl Window for ConsoleWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.slot.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self.slot.write(offset, data) {
            Effect::Doorbell(queue) if usize::from(queue) == RECEIVE => self.receive.ring(),
            Effect::Doorbell(queue) if usize::from(queue) == TRANSMIT => self.transmit.ring(),
            Effect::Ready => {
                self.receive.ring();
                self.transmit.ring();
            }
            _ => {}
        }
    }
}

/// A console and the host's stream for its output.
pub struct Outlet {
    /// The console.
    pub console: Arc<ConsoleWindow>,
    /// The stream.
    pub stream: File,
    /// The stream's number in the guest, 1 or 2.
    pub number: u32,
    closed: bool,
}

impl Outlet {
    /// Connects `console` to `stream`.
    pub fn new(console: Arc<ConsoleWindow>, stream: File, number: u32) -> Self {
        Self {
            console,
            stream,
            number,
            closed: false,
        }
    }

    /// Carries what there is and says whether that was anything. After something the guest does not ring for the next: come back by yourself.
    fn carry(&mut self, buffer: &mut Vec<u8>) -> bool {
        let mut carried = false;
        loop {
            buffer.clear();
            self.console
                .slot
                .with(|device, mem| device.collect_output(mem, buffer));
            if buffer.is_empty() {
                return carried;
            }
            carried = true;
            // Nobody reads any more: the guest is told, and what it still writes is dropped so that it does not hang.
            self.closed = self.closed || write_all(&mut self.stream, buffer).is_err();
            if buffer.len() < BATCH {
                return carried;
            }
        }
    }
}

/// Writes everything, also to a stream that somebody made non-blocking.
fn write_all(stream: &mut File, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match stream.write(data) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => data = &data[n..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll::wait(&mut [Watch::writable(stream)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The output thread.
pub struct Pump {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

struct Stop {
    wanted: AtomicBool,
    event: EventFd,
    done: EventFd,
}

impl Pump {
    /// Starts carrying; `hang_up` is called with the number of a stream that turned out to be closed.
    pub fn start(
        mut outlets: Vec<Outlet>,
        hang_up: impl Fn(u32) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            wanted: AtomicBool::new(false),
            event: unik_host::event()?,
            done: unik_host::event()?,
        });
        let ours = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("unik-output".into())
            .stack_size(64 << 10)
            .spawn(move || {
                pump(&mut outlets, &ours, &hang_up);
                let _ = ours.done.write(1);
            })?;
        Ok(Self { stop, thread })
    }

    /// Says that the guest has stopped: what is left in its queues is carried out, then [`Self::done`] is readable.
    pub fn finish(&self) {
        self.stop.wanted.store(true, Ordering::Release);
        let _ = self.stop.event.write(1);
    }

    /// Readable when the thread has finished.
    pub fn done(&self) -> &EventFd {
        &self.stop.done
    }

    /// Waits for the thread.
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

fn pump(outlets: &mut [Outlet], stop: &Stop, hang_up: &dyn Fn(u32)) {
    let mut buffer = Vec::new();
    loop {
        // Asked first, so that what the guest wrote before it stopped is seen below.
        let last = stop.wanted.load(Ordering::Acquire);
        let mut carried = false;
        for outlet in outlets.iter_mut() {
            outlet.console.transmit.clear();
            let was_closed = outlet.closed;
            carried |= outlet.carry(&mut buffer);
            if outlet.closed && !was_closed {
                hang_up(outlet.number);
            }
        }
        if carried && last {
            continue;
        }
        if last {
            return;
        }
        let mut watches = vec![Watch::readable(&stop.event)];
        watches.extend(
            outlets
                .iter()
                .map(|o| Watch::readable(o.console.transmit.event())),
        );
        if poll::wait(&mut watches, carried.then_some(GATHER)).is_err() {
            return;
        }
    }
}
