//! The entropy device in its place. It answers at once, on the vCPU's thread: nothing in it can block.

use unik_devices::rng::{Entropy, Rng};
use unik_devices::virtio::mmio::Effect;

use super::slot::{Slot, Window};

/// The host's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        unik_host::entropy::fill(bytes)
    }
}

/// The device and its place.
pub struct RngWindow(pub Slot<Rng<HostEntropy>>);

impl Window for RngWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Effect::Doorbell(_) | Effect::Ready = self.0.write(offset, data) {
            while self.0.with(|device, mem| device.serve(mem)) {}
        }
    }
}
