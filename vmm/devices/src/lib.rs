//! Device models as state machines. They know no KVM, no files and no threads.
//!
//! Each device is one folder of the same shape: the model, its plain `State`, its tests. What a device needs from outside
//! comes through small traits or as arguments; what it gives comes back as values. Everything a guest writes is checked once,
//! where it enters.
//!
//! - [`virtio`]: what virtio devices share: rings, the register window.
//! - [`block`]: virtio-blk: requests out, outcomes in.
//! - [`net`]: virtio-net: frames out, frames in.
//! - [`balloon`]: virtio-balloon: memory that the guest does without.
//! - [`console`]: virtio-console, for the standard streams.
//! - [`rng`]: entropy by virtio-rng.
//! - [`vsock`]: byte streams between guest and host by virtio-vsock.
//! - [`ioapic`]: pins to interrupt messages.
//! - [`serial`]: a 16550 that only sends.
//! - [`debug_port`]: early and last words, a byte at a time.
//! - [`exit_port`]: the end of the virtual machine.
#![forbid(unsafe_code)]

pub mod balloon;
pub mod block;
pub mod console;
pub mod debug_port;
pub mod exit_port;
pub mod ioapic;
pub mod net;
pub mod rng;
pub mod serial;
pub mod virtio;
pub mod vsock;
