//! The serial line: a 16550 (rust-vmm's model) with an interrupt, a bounded buffer behind it, and a thread that writes to the host.
//!
//! A vCPU that prints faster than the host reads waits; while it waits nothing else does.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use unik_host::EventFd;
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};

use crate::machine::interrupts::Line;
use crate::machine::lock;

/// Most bytes that wait for the host.
const LIMIT: usize = 64 << 10;

struct Wire(Line);

impl Trigger for Wire {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.raise();
        Ok(())
    }
}

/// Rings when the guest has read everything that was received.
struct Room(EventFd);

impl SerialEvents for Room {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // The counter cannot overflow before somebody reads it.
        let _ = self.0.write(1);
    }
}

/// The line.
pub struct SerialLine {
    model: Mutex<Serial<Wire, Room, Outbox>>,
    room: EventFd,
    outbox: Outbox,
}

impl SerialLine {
    /// A line whose interrupt is `line`.
    pub fn new(line: Line) -> io::Result<Self> {
        let (outbox, room) = (Outbox::default(), unik_host::event()?);
        let model = Serial::with_events(Wire(line), Room(room.try_clone()?), outbox.clone());
        Ok(Self {
            model: Mutex::new(model),
            room,
            outbox,
        })
    }

    /// The guest writes to the port `offset` from the first.
    pub fn write(&self, offset: u16, data: &[u8]) {
        for &byte in data {
            // A byte that nobody takes is lost, as on a real line.
            let _ = lock(&self.model).write(offset as u8, byte);
        }
    }

    /// The guest reads there.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for byte in data {
            *byte = lock(&self.model).read(offset as u8);
        }
    }

    /// Passes received bytes on as far as there is room, and returns how many went.
    pub fn receive(&self, data: &[u8]) -> usize {
        lock(&self.model).enqueue_raw_bytes(data).unwrap_or(0)
    }

    /// Readable once there is room again.
    pub fn room(&self) -> &EventFd {
        &self.room
    }

    /// Where sent bytes wait.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    writing: bool,
    last: bool,
    closed: bool,
}

/// Bytes on their way to the host.
#[derive(Clone, Default)]
pub struct Outbox(Arc<(Mutex<Waiting>, Condvar)>);

impl Outbox {
    /// Starts the thread that writes them to `stream`.
    pub fn carry_to(&self, stream: File) -> io::Result<JoinHandle<()>> {
        let outbox = self.clone();
        let name = std::thread::Builder::new().name("unik-serial".into());
        name.stack_size(64 << 10)
            .spawn(move || outbox.carry(stream))
    }

    fn carry(&self, mut stream: File) {
        let (waiting, changed) = &*self.0;
        loop {
            let mut now = lock(waiting);
            now.writing = false;
            changed.notify_all();
            while now.bytes.is_empty() && !now.last {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
            }
            if now.bytes.is_empty() {
                return;
            }
            let batch = std::mem::take(&mut now.bytes);
            now.writing = true;
            changed.notify_all();
            drop(now);
            let written = stream.write_all(&batch);
            if written.is_err() {
                lock(waiting).closed = true;
            }
        }
    }

    /// Nothing more will be sent: waits at most `limit` until all is written.
    pub fn finish(&self, limit: Duration) {
        let (waiting, changed) = &*self.0;
        let mut now = lock(waiting);
        now.last = true;
        changed.notify_all();
        let busy = |now: &mut Waiting| !now.closed && (now.writing || !now.bytes.is_empty());
        let _ = changed.wait_timeout_while(now, limit, busy);
    }

    /// Drops what is sent from now on, so that no vCPU waits for the host.
    pub fn close(&self) {
        let (waiting, changed) = &*self.0;
        lock(waiting).closed = true;
        changed.notify_all();
    }
}

impl Write for Outbox {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (waiting, changed) = &*self.0;
        let full = |now: &mut Waiting| now.bytes.len() >= LIMIT && !now.closed;
        let mut now = changed
            .wait_while(lock(waiting), full)
            .unwrap_or_else(PoisonError::into_inner);
        if !now.closed {
            now.bytes.extend_from_slice(data);
            if !now.writing && now.bytes.len() == data.len() {
                changed.notify_all();
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::interrupts::Interrupts;
    use std::io::Read;

    #[test]
    fn what_is_sent_arrives_in_order_and_the_buffer_is_bounded() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outbox = Outbox::default();
        let thread = outbox
            .carry_to(File::from(std::os::fd::OwnedFd::from(writer)))
            .unwrap();
        let sender = std::thread::spawn(move || {
            for i in 0..300_000u32 {
                outbox.write_all(&[i as u8]).unwrap();
                assert!(lock(&outbox.0.0).bytes.len() <= LIMIT);
            }
            outbox.finish(Duration::from_secs(10));
        });
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        sender.join().unwrap();
        thread.join().unwrap();
        assert!(bytes.len() == 300_000 && bytes.iter().enumerate().all(|(i, &b)| b == i as u8));
    }

    /// Input for a guest that does not read must not pile up in the monitor.
    #[test]
    fn what_the_host_sends_waits_outside_when_the_line_is_full() {
        let Ok(kvm) = unik_host::kvm::open() else {
            let _ = writeln!(io::stderr(), "\n!!! SKIPPED: no usable /dev/kvm here\n");
            return;
        };
        let vm = Arc::new(unik_host::kvm::Vm::new(&kvm).unwrap());
        let line = Line::new(Arc::new(Interrupts::new(vm)), 4);
        let serial = SerialLine::new(line).unwrap();
        assert!((1..=64).contains(&serial.receive(&[7; 100_000])));
        for _ in 0..1000 {
            assert_eq!(serial.receive(&[7; 100]), 0);
        }
    }

    #[test]
    fn a_closed_line_takes_everything() {
        let mut outbox = Outbox::default();
        outbox.close();
        outbox.write_all(&vec![0; 10 * LIMIT]).unwrap();
        assert!(lock(&outbox.0.0).bytes.is_empty());
    }
}
