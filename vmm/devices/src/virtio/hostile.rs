//! A driver without scruples that follows a script of bytes; any bytes are a script. For fuzz targets and property tests.
//!
//! A script is a row of steps of [`STEP`] bytes. [`Hostile::play`] carries them out: descriptors, indices, bytes of memory and
//! registers as the script says, right or wrong, and in between the device does its work. The first byte of a step says what,
//! the next ones where and how; numbers are folded so that most land where they do something.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Device;
use super::mmio::Mmio;
use super::testing::{self, RAM, SIZE};

/// Bytes of a step.
pub const STEP: usize = 12;

/// Where buffers lie that keep out of the rings' way.
pub const DATA: u64 = 0x8_0000;

/// A step's kind, its first byte (others are taken modulo [`kind::COUNT`]).
pub mod kind {
    /// The device works; the rest of the step is what the world outside does meanwhile.
    pub const WORK: u8 = 0;
    /// Writes a descriptor: queue, places, flags, address (4), its mode, length's mode, length (2).
    pub const DESCRIPTOR: u8 = 1;
    /// Offers a chain: queue, head.
    pub const OFFER: u8 = 2;
    /// Writes 8 bytes into the data area: place (3), bytes (8).
    pub const DATA: u8 = 3;
    /// Moves the available index or its flags: queue, what, by how much (2).
    pub const INDEX: u8 = 4;
    /// Brings the device up anew: event indices or not.
    pub const BRING_UP: u8 = 5;
    /// Writes a register: offset / 4, unused (2), value (4).
    pub const REGISTER: u8 = 6;
    /// Writes 8 bytes anywhere: place (3), bytes (8).
    pub const ANYWHERE: u8 = 7;
    /// How many there are.
    pub const COUNT: u8 = 8;
}

/// A device, its memory, and the driver that torments it.
pub struct Hostile<D: Device> {
    /// The device.
    pub mmio: Mmio<D>,
    /// The guest's memory.
    pub mem: GuestMemoryMmap,
    features: u64,
}

impl<D: Device> Hostile<D> {
    /// A device that was brought up as it should be, with all features that it offers but event indices.
    pub fn new(device: D) -> Self {
        let features = device.features();
        let mut hostile = Self {
            mmio: Mmio::new(device),
            mem: testing::memory(),
            features,
        };
        hostile.bring_up(false);
        hostile
    }

    fn bring_up(&mut self, event_idx: bool) {
        testing::bring_up_with(&mut self.mmio, &self.mem, self.features, event_idx);
    }

    /// Follows `script`; `work` is what the monitor does, with bytes from the script for what it needs to know.
    pub fn play(
        &mut self,
        script: &[u8],
        mut work: impl FnMut(&mut Mmio<D>, &GuestMemoryMmap, &[u8]),
    ) {
        for step in script.as_chunks::<STEP>().0 {
            if step[0] % kind::COUNT == kind::WORK {
                work(&mut self.mmio, &self.mem, &step[1..]);
                self.mmio.take_interrupt();
            } else {
                self.act(step);
            }
        }
    }

    /// A step that is the driver's own.
    pub fn act(&mut self, step: &[u8; STEP]) {
        let queue = testing::base(usize::from(step[1]) % D::QUEUES.len());
        let place = u64::from(step[1]) | u64::from(step[2]) << 8 | u64::from(step[3]) << 16;
        match step[0] % kind::COUNT {
            kind::DESCRIPTOR => self.descriptor(queue, step),
            kind::OFFER => self.offer(queue, step[2]),
            kind::DATA => self.poke(DATA + place % (RAM - DATA - 8), &step[4..]),
            kind::INDEX => self.index(queue, step),
            kind::BRING_UP => self.bring_up(step[1] & 1 != 0),
            kind::REGISTER => {
                let offset = u64::from(step[1]) * 4;
                self.mmio.read(offset, &mut [0; 4]);
                self.mmio.write(offset, &step[4..8], &self.mem);
            }
            _ => self.poke(place % (RAM - 8), &step[4..]),
        }
    }

    fn poke(&self, at: u64, bytes: &[u8]) {
        // Every place lies in memory.
        let _ = self.mem.write_slice(bytes, GuestAddress(at));
    }

    fn word(&self, at: u64) -> u16 {
        self.mem.read_obj(GuestAddress(at)).unwrap_or(0)
    }

    fn descriptor(&self, queue: u64, step: &[u8; STEP]) {
        let (at, next) = (step[2] % SIZE as u8, step[2] / 16 % SIZE as u8);
        let addr = address(step[8], [step[4], step[5], step[6], step[7]]);
        let len = length(step[9], [step[10], step[11]]);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12] = step[3] & 7;
        bytes[14] = next;
        self.poke(queue + 16 * u64::from(at), &bytes);
    }

    fn offer(&self, queue: u64, head: u8) {
        let index = self.word(queue + 0x4002);
        let entry = queue + 0x4004 + 2 * u64::from(index % SIZE);
        self.poke(entry, &u16::from(head % (SIZE as u8 + 1)).to_le_bytes());
        self.poke(queue + 0x4002, &index.wrapping_add(1).to_le_bytes());
    }

    fn index(&self, queue: u64, step: &[u8; STEP]) {
        let by = u16::from_le_bytes([step[3], step[4]]);
        match step[2] % 3 {
            0 => {
                let index = self.word(queue + 0x4002).wrapping_add(by % 12);
                self.poke(queue + 0x4002, &index.to_le_bytes());
            }
            1 => self.poke(queue + 0x4000, &by.to_le_bytes()),
            _ => self.poke(queue + 0x4004 + 2 * u64::from(SIZE), &by.to_le_bytes()),
        }
    }
}

/// Mostly a place in the data area; also the end of memory, the rings, and where nothing is.
fn address(mode: u8, low: [u8; 4]) -> u64 {
    let low = u64::from(u32::from_le_bytes(low));
    match mode % 8 {
        0..=4 => DATA + low % (RAM - DATA),
        5 => RAM - low % 64,
        6 => low % RAM,
        _ => u64::MAX - low,
    }
}

/// Mostly small; also large, and the largest.
fn length(mode: u8, low: [u8; 2]) -> u32 {
    let low = u32::from(u16::from_le_bytes(low));
    match mode % 8 {
        0..=3 => low % 64,
        4 | 5 => low % 8192,
        6 => low * 16,
        _ => u32::MAX - low,
    }
}
