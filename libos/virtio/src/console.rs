//! Console: bytes out without ever blocking, bytes in when somebody wants them.
//!
//! [`Console`] drives port 0 of a virtio-console (virtio 1.2, 5.3). Output goes through a ring of DMA bytes: each write becomes one chain
//! and at most one notification (none while the device gathers and the ring is not half full), finished chains are taken back when their room is needed, without interrupts. Input buffers
//! are posted at the first read, so a program that never reads costs the monitor nothing. A used input buffer of length 0 is the end of input
//! (an extension: the virtio specification has no such mark).

use crate::dma::Dma;
use crate::queue::{Buffer, SplitQueue};
use crate::setup::{DriverError, F_EVENT_IDX, finish, negotiate};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};
use virtio_drivers::{Hal, PAGE_SIZE};

const RX_QUEUE: u16 = 0;
const TX_QUEUE: u16 = 1;
const RX_BUFFERS: u16 = 4;
const TX_ENTRIES: u16 = 64;
/// Pages of the output ring; each is allocated when it is first needed.
const TX_PAGES: usize = 16;
/// Bytes of output that can wait for the device.
pub const TX_CAPACITY: usize = TX_PAGES * PAGE_SIZE;

/// Number of queues to prefetch for this driver.
pub const QUEUES: u16 = 2;

/// What [`Console::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes were stored, at least one.
    Data(usize),
    /// Nothing there yet; an interrupt will come.
    WouldBlock,
    /// The input has ended.
    Eof,
}

/// A console device.
pub struct Console<H: Hal, T: Transport> {
    transport: T,
    tx: Output<H>,
    rx: Input<H>,
}

impl<H: Hal, T: Transport> Console<H, T> {
    /// Brings the device up. `transport` should have prefetched [`QUEUES`] queues.
    ///
    /// # Errors
    /// The device is too old or too small, or there is no memory.
    pub fn new(mut transport: T) -> Result<Self, DriverError> {
        let features = negotiate(&mut transport, F_EVENT_IDX)?;
        let event_idx = features & F_EVENT_IDX != 0;
        let rx = SplitQueue::new(&mut transport, RX_QUEUE, RX_BUFFERS, event_idx)?;
        let tx = SplitQueue::new(&mut transport, TX_QUEUE, TX_ENTRIES, event_idx)?;
        finish(&mut transport);
        Ok(Self {
            transport,
            tx: Output::new(tx),
            rx: Input::new(rx),
        })
    }

    /// Queues as much of `bytes` as there is room for and notifies the device. Never blocks; returns how many bytes were taken.
    ///
    /// # Errors
    /// The device broke the protocol or memory ran out.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        self.tx.reclaim()?;
        let pressed = self.tx.presses();
        let taken = self.tx.enqueue(bytes)?;
        if self.tx.queue.publish() || self.tx.presses() && !pressed {
            self.transport.notify(TX_QUEUE);
        }
        Ok(taken)
    }

    /// Notifies the device although it asked for no notification: somebody waits for [`Self::drained`] or [`Self::writable`], and it may be
    /// gathering output for a while.
    pub fn hurry(&mut self) {
        self.transport.notify(TX_QUEUE);
    }

    /// True when the device has taken everything written so far. A device that broke the protocol counts as done.
    pub fn drained(&mut self) -> bool {
        self.tx.reclaim().is_err() || self.tx.chains.is_empty()
    }

    /// True when [`Self::write`] would take at least one byte; otherwise an interrupt is asked for.
    pub fn writable(&mut self) -> bool {
        if self.tx.has_room() {
            return true;
        }
        self.tx.queue.enable_interrupts();
        let room = self.tx.has_room();
        if room {
            self.tx.queue.disable_interrupts();
        } else {
            self.hurry();
        }
        room
    }

    /// Takes input that is there.
    ///
    /// # Errors
    /// The device broke the protocol or memory ran out.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<ReadOutcome, DriverError> {
        self.rx.start(&mut self.transport)?;
        let outcome = self.rx.take(buf)?;
        self.rx.queue.submit(&mut self.transport);
        Ok(outcome)
    }

    /// True when [`Self::read`] would not return [`ReadOutcome::WouldBlock`].
    ///
    /// # Errors
    /// The device broke the protocol or memory ran out.
    pub fn readable(&mut self) -> Result<bool, DriverError> {
        self.rx.start(&mut self.transport)?;
        self.rx.ready()
    }

    /// Acknowledges the device's interrupt; then look at [`Self::readable`] and [`Self::writable`].
    pub fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }
}

impl<H: Hal, T: Transport> Drop for Console<H, T> {
    fn drop(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
    }
}

/// The output ring: bytes `tail..head` (both count for ever) are with the device.
struct Output<H: Hal> {
    queue: SplitQueue<H>,
    pages: Vec<Dma<H>>,
    head: usize,
    tail: usize,
    /// Chains in order of their bytes: token, end position, done.
    chains: VecDeque<(u16, usize, bool)>,
}

impl<H: Hal> Output<H> {
    fn new(queue: SplitQueue<H>) -> Self {
        Self {
            queue,
            pages: Vec::new(),
            head: 0,
            tail: 0,
            chains: VecDeque::new(),
        }
    }

    fn has_room(&mut self) -> bool {
        self.reclaim().is_ok() && self.room() > 0 && self.queue.free() > 0
    }

    /// Whether half of the ring waits for the device.
    fn presses(&self) -> bool {
        self.queue.free() < usize::from(TX_ENTRIES) / 2 || self.room() < TX_CAPACITY / 2
    }

    fn room(&self) -> usize {
        TX_CAPACITY - (self.head - self.tail)
    }

    /// Takes finished chains back; an empty ring starts again at its first page, which is warm.
    fn reclaim(&mut self) -> Result<(), DriverError> {
        while let Some(used) = self.queue.pop()? {
            if let Some(chain) = self.chains.iter_mut().find(|c| c.0 == used.token && !c.2) {
                chain.2 = true;
            }
        }
        while let Some(&(_, end, true)) = self.chains.front() {
            self.tail = end;
            self.chains.pop_front();
        }
        if self.chains.is_empty() {
            (self.head, self.tail) = (0, 0);
        }
        Ok(())
    }

    /// Copies into the ring and pushes one chain.
    fn enqueue(&mut self, bytes: &[u8]) -> Result<usize, DriverError> {
        let wanted = bytes.len().min(self.room());
        let mut buffers = [Buffer { paddr: 0, len: 0 }; TX_PAGES + 1];
        let (mut count, mut done) = (0, 0);
        let most = self.queue.free().min(buffers.len());
        while done < wanted && count < most {
            let (page, offset) = (
                (self.head + done) / PAGE_SIZE % TX_PAGES,
                (self.head + done) % PAGE_SIZE,
            );
            let len = (PAGE_SIZE - offset).min(wanted - done);
            let Some(memory) = self.page(page)? else {
                break;
            };
            memory.write(offset, &bytes[done..done + len]);
            buffers[count] = Buffer {
                paddr: memory.paddr(offset),
                len: len as u32,
            };
            (count, done) = (count + 1, done + len);
        }
        // SAFETY: the bytes lie in pages that live as long as the queue, and no write touches them before `tail` has passed them.
        if let Some(token) = unsafe { self.queue.push(&buffers[..count], &[]) } {
            self.head += done;
            self.chains.push_back((token, self.head, false));
            return Ok(done);
        }
        Ok(0)
    }

    /// Page `at` of the ring; `None` when there is no memory for it now but earlier output is still on its way.
    fn page(&mut self, at: usize) -> Result<Option<&mut Dma<H>>, DriverError> {
        while self.pages.len() <= at {
            match Dma::new(1) {
                Ok(page) => self.pages.push(page),
                Err(_) if !self.pages.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.pages.get_mut(at))
    }
}

/// The input side: page `i` belongs to the chain with token `i`.
struct Input<H: Hal> {
    queue: SplitQueue<H>,
    pages: Vec<Dma<H>>,
    /// A filled buffer: token, first unread byte, end.
    current: Option<(u16, usize, usize)>,
    eof: bool,
}

impl<H: Hal> Input<H> {
    fn new(queue: SplitQueue<H>) -> Self {
        Self {
            queue,
            pages: Vec::new(),
            current: None,
            eof: false,
        }
    }

    /// Posts all buffers, once, and turns the interrupt on.
    fn start<T: Transport>(&mut self, transport: &mut T) -> Result<(), DriverError> {
        if !self.pages.is_empty() {
            return Ok(());
        }
        for token in 0..RX_BUFFERS {
            self.pages.push(Dma::new(1)?);
            self.post(token);
        }
        self.queue.enable_interrupts();
        self.queue.submit(transport);
        Ok(())
    }

    fn post(&mut self, token: u16) {
        let buffer = Buffer {
            paddr: self.pages[usize::from(token)].paddr(0),
            len: PAGE_SIZE as u32,
        };
        // SAFETY: the page lives as long as the queue and is read only after it was popped.
        let given = unsafe { self.queue.push(&[], &[buffer]) };
        // Free descriptors are handed out last in, first out and one at a time, so a buffer gets the token it had.
        debug_assert_eq!(given, Some(token));
    }

    fn ready(&mut self) -> Result<bool, DriverError> {
        if self.current.is_none() && !self.eof {
            match self.queue.pop()? {
                Some(used) if used.len == 0 => self.eof = true,
                Some(used) => {
                    self.current = Some((used.token, 0, (used.len as usize).min(PAGE_SIZE)))
                }
                None => {}
            }
        }
        Ok(self.eof || self.current.is_some())
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<ReadOutcome, DriverError> {
        let mut done = 0;
        while done < buf.len() && self.ready()? {
            let Some((token, at, end)) = self.current else {
                break;
            };
            let len = (end - at).min(buf.len() - done);
            self.pages[usize::from(token)].read(at, &mut buf[done..done + len]);
            done += len;
            self.current = (at + len < end).then_some((token, at + len, end));
            if self.current.is_none() {
                self.post(token);
            }
        }
        Ok(match done {
            0 if self.eof => ReadOutcome::Eof,
            0 => ReadOutcome::WouldBlock,
            n => ReadOutcome::Data(n),
        })
    }
}
