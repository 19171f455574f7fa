//! Receiving: buffers that lie one after the other, so that a frame spread over several of them is in one piece nearly always.

use super::{DATA_VALID, ETHERNET, HEADER, NEEDS_CSUM, RX_QUEUE};
use crate::dma::Dma;
use crate::queue::{Buffer, SplitQueue};
use crate::setup::DriverError;
use alloc::vec;
use alloc::vec::Vec;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, PAGE_SIZE};

/// Most buffers.
const ENTRIES: u16 = 256;
/// Bytes of a buffer: a frame of the usual MTU.
const BUFFER: usize = 2048;
/// Buffers given back together while frames keep coming.
const BATCH: usize = 64;

/// The receiving side of a card.
pub(super) struct Receiver<H: Hal> {
    pub queue: SplitQueue<H>,
    area: Dma<H>,
    /// Bytes of a buffer.
    size: usize,
    merged: bool,
    /// Which buffer a token stands for.
    slot_of: Vec<u16>,
    /// Buffers of a frame that is not complete yet: slot and length.
    pieces: Vec<(u16, usize)>,
    /// A frame whose buffers do not follow each other.
    scratch: Vec<u8>,
    /// Buffers given back and not yet shown to the device.
    hidden: usize,
}

impl<H: Hal> Receiver<H> {
    /// `largest`: bytes of the largest frame where frames are not spread over buffers.
    pub fn new<T: Transport>(
        transport: &mut T,
        event_idx: bool,
        merged: bool,
        largest: usize,
    ) -> Result<Self, DriverError> {
        let entries = entries(transport.max_queue_size(RX_QUEUE));
        let size = if merged {
            BUFFER
        } else {
            (HEADER + largest.max(ETHERNET + 1500)).next_multiple_of(BUFFER)
        };
        let queue = SplitQueue::new(transport, RX_QUEUE, entries, event_idx)?;
        let area = Dma::new((usize::from(entries) * size).div_ceil(PAGE_SIZE))?;
        let mut this = Self {
            queue,
            area,
            size,
            merged,
            slot_of: vec![0; entries.into()],
            pieces: Vec::new(),
            scratch: Vec::new(),
            hidden: 0,
        };
        (0..entries).for_each(|slot| this.give(slot));
        Ok(this)
    }

    /// Gives a buffer back.
    fn give(&mut self, slot: u16) {
        let buffer = Buffer {
            paddr: self.area.paddr(usize::from(slot) * self.size),
            len: self.size as u32,
        };
        // SAFETY: the buffer lives as long as the queue and is read only between its pop and this.
        if let Some(token) = unsafe { self.queue.push(&[], &[buffer]) } {
            self.slot_of[usize::from(token)] = slot;
            self.hidden += 1;
        }
    }

    /// True when so many buffers were given back that the device should know.
    pub fn owed(&self) -> bool {
        self.hidden >= BATCH
    }

    /// Shows the device the buffers given back.
    pub fn offer<T: Transport>(&mut self, transport: &mut T) {
        self.hidden = 0;
        self.queue.submit(transport);
    }

    /// Shows the next frame to `take`.
    pub fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> Result<bool, DriverError> {
        if !self.collect()? {
            return Ok(false);
        }
        let first = self.pieces[0].0;
        let good = self.bytes(first, HEADER)[0] & (NEEDS_CSUM | DATA_VALID) != 0;
        match self.joined() {
            Some(total) => take(
                self.bytes(first, total).get(HEADER..).unwrap_or_default(),
                good,
            ),
            None => {
                self.copy_together();
                take(self.scratch.get(HEADER..).unwrap_or_default(), good);
            }
        }
        for at in 0..self.pieces.len() {
            self.give(self.pieces[at].0);
        }
        self.pieces.clear();
        Ok(true)
    }

    /// `len` bytes from the beginning of a buffer on, which was taken from the device and not yet given back.
    fn bytes(&self, slot: u16, len: usize) -> &[u8] {
        // SAFETY: the callers name slots of `pieces`: the device is done with them, and they are given back only behind `&mut self`.
        unsafe { self.area.bytes(usize::from(slot) * self.size, len) }
    }

    /// Takes used buffers until they make a frame. False when there are too few yet.
    fn collect(&mut self) -> Result<bool, DriverError> {
        loop {
            if let Some(&(first, _)) = self.pieces.first()
                && self.pieces.len() >= self.buffers_of(first)
            {
                return Ok(true);
            }
            let Some(used) = self.queue.pop()? else {
                return Ok(false);
            };
            let slot = self.slot_of[usize::from(used.token)];
            self.pieces.push((slot, (used.len as usize).min(self.size)));
        }
    }

    /// Over how many buffers the frame that begins in `slot` is spread.
    fn buffers_of(&self, slot: u16) -> usize {
        let header = self.bytes(slot, HEADER);
        let count = usize::from(u16::from_le_bytes([header[10], header[11]]));
        if self.merged {
            count.clamp(1, self.slot_of.len())
        } else {
            1
        }
    }

    /// Bytes of the frame with its header, if they are in one piece.
    fn joined(&self) -> Option<usize> {
        let follows = |pair: &[(u16, usize)]| pair[0].0 + 1 == pair[1].0 && pair[0].1 == self.size;
        self.pieces
            .windows(2)
            .all(follows)
            .then(|| self.pieces.iter().map(|piece| piece.1).sum())
    }

    fn copy_together(&mut self) {
        self.scratch.clear();
        for &(slot, len) in &self.pieces {
            // SAFETY: as in `bytes`.
            let bytes = unsafe { self.area.bytes(usize::from(slot) * self.size, len) };
            self.scratch.extend_from_slice(bytes);
        }
    }
}

/// The largest power of two that the device can do, up to [`ENTRIES`].
pub(super) fn entries(max: u32) -> u16 {
    let most = max.clamp(1, ENTRIES.into()) as u16;
    if most.is_power_of_two() {
        most
    } else {
        most.next_power_of_two() / 2
    }
}
