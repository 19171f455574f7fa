//! Disks in their places: a small crew of threads takes requests from the device and carries them out, several at a time.
//!
//! One of the crew has the turn: it waits for the doorbell, and carries out by itself what does not wait for the medium. With a request that
//! may, it passes the turn on. A driver that resets the device waits until nothing is in hand any more: its memory is its own again then.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use unik_devices::block::{Block, Geometry, Operation, Outcome, Request, SECTOR, SERIAL_LEN};
use unik_devices::virtio::mmio::Effect;
use unik_host::disk::Disk;
use unik_host::poll::{self, Watch};
use unik_host::seccomp::{self, Kind};
use vm_memory::GuestMemoryMmap;

use super::slot::{Bell, Slot, Window};
use super::{Machine, lock};
use crate::error::Error;

/// Threads of a disk.
const CREW: usize = 4;

/// Most requests taken at once: those that do not wait for the medium are answered together.
const BATCH: usize = 16;

/// The block size that guests are told.
const BLOCK: u32 = 4096;

/// A disk, its place and its doorbell.
pub struct DiskWindow {
    slot: Slot<Block>,
    bell: Bell,
    disk: Disk,
    /// Held by whoever waits for requests: those that were found to take long, for the next of the crew.
    turn: Mutex<VecDeque<Request>>,
    in_hand: Mutex<usize>,
    less: Condvar,
    failed: AtomicBool,
}

impl Window for DiskWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.slot.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self.slot.write(offset, data) {
            Effect::Doorbell(_) | Effect::Ready => self.bell.ring(),
            Effect::Reset => self.drain(),
            _ => {}
        }
    }
}

impl DiskWindow {
    fn drain(&self) {
        let busy = |count: &mut usize| *count > 0;
        let _nothing_in_hand = self
            .less
            .wait_while(lock(&self.in_hand), busy)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// The next request that may take long; what does not is carried out meanwhile. `None` when the doorbell is broken.
    fn next(&self, mem: &GuestMemoryMmap) -> Option<Request> {
        let mut long = lock(&self.turn);
        loop {
            if let Some(request) = long.pop_front() {
                return Some(request);
            }
            let requests = self.take();
            if requests.is_empty() {
                poll::wait(&mut [Watch::readable(self.bell.event())], None).ok()?;
                self.bell.clear();
            }
            let mut done = Vec::new();
            for request in requests {
                match self.carry_out_now(&request, mem) {
                    Ok(false) => long.push_back(request),
                    result => done.push((request, result.map(|_| ()))),
                }
            }
            self.complete(done);
        }
    }

    fn take(&self) -> Vec<Request> {
        self.slot.with(|device, mem| {
            let next = std::iter::from_fn(|| device.next_request(mem));
            let requests: Vec<_> = next.take(BATCH).collect();
            // Counted before anybody can see the device without them.
            *lock(&self.in_hand) += requests.len();
            requests
        })
    }

    fn serve(&self, mem: &GuestMemoryMmap) {
        while let Some(request) = self.next(mem) {
            let result = self.carry_out(&request, mem);
            self.complete(vec![(request, result)]);
        }
    }

    /// Tells the guest what became of requests, with one interrupt for all.
    fn complete(&self, done: Vec<(Request, io::Result<()>)>) {
        if done.is_empty() {
            return;
        }
        let count = done.len();
        let outcomes = done.into_iter().map(|(request, result)| {
            let failed = |error| self.complain(&error);
            (request, result.map_or_else(failed, |()| Outcome::Done))
        });
        let outcomes: Vec<_> = outcomes.collect();
        self.slot.with(|device, mem| {
            for (request, outcome) in outcomes {
                device.complete(mem, request, outcome);
            }
        });
        *lock(&self.in_hand) -= count;
        self.less.notify_all();
    }

    /// Carries `request` out unless that may take long; `false`: it may.
    fn carry_out_now(&self, request: &Request, mem: &GuestMemoryMmap) -> io::Result<bool> {
        match &request.operation {
            Operation::Read(offset) => {
                let pieces: Vec<_> = request.buffers().collect();
                self.disk.read_now(mem, &pieces, *offset)
            }
            _ => Ok(false),
        }
    }

    fn carry_out(&self, request: &Request, mem: &GuestMemoryMmap) -> io::Result<()> {
        let pieces = || request.buffers().collect::<Vec<_>>();
        match &request.operation {
            Operation::Read(offset) => self.disk.read(mem, &pieces(), *offset),
            Operation::Write(offset) => self.disk.write(mem, &pieces(), *offset),
            Operation::Flush => self.disk.flush(),
            Operation::Discard(ranges) => ranges
                .iter()
                .try_for_each(|r| self.disk.discard(r.offset, r.len)),
            Operation::WriteZeroes(ranges) => ranges
                .iter()
                .try_for_each(|r| self.disk.write_zeroes(r.offset, r.len, r.unmap)),
        }
    }

    /// The guest sees an error; the user reads the first one.
    fn complain(&self, error: &io::Error) -> Outcome {
        if error.kind() == io::ErrorKind::Unsupported {
            return Outcome::Unsupported;
        }
        if !self.failed.swap(true, Ordering::Relaxed) {
            use std::io::Write;
            let _ = writeln!(
                io::stderr(),
                "unik: a disk request failed, and the guest was told: {error}\r"
            );
        }
        Outcome::Failed
    }
}

/// Attaches the disk at `path` to `machine` and starts its crew. `number` makes its serial number.
pub fn attach(
    machine: &mut Machine,
    path: &Path,
    read_only: bool,
    number: usize,
) -> Result<(), Error> {
    let disk = Disk::open(path, read_only)?;
    let mut serial = [0; SERIAL_LEN];
    let text = format!("unik{number}");
    serial[..text.len()].copy_from_slice(text.as_bytes());
    let len = disk.len() / SECTOR * SECTOR;
    let place = machine.next_place();
    let mem = machine.ram.view().clone();
    let bell = Bell::new(Arc::clone(&machine.vm), place.window, 0)
        .map_err(Error::host("create an event"))?;
    let window = Arc::new(DiskWindow {
        slot: Slot::new(
            Block::new(Geometry {
                len,
                block: BLOCK,
                read_only,
                serial,
            }),
            mem.clone(),
            place.line,
        ),
        bell,
        disk,
        turn: Mutex::default(),
        in_hand: Mutex::new(0),
        less: Condvar::new(),
        failed: AtomicBool::new(false),
    });
    machine.attach(window.clone());
    for _ in 0..CREW {
        let (window, mem) = (Arc::clone(&window), mem.clone());
        let name = std::thread::Builder::new().name("unik-disk".into());
        name.stack_size(64 << 10)
            // What cannot be confined does not serve; the event loop says why.
            .spawn(move || {
                if seccomp::enter(Kind::Worker).is_ok() {
                    window.serve(&mem);
                }
            })
            .map_err(Error::host("start a thread"))?;
    }
    Ok(())
}
