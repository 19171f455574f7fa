//! What all drivers do first: reset, negotiate features, check the answer (virtio 1.2, section 3.1.1).

use thiserror::Error;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

/// VIRTIO_F_EVENT_IDX.
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// Why a device cannot be driven.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DriverError {
    /// No DMA memory.
    #[error("no {pages} contiguous pages left for a virtio queue: give the machine more memory")]
    NoMemory {
        /// Pages wanted.
        pages: usize,
    },
    /// Not a virtio-mmio window.
    #[error(
        "register window {paddr:#x} holds magic value {magic:#010x} instead of 0x74726976: no virtio device is there"
    )]
    NotVirtio {
        /// Physical address of the window.
        paddr: u64,
        /// What its first register reads.
        magic: u32,
    },
    /// Version 1 of virtio-mmio.
    #[error(
        "virtio-mmio version {0} is too old, version 2 is needed (QEMU: -global virtio-mmio.force-legacy=false)"
    )]
    Legacy(u32),
    /// The window is another device's, or nobody's.
    #[error("found virtio device number {found} where {wanted:?} was announced")]
    WrongDevice {
        /// Number in the window; 0 is an empty one.
        found: u32,
        /// The announced type.
        wanted: DeviceType,
    },
    /// The device does not offer VIRTIO_F_VERSION_1.
    #[error(
        "the device offers features {0:#x} without VIRTIO_F_VERSION_1: it is older than virtio 1.0"
    )]
    NoVersion1(u64),
    /// FEATURES_OK did not stick.
    #[error("the device refuses the features {0:#x} that it offered itself")]
    FeaturesRefused(u64),
    /// The queue is smaller than the driver needs.
    #[error("queue {queue} of the device has {max} entries, {wanted} are needed")]
    QueueTooSmall {
        /// Queue number.
        queue: u16,
        /// What the device can do; 0 when it has no such queue.
        max: u32,
        /// What the driver asked for.
        wanted: u16,
    },
    /// The device returned a buffer that it did not have.
    #[error("the device broke the protocol of queue {0}")]
    Broken(u16),
}

/// Resets the device and negotiates: the result is the set of `wanted` bits that the device offers, VERSION_1 always among them.
pub(crate) fn negotiate<T: Transport>(transport: &mut T, wanted: u64) -> Result<u64, DriverError> {
    let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::empty());
    transport.set_status(found);
    let offered = transport.read_device_features();
    if offered & F_VERSION_1 == 0 {
        transport.set_status(DeviceStatus::FAILED);
        return Err(DriverError::NoVersion1(offered));
    }
    let accepted = offered & (wanted | F_VERSION_1);
    transport.write_driver_features(accepted);
    transport.set_status(found | DeviceStatus::FEATURES_OK);
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        transport.set_status(DeviceStatus::FAILED);
        return Err(DriverError::FeaturesRefused(accepted));
    }
    Ok(accepted)
}

/// Sets DRIVER_OK: the device is alive from here on.
pub(crate) fn finish<T: Transport>(transport: &mut T) {
    transport.finish_init();
}
