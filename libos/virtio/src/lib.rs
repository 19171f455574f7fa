//! Virtio guest drivers for a machine on which every register access is dear.
//!
//! The drivers know no kernel. They stand on two traits of the `virtio-drivers` crate, [`Hal`] (DMA memory and address
//! translation) and [`Transport`] (registers of one device), and on [`bus::RegisterBus`], by which a kernel runs a whole batch of
//! register accesses in one go.
//!
//! - [`bus`]: register operations and the trait that runs them.
//! - [`mmio`]: [`mmio::BatchedMmio`], a virtio-mmio (version 2) transport that queues writes and reads ahead.
//! - [`dma`], [`queue`]: memory shared with the device; the split virtqueue with exact notification suppression.
//! - [`console`], [`net`], [`rng`]: the drivers.
//!
//! Why not `virtio-drivers`' own `VirtQueue`: with VIRTIO_F_EVENT_IDX its `should_notify` compares ring positions without wrap-around
//! and without a barrier between publishing and looking (a kick can be lost), and it always asks for an interrupt on the next used buffer.
//! Here transmit queues never interrupt and kicks are the dearest thing of all, so both must be exact.
#![no_std]

extern crate alloc;

pub mod bus;
pub mod console;
pub mod dma;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
mod setup;

pub use setup::DriverError;
pub use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
pub use virtio_drivers::{BufferDirection, Hal, PhysAddr};
