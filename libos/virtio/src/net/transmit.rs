//! Sending: frames are built where the device reads them, in a ring of bytes.

use super::{HEADER, Info, NEEDS_CSUM, TX_QUEUE, Work, largest_frame};
use crate::dma::Dma;
use crate::queue::{Buffer, SplitQueue};
use crate::setup::DriverError;
use alloc::collections::VecDeque;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, PAGE_SIZE};

/// Bytes that can wait for the device.
const CAPACITY: usize = 512 << 10;
/// Frames begin at multiples of this: a cache line.
const ALIGN: usize = 64;

/// `virtio_net_hdr::gso_type`.
const GSO_TCP4: u8 = 1;

/// The sending side of a card: bytes `tail..head` of the ring (both count for ever) are with the device.
pub(super) struct Transmitter<H: Hal> {
    pub queue: SplitQueue<H>,
    ring: Dma<H>,
    head: usize,
    tail: usize,
    /// Frames in order of their bytes: token, end position, done.
    frames: VecDeque<(u16, usize, bool)>,
    largest: usize,
}

impl<H: Hal> Transmitter<H> {
    pub fn new<T: Transport>(
        transport: &mut T,
        event_idx: bool,
        info: Info,
    ) -> Result<Self, DriverError> {
        let entries = super::receive::entries(transport.max_queue_size(TX_QUEUE));
        Ok(Self {
            queue: SplitQueue::new(transport, TX_QUEUE, entries, event_idx)?,
            ring: Dma::new(CAPACITY / PAGE_SIZE)?,
            head: 0,
            tail: 0,
            frames: VecDeque::new(),
            largest: HEADER + largest_frame(&info),
        })
    }

    /// Takes finished frames back; an empty ring starts again at its beginning, which is warm.
    fn reclaim(&mut self) -> Result<(), DriverError> {
        while let Some(used) = self.queue.pop()? {
            let frame = self.frames.iter_mut().find(|f| f.0 == used.token && !f.2);
            if let Some(frame) = frame {
                frame.2 = true;
            }
        }
        while let Some(&(_, end, true)) = self.frames.front() {
            self.tail = end;
            self.frames.pop_front();
        }
        if self.frames.is_empty() {
            (self.head, self.tail) = (0, 0);
        }
        Ok(())
    }

    /// Where `len` bytes in one piece can begin, if there is room for them.
    fn place(&self, len: usize) -> Option<usize> {
        let mut start = self.head.next_multiple_of(ALIGN);
        if start % CAPACITY + len > CAPACITY {
            start = start.next_multiple_of(CAPACITY);
        }
        (start + len - self.tail <= CAPACITY && self.queue.free() > 0).then_some(start)
    }

    pub fn ready(&mut self) -> bool {
        self.place(self.largest).is_some()
            || self.reclaim().is_ok() && self.place(self.largest).is_some()
    }

    /// Queues a frame of `len` bytes, if there is room.
    pub fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Work) {
        if self.reclaim().is_err() {
            return;
        }
        let Some(start) = self.place(HEADER + len) else {
            return;
        };
        let at = start % CAPACITY;
        // SAFETY: bytes from `head` on, which the device does not have.
        let bytes = unsafe { self.ring.bytes_mut(at, HEADER + len) };
        let (header, frame) = bytes.split_at_mut(HEADER);
        header.copy_from_slice(&header_of(&fill(frame)));
        let buffer = Buffer {
            paddr: self.ring.paddr(at),
            len: (HEADER + len) as u32,
        };
        // SAFETY: the ring lives as long as the queue, and these bytes are not touched before `tail` has passed them.
        if let Some(token) = unsafe { self.queue.push(&[buffer], &[]) } {
            self.head = start + HEADER + len;
            self.frames.push_back((token, self.head, false));
        }
    }
}

/// The bytes of `struct virtio_net_hdr`.
fn header_of(work: &Work) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    if let Some((start, offset)) = work.checksum {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    }
    if let Some(segments) = work.segments {
        header[1] = GSO_TCP4;
        header[2..4].copy_from_slice(&segments.header_len.to_le_bytes());
        header[4..6].copy_from_slice(&segments.size.to_le_bytes());
    }
    header
}
