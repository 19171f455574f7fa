//! The balloon in its place. It answers at once, on the vCPU's thread: giving memory back does not block, and the guest waits anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unik_devices::balloon::{Balloon, Host, State};
use unik_devices::virtio::mmio::Effect;
use unik_host::memory;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Machine;
use super::slot::{Slot, Window};

/// How long a guest may take to tell its statistics.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often we look whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Gives memory back to the host's kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostMemory;

impl Host for HostMemory {
    fn take(&mut self, mem: &GuestMemoryMmap, start: GuestAddress, len: u64) {
        memory::give_back(mem, start.0, len);
    }
}

/// The device and its place.
pub struct BalloonWindow(Slot<Balloon<HostMemory>>);

impl Window for BalloonWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Effect::Doorbell(_) | Effect::Ready = self.0.write(offset, data) {
            while self.0.with(|device, mem| device.serve(mem)) {}
        }
    }
}

impl BalloonWindow {
    /// Asks the guest to do without this many bytes.
    pub fn set_target(&self, bytes: u64) {
        self.0.with(|device, _| device.set_target(bytes));
    }

    /// How the balloon stands, with fresh statistics if the guest tells them soon.
    pub fn state(&self) -> State {
        let now = || self.0.with(|device, _| device.device().state().clone());
        let before = now();
        if !self.0.with(|device, mem| device.ask_statistics(mem)) {
            return before;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            std::thread::sleep(LOOK);
            let state = now();
            if state.updates() != before.updates() || Instant::now() >= end {
                return state;
            }
        }
    }
}

/// Attaches a balloon to `machine`.
pub fn attach(machine: &mut Machine) -> Arc<BalloonWindow> {
    let place = machine.next_place();
    let device = Balloon::new(HostMemory);
    let slot = Slot::new(device, machine.ram.view().clone(), place.line);
    let window = Arc::new(BalloonWindow(slot));
    machine.attach(window.clone());
    window
}
