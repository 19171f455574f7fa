//! What all virtio devices share: rings ([`ring`]), the register window ([`mmio`]) and the trait of a device.
//!
//! A device never sees a raw guest address: [`ring::Ring::pop`] hands out chains whose every segment lies in guest RAM.
//! A driver that breaks the protocol gets DEVICE_NEEDS_RESET and no service until it resets the device.
//! Source: OASIS Virtual I/O Device specification 1.2.

#[cfg(any(test, feature = "testing"))]
pub mod hostile;
pub mod mmio;
pub mod ring;
#[cfg(test)]
mod storm;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

/// VIRTIO_F_VERSION_1: without it a driver is not served.
pub const F_VERSION_1: u64 = 1 << 32;

/// VIRTIO_F_RING_EVENT_IDX.
pub const F_EVENT_IDX: u64 = 1 << 29;

/// The driver broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What a kind of device says about itself.
pub trait Device {
    /// Device id (specification, section 5).
    const KIND: u32;
    /// Features of this kind of device; the transport adds those that it serves for all.
    const FEATURES: u64;
    /// The largest size of each queue, powers of two.
    const QUEUES: &'static [u16];

    /// Features of this device, where not all of its kind have the same.
    fn features(&self) -> u64 {
        Self::FEATURES
    }

    /// The configuration space.
    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver writes a word at `offset` of the configuration space.
    fn set_config(&mut self, _offset: u64, _data: [u8; 4]) {}

    /// The driver is ready, with these of the features that it was offered.
    fn accept(&mut self, _features: u64) {}

    /// The driver reset the device: forget everything that belongs to requests.
    fn reset(&mut self);
}
