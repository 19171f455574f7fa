//! The virtio-mmio register window, version 2 (specification 4.2.2): negotiation, queue set-up, interrupt status.
//!
//! [`Mmio`] owns the device and its queues. Queue settings are frozen once the queue is ready and all of them once the driver
//! said DRIVER_OK; from then on the rings lie where they were checked to lie.

use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;

use super::ring::Ring;
use super::{Broken, Device, F_EVENT_IDX, F_VERSION_1};

/// Length of a window in bytes.
pub const WINDOW_LEN: u64 = 0x1000;

/// Offset of the doorbell register.
pub const QUEUE_NOTIFY: u64 = 0x50;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"Unik");

mod status {
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 0x40;
    pub const FAILED: u32 = 0x80;
    /// Bits that a driver can set.
    pub const DRIVERS: u32 = 1 | 2 | DRIVER_OK | FEATURES_OK | FAILED;
}

/// Interrupt status: a queue has used chains.
const USED: u32 = 1;
/// Interrupt status: the configuration changed.
const CONFIG: u32 = 2;

/// What a register write means for the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The driver rang for this queue.
    Doorbell(u16),
    /// The driver is ready; look at all queues.
    Ready,
    /// The interrupt line fell.
    Acknowledged,
    /// The device was reset.
    Reset,
}

/// Everything the driver can set, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    status: u32,
    offered_page: u32,
    accepted_page: u32,
    accepted: u64,
    queue: u32,
    interrupt: u32,
    generation: u32,
}

/// A device behind a register window.
#[derive(Debug)]
pub struct Mmio<D: Device> {
    device: D,
    state: State,
    rings: Vec<Ring>,
    raise: bool,
}

impl<D: Device> Mmio<D> {
    /// Puts `device` behind a window.
    pub fn new(device: D) -> Self {
        Self {
            device,
            state: State::default(),
            rings: fresh_rings::<D>(),
            raise: false,
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Whether the driver is ready and has kept the rules.
    pub fn live(&self) -> bool {
        self.state.status & (status::DRIVER_OK | status::NEEDS_RESET | status::FAILED)
            == status::DRIVER_OK
    }

    /// Lets `work` use the device and its queues while the device is live. It answers with a value and whether the driver wants an
    /// interrupt; an error takes the device out of service until the driver resets it. `None`: not live, or no longer.
    pub fn work<R>(
        &mut self,
        work: impl FnOnce(&mut D, &mut [Ring]) -> Result<(R, bool), Broken>,
    ) -> Option<R> {
        if !self.live() {
            return None;
        }
        match work(&mut self.device, &mut self.rings) {
            Ok((value, interrupt)) => {
                self.state.interrupt |= if interrupt { USED } else { 0 };
                self.raise |= interrupt;
                Some(value)
            }
            Err(Broken) => {
                self.fail();
                None
            }
        }
    }

    /// Lets `change` change what the configuration space says, and tells the driver.
    pub fn configure(&mut self, change: impl FnOnce(&mut D)) {
        change(&mut self.device);
        self.state.generation = self.state.generation.wrapping_add(1);
        self.tell_change();
    }

    fn tell_change(&mut self) {
        if self.state.status & status::DRIVER_OK != 0 {
            self.state.interrupt |= CONFIG;
            self.raise = true;
        }
    }

    fn fail(&mut self) {
        self.state.status |= status::NEEDS_RESET;
        self.tell_change();
    }

    /// Whether the interrupt line is to be raised since this was last asked. To be asked after [`Self::work`] and after writes.
    pub fn take_interrupt(&mut self) -> bool {
        std::mem::take(&mut self.raise)
    }

    /// The driver reads at `offset`. Registers are 32 bits wide; the configuration space can be read in any width.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= 0x100 {
            let config = self.device.config();
            for (i, byte) in data.iter_mut().enumerate() {
                let at = usize::try_from(offset - 0x100)
                    .unwrap_or(usize::MAX)
                    .saturating_add(i);
                *byte = config.get(at).copied().unwrap_or(0);
            }
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            *register = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let ring = self.rings.get(self.state.queue as usize);
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => D::KIND,
            0x0c => VENDOR,
            0x10 if self.state.offered_page < 2 => {
                (self.offered() >> (32 * self.state.offered_page)) as u32
            }
            0x34 => ring.map_or(0, |_| D::QUEUES[self.state.queue as usize].into()),
            0x44 => ring.is_some_and(Ring::ready).into(),
            0x60 => self.state.interrupt,
            0x70 => self.state.status,
            0xb0..=0xbc => u32::MAX, // no shared memory
            0xfc => self.state.generation,
            _ => 0,
        }
    }

    /// The driver writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8], mem: &GuestMemoryMmap) -> Effect {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Effect::None;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x14 => self.state.offered_page = value,
            0x20 => self.accept(value),
            0x24 => self.state.accepted_page = value,
            0x30 => self.state.queue = value,
            QUEUE_NOTIFY => return self.doorbell(value),
            0x64 => return self.acknowledge(value),
            0x70 => return self.set_status(value, mem),
            0x100.. => self.device.set_config(offset - 0x100, bytes),
            _ => self.set_up_queue(offset, value),
        }
        Effect::None
    }

    fn accept(&mut self, value: u32) {
        if self.state.status & status::FEATURES_OK == 0 && self.state.accepted_page < 2 {
            let shift = 32 * self.state.accepted_page;
            let kept = self.state.accepted & !(0xffff_ffff << shift);
            self.state.accepted = kept | u64::from(value) << shift;
        }
    }

    fn doorbell(&self, value: u32) -> Effect {
        match u16::try_from(value) {
            Ok(queue) if usize::from(queue) < self.rings.len() && self.live() => {
                Effect::Doorbell(queue)
            }
            _ => Effect::None,
        }
    }

    fn acknowledge(&mut self, value: u32) -> Effect {
        self.state.interrupt &= !value;
        if self.state.interrupt != 0 {
            Effect::None
        } else {
            Effect::Acknowledged
        }
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        if self.state.status & status::DRIVER_OK != 0 {
            return;
        }
        let Some(ring) = self.rings.get_mut(self.state.queue as usize) else {
            return;
        };
        let queue = ring.registers();
        if offset == 0x44 {
            queue.set_ready(value == 1);
        }
        if queue.ready() {
            return;
        }
        match offset {
            0x38 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x80 => queue.set_desc_table_address(Some(value), None),
            0x84 => queue.set_desc_table_address(None, Some(value)),
            0x90 => queue.set_avail_ring_address(Some(value), None),
            0x94 => queue.set_avail_ring_address(None, Some(value)),
            0xa0 => queue.set_used_ring_address(Some(value), None),
            0xa4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, mem: &GuestMemoryMmap) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Reset;
        }
        let old = self.state.status;
        let mut added = value & status::DRIVERS & !old;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            added &= !status::FEATURES_OK;
        }
        if (old | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.state.status |= added;
        if added & status::DRIVER_OK == 0 {
            return Effect::None;
        }
        self.activate(mem)
    }

    fn offered(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_EVENT_IDX
    }

    fn features_acceptable(&self) -> bool {
        self.state.accepted & !self.offered() == 0 && self.state.accepted & F_VERSION_1 != 0
    }

    fn activate(&mut self, mem: &GuestMemoryMmap) -> Effect {
        let event_idx = self.state.accepted & F_EVENT_IDX != 0;
        for ring in &mut self.rings {
            ring.registers().set_event_idx(event_idx);
        }
        if self
            .rings
            .iter()
            .any(|ring| ring.ready() && !ring.valid(mem))
        {
            self.fail();
            return Effect::None;
        }
        self.device.accept(self.state.accepted);
        Effect::Ready
    }

    fn reset(&mut self) {
        self.state = State {
            generation: self.state.generation,
            ..State::default()
        };
        self.rings = fresh_rings::<D>();
        self.raise = false;
        self.device.reset();
    }
}

fn fresh_rings<D: Device>() -> Vec<Ring> {
    D::QUEUES.iter().map(|&max| Ring::new(max)).collect()
}

#[cfg(test)]
mod tests;
