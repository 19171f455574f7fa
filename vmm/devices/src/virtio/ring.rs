//! A split virtqueue as a device uses it, around rust-vmm's `Queue`.
//!
//! What this adds: a chain is read once and checked as a whole before anybody uses it ([`Chain`]), a driver's nonsense ends
//! as [`Broken`] instead of being skipped, and a driver without event indices can refuse interrupts.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::Broken;

/// A piece of guest RAM; every byte was checked to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    addr: GuestAddress,
    len: u32,
}

impl Segment {
    fn new(mem: &GuestMemoryMmap, addr: GuestAddress, len: u32) -> Result<Self, Broken> {
        if mem.check_range(addr, len as usize) {
            Ok(Self { addr, len })
        } else {
            Err(Broken)
        }
    }

    /// Where it starts.
    pub fn addr(&self) -> GuestAddress {
        self.addr
    }

    /// Takes the last byte off; `None` when there are no bytes.
    pub fn take_last(&mut self) -> Option<Self> {
        self.len = self.len.checked_sub(1)?;
        Some(Self {
            addr: GuestAddress(self.addr.0 + u64::from(self.len)),
            len: 1,
        })
    }

    /// Bytes.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends at most `limit` bytes from the front to `out`, takes them off, and returns how many.
    pub fn read_front(
        &mut self,
        mem: &GuestMemoryMmap,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<usize, Broken> {
        let take = limit.min(self.len as usize);
        let start = out.len();
        out.resize(start + take, 0);
        mem.read_slice(&mut out[start..], self.addr)
            .map_err(|_| Broken)?;
        self.advance(take);
        Ok(take)
    }

    /// Fills the front from `data`, takes it off, and returns how many bytes went in.
    pub fn write_front(&mut self, mem: &GuestMemoryMmap, data: &[u8]) -> Result<usize, Broken> {
        let take = data.len().min(self.len as usize);
        mem.write_slice(&data[..take], self.addr)
            .map_err(|_| Broken)?;
        self.advance(take);
        Ok(take)
    }

    /// Takes at most `limit` bytes off the front and returns how many.
    pub fn skip(&mut self, limit: u32) -> u32 {
        let take = limit.min(self.len);
        self.advance(take as usize);
        take
    }

    fn advance(&mut self, by: usize) {
        self.addr = GuestAddress(self.addr.0 + by as u64);
        self.len -= by as u32;
    }
}

/// A descriptor chain: what the device may read and what it may write, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Names the chain in the used ring.
    pub head: u16,
    /// For the device to read.
    pub readable: Vec<Segment>,
    /// For the device to write.
    pub writable: Vec<Segment>,
}

/// Takes exactly `len` bytes off the front; fewer are a driver's mistake. The caller bounds `len`.
pub fn take_bytes(
    segments: &mut Vec<Segment>,
    mem: &GuestMemoryMmap,
    len: usize,
) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let segment = segments.first_mut().ok_or(Broken)?;
        let missing = len - bytes.len();
        segment.read_front(mem, &mut bytes, missing)?;
        if segment.is_empty() {
            segments.remove(0);
        }
    }
    Ok(bytes)
}

/// A queue between reset and reset.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    /// The used index when the driver was last thought of.
    told: u16,
}

impl Ring {
    /// A queue that holds at most `max` entries, a power of two up to 32768.
    pub(super) fn new(max: u16) -> Self {
        let max = if max.is_power_of_two() && max <= 32768 {
            max
        } else {
            1
        };
        Self {
            queue: Queue::new(max).unwrap_or_default(),
            told: 0,
        }
    }

    /// For the transport, until the driver says DRIVER_OK.
    pub(super) fn registers(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Whether the driver set it up.
    pub fn ready(&self) -> bool {
        self.queue.ready()
    }

    /// Whether descriptor table and rings lie in guest RAM.
    pub(super) fn valid(&self, mem: &GuestMemoryMmap) -> bool {
        self.queue.is_valid(mem)
    }

    /// The next chain that the driver made available.
    pub fn pop(&mut self, mem: &GuestMemoryMmap) -> Result<Option<Chain>, Broken> {
        if !self.queue.ready() {
            return Ok(None);
        }
        let limit = usize::from(self.queue.size());
        let Some(descriptors) = self.queue.iter(mem).map_err(|_| Broken)?.next() else {
            return Ok(None);
        };
        let mut chain = Chain {
            head: descriptors.head_index(),
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let (mut count, mut unfinished) = (0, true);
        for descriptor in descriptors {
            (count, unfinished) = (count + 1, descriptor.has_next());
            let segment = Segment::new(mem, descriptor.addr(), descriptor.len())?;
            match (descriptor.is_write_only(), chain.writable.is_empty()) {
                _ if count > limit => return Err(Broken),
                (true, _) => chain.writable.push(segment),
                (false, true) => chain.readable.push(segment),
                (false, false) => return Err(Broken), // what is to be read comes first (2.7.4.2)
            }
        }
        // A chain that promises more than it has loops or points nowhere.
        if unfinished {
            Err(Broken)
        } else {
            Ok(Some(chain))
        }
    }

    /// Whether [`Self::pop`] would find a chain.
    pub fn has_available(&self, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        let index = self
            .queue
            .avail_idx(mem, Ordering::Acquire)
            .map_err(|_| Broken)?;
        Ok(index.0 != self.queue.next_avail())
    }

    /// Number of entries that the driver chose.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Gives a chain back; `written` bytes of its writable part were filled.
    pub fn push(&mut self, mem: &GuestMemoryMmap, head: u16, written: u32) -> Result<(), Broken> {
        self.push_all(mem, &[(head, written)])
    }

    /// Gives chains back together: the driver sees all of them or none.
    pub fn push_all(&mut self, mem: &GuestMemoryMmap, chains: &[(u16, u32)]) -> Result<(), Broken> {
        let (ring, size) = (self.queue.used_ring(), self.queue.size());
        let mut next = self.queue.next_used();
        for &(head, written) in chains {
            if head >= size {
                return Err(Broken);
            }
            let element = u64::from(head) | u64::from(written) << 32;
            let place = ring.checked_add(4 + 8 * u64::from(next % size));
            mem.write_obj(element.to_le(), GuestAddress(place.ok_or(Broken)?))
                .map_err(|_| Broken)?;
            next = next.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        let index = GuestAddress(ring.checked_add(2).ok_or(Broken)?);
        mem.store(next.to_le(), index, Ordering::Release)
            .map_err(|_| Broken)
    }

    /// Whether the driver wants an interrupt for what was given back since the last time this was asked (2.7.7.2, 2.7.10).
    pub fn wants_interrupt(&mut self, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        let now = self.queue.next_used();
        let before = std::mem::replace(&mut self.told, now);
        // What was given back must be visible before the driver's wish is read: the driver does it the other way round.
        fence(Ordering::SeqCst);
        let indexed = self.queue.event_idx_enabled();
        let offset = if indexed {
            4 + 2 * u64::from(self.queue.size())
        } else {
            0
        };
        let place = self.queue.avail_ring().checked_add(offset).ok_or(Broken)?;
        let word: u16 = mem
            .load(GuestAddress(place), Ordering::Acquire)
            .map_err(|_| Broken)?;
        let word = u16::from_le(word);
        Ok(if indexed {
            now.wrapping_sub(word).wrapping_sub(1) < now.wrapping_sub(before)
        } else {
            word & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
        })
    }

    /// Asks the driver not to ring while we are looking anyway. Only a hint.
    pub fn quiet(&mut self, mem: &GuestMemoryMmap) -> Result<(), Broken> {
        if !self.queue.ready() {
            return Ok(());
        }
        self.queue.disable_notification(mem).map_err(|_| Broken)
    }

    /// Asks the driver to ring for the next chain. `true`: there is one already, look again.
    pub fn listen(&mut self, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue.enable_notification(mem).map_err(|_| Broken)
    }
}
