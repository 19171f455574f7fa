//! A driver for tests: brings a device up through its registers and fills rings by hand, rightly or wrongly.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::mmio::{Effect, Mmio};
use super::{Device, F_EVENT_IDX, F_VERSION_1};

/// Guest RAM of the tests.
pub const RAM: u64 = 1 << 20;

/// Descriptor flag: the chain goes on.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// The guest's memory.
pub fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap()
}

/// Entries of each queue.
pub const SIZE: u16 = 8;

/// Where queue `index` has its descriptor table; available ring and used ring follow at 0x4000 and 0x8000.
pub fn base(index: usize) -> u64 {
    0x1_0000 * (index as u64 + 1)
}

/// A driver of one queue.
pub struct Driver<'a> {
    mem: &'a GuestMemoryMmap,
    base: u64,
    size: u16,
    next_desc: u16,
    avail: u16,
    used: u16,
}

/// Writes a register.
pub fn set<D: Device>(
    mmio: &mut Mmio<D>,
    mem: &GuestMemoryMmap,
    offset: u64,
    value: u32,
) -> Effect {
    mmio.write(offset, &value.to_le_bytes(), mem)
}

/// Reads a register.
pub fn get<D: Device>(mmio: &Mmio<D>, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    mmio.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Negotiates up to FEATURES_OK.
pub fn negotiate<D: Device>(mmio: &mut Mmio<D>, mem: &GuestMemoryMmap, features: u64) {
    for (offset, value) in [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 0),
        (0x20, features as u32),
    ] {
        set(mmio, mem, offset, value);
    }
    set(mmio, mem, 0x24, 1);
    set(mmio, mem, 0x20, (features >> 32) as u32);
    set(mmio, mem, 0x70, 0xb);
}

/// Sets up queue `index` with 8 entries where [`base`] says.
pub fn set_up_queue<D: Device>(mmio: &mut Mmio<D>, mem: &GuestMemoryMmap, index: usize) {
    let base = base(index) as u32;
    let writes = [
        (0x30, index as u32),
        (0x38, SIZE.into()),
        (0x80, base),
        (0x90, base + 0x4000),
        (0xa0, base + 0x8000),
        (0x44, 1),
    ];
    for (offset, value) in writes {
        set(mmio, mem, offset, value);
    }
}

/// Brings all queues of a device up.
pub fn bring_up<D: Device>(mmio: &mut Mmio<D>, mem: &GuestMemoryMmap, event_idx: bool) -> Effect {
    bring_up_with(mmio, mem, 0, event_idx)
}

/// The same with some of the device's own features.
pub fn bring_up_with<D: Device>(
    mmio: &mut Mmio<D>,
    mem: &GuestMemoryMmap,
    features: u64,
    event_idx: bool,
) -> Effect {
    let event_idx = if event_idx { F_EVENT_IDX } else { 0 };
    negotiate(mmio, mem, features | F_VERSION_1 | event_idx);
    for index in 0..D::QUEUES.len() {
        set_up_queue(mmio, mem, index);
    }
    set(mmio, mem, 0x70, 0xf)
}

impl<'a> Driver<'a> {
    /// A driver of queue `queue` in `mem`.
    pub fn new(mem: &'a GuestMemoryMmap, queue: usize) -> Self {
        Self {
            mem,
            base: base(queue),
            size: SIZE,
            next_desc: 0,
            avail: 0,
            used: 0,
        }
    }

    /// Writes descriptor `at` as it is.
    pub fn descriptor(&self, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let place = GuestAddress(self.base + 16 * u64::from(at));
        self.mem.write_obj(addr, place).unwrap();
        self.mem
            .write_obj(
                u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48,
                GuestAddress(place.0 + 8),
            )
            .unwrap();
    }

    /// Makes the chain that starts at descriptor `head` available.
    pub fn offer(&mut self, head: u16) {
        let ring = self.base + 0x4000;
        self.mem
            .write_obj(
                head,
                GuestAddress(ring + 4 + 2 * u64::from(self.avail % self.size)),
            )
            .unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    /// Says how many chains were offered.
    pub fn set_avail_index(&self, index: u16) {
        self.mem
            .write_obj(index, GuestAddress(self.base + 0x4002))
            .unwrap();
    }

    /// Sets the flags of the available ring.
    pub fn set_flags(&self, flags: u16) {
        self.mem
            .write_obj(flags, GuestAddress(self.base + 0x4000))
            .unwrap();
    }

    /// Asks for an interrupt once the used index passes `index`.
    pub fn set_used_event(&self, index: u16) {
        self.mem
            .write_obj(
                index,
                GuestAddress(self.base + 0x4004 + 2 * u64::from(self.size)),
            )
            .unwrap();
    }

    /// Offers a chain of these buffers (address, length, writable) in fresh descriptors.
    pub fn chain(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        let head = self.next_desc;
        for (i, &(addr, len, writable)) in buffers.iter().enumerate() {
            let at = self.next_desc;
            self.next_desc = (self.next_desc + 1) % self.size;
            let more = if i + 1 < buffers.len() { NEXT } else { 0 };
            let write = if writable { WRITE } else { 0 };
            self.descriptor(at, addr, len, more | write, self.next_desc);
        }
        self.offer(head);
        head
    }

    /// Takes the next used element: head and length.
    pub fn used(&mut self) -> Option<(u32, u32)> {
        let ring = self.base + 0x8000;
        let index: u16 = self.mem.read_obj(GuestAddress(ring + 2)).unwrap();
        if index == self.used {
            return None;
        }
        let at = ring + 4 + 8 * u64::from(self.used % self.size);
        self.used = self.used.wrapping_add(1);
        Some((
            self.mem.read_obj(GuestAddress(at)).unwrap(),
            self.mem.read_obj(GuestAddress(at + 4)).unwrap(),
        ))
    }
}
