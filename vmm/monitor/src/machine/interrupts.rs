//! From device lines through the I/O APIC to local APICs.

use std::sync::{Arc, Mutex};

use unik_devices::ioapic::{Effect, IoApic, Message};
use unik_host::kvm::{Msi, Vm};

use super::lock;

/// The I/O APIC of a machine and the way to its vCPUs.
pub struct Interrupts {
    vm: Arc<Vm>,
    chip: Mutex<IoApic>,
}

impl Interrupts {
    /// A chip with all pins masked.
    pub fn new(vm: Arc<Vm>) -> Self {
        Self {
            vm,
            chip: Mutex::new(IoApic::default()),
        }
    }

    /// The guest reads the chip's window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.chip).read(offset, data);
    }

    /// The guest writes to the chip's window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut chip = lock(&self.chip);
        let Effect {
            send,
            routes_changed,
        } = chip.write(offset, data);
        if routes_changed {
            let routes: Vec<(u32, Msi)> = chip
                .level_routes()
                .into_iter()
                .map(|(pin, message)| (pin, msi(message)))
                .collect();
            // Without routes level-triggered interrupts come once; the guest's loss, and nothing to stop for.
            let _ = self.vm.set_routes(&routes);
        }
        drop(chip);
        self.send(send);
    }

    /// A vCPU finished a level-triggered interrupt.
    pub fn end_of_interrupt(&self, vector: u8) {
        let again = lock(&self.chip).end_of_interrupt(vector);
        again
            .into_iter()
            .for_each(|message| self.send(Some(message)));
    }

    fn send(&self, message: Option<Message>) {
        if let Some(message) = message {
            // No APIC takes a message of a guest that routed it to nobody.
            let _ = self.vm.signal(msi(message));
        }
    }
}

fn msi(message: Message) -> Msi {
    Msi {
        address: message.address,
        data: message.data,
    }
}

/// One device's wire to the chip.
#[derive(Clone)]
pub struct Line {
    interrupts: Arc<Interrupts>,
    pin: usize,
}

impl Line {
    /// The wire to `pin`.
    pub fn new(interrupts: Arc<Interrupts>, pin: u32) -> Self {
        Self {
            interrupts,
            pin: pin as usize,
        }
    }

    /// Raises the line.
    pub fn raise(&self) {
        let message = lock(&self.interrupts.chip).raise(self.pin);
        self.interrupts.send(message);
    }

    /// Lowers the line.
    pub fn lower(&self) {
        lock(&self.interrupts.chip).lower(self.pin);
    }
}
