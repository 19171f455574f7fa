//! A virtio device in its place: lock, interrupt line, doorbells.
//!
//! [`Slot`] is what every virtio device needs; [`Window`] is what the bus sees of it. A doorbell ([`Bell`]) is an event that the
//! device's worker waits for. At first the vCPU leaves the guest to ring it; a bell that rings often is handed to KVM, which rings
//! it without leaving, at the price of a machine that takes more than ten milliseconds longer to close (measured; it is why
//! this is not done from the start).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use unik_devices::virtio::Device;
use unik_devices::virtio::mmio::{Effect, Mmio, QUEUE_NOTIFY};
use unik_host::EventFd;
use unik_host::kvm::Vm;
use vm_memory::GuestMemoryMmap;

use super::interrupts::Line;
use super::lock;

/// A range of guest physical addresses that a device answers for.
pub trait Window: Send + Sync {
    /// The guest reads at `offset` from the window's start.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes there.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A device, its line and the guest's memory.
pub struct Slot<D: Device> {
    device: Mutex<Mmio<D>>,
    mem: GuestMemoryMmap,
    line: Line,
}

impl<D: Device> Slot<D> {
    /// Puts a device into place.
    pub fn new(device: D, mem: GuestMemoryMmap, line: Line) -> Self {
        Self {
            device: Mutex::new(Mmio::new(device)),
            mem,
            line,
        }
    }

    /// Works with the device, then passes its interrupt on. The device is locked meanwhile: `work` must not block.
    pub fn with<R>(&self, work: impl FnOnce(&mut Mmio<D>, &GuestMemoryMmap) -> R) -> R {
        let mut device = lock(&self.device);
        let result = work(&mut device, &self.mem);
        let raise = device.take_interrupt();
        drop(device);
        if raise {
            self.line.raise();
        }
        result
    }

    /// The guest reads a register.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.device).read(offset, data);
    }

    /// The guest writes a register.
    pub fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let effect = self.with(|device, mem| device.write(offset, data, mem));
        if matches!(effect, Effect::Acknowledged | Effect::Reset) {
            self.line.lower();
        }
        effect
    }
}

/// From this many rings on the time saved by handing a bell to KVM (some 40 us each where it matters) outweighs the time
/// that closing the machine then takes.
const OFTEN: u32 = 400;

/// One queue's doorbell.
pub struct Bell {
    event: EventFd,
    rings: AtomicU32,
    vm: Arc<Vm>,
    gpa: u64,
    queue: u16,
}

impl Bell {
    /// The bell of `queue` in the window at `window`.
    pub fn new(vm: Arc<Vm>, window: u64, queue: usize) -> std::io::Result<Self> {
        Ok(Self {
            event: unik_host::event()?,
            rings: AtomicU32::new(0),
            vm,
            gpa: window + QUEUE_NOTIFY,
            queue: queue as u16,
        })
    }

    /// Rings: on a vCPU's thread, after the guest wrote to the register.
    pub fn ring(&self) {
        // The counter cannot overflow before somebody reads it; an event that is there is enough.
        let _ = self.event.write(1);
        if self.rings.fetch_add(1, Ordering::Relaxed) == OFTEN {
            // If KVM will not have it, exits go on as before.
            let _ = self
                .vm
                .watch_doorbell(&self.event, self.gpa, self.queue.into());
        }
    }

    /// What to wait for.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Forgets the rings so far and says how many they were.
    pub fn clear(&self) -> u64 {
        self.event.read().unwrap_or(0)
    }
}
