//! The contract between a Unik image, the library OS inside it and the monitor that boots it.
//!
//! Three parties obey this crate and see nothing else of each other: the image linker (`toolchain/image`)
//! lays out the file, the library OS (`libos/kernel`) runs in it, the monitor (`vmm/monitor`) maps and boots it.
//! No dependencies, no code that allocates, nothing that depends on a host.
//!
//! - [`layout`]: guest physical and virtual addresses that everyone agrees on.
//! - [`image`]: the Unik ELF note and the [`image::ImageInfo`] block that the linker fills for the library OS.
//! - [`control`]: ports, exit reports and the control page shared by guest and monitor.
//! - [`files`]: the index of the packed files.
//! - [`config`]: the run configuration (arguments, environment, ...) handed over as the first PVH module.
//! - [`pvh`]: the PVH start-of-day structures (Xen `public/arch-x86/hvm/start_info.h`).
//! - [`gs`]: the slots of the per-vCPU block that rewritten program code jumps through.
//! - [`syscalls`]: the one table of system calls.
#![no_std]
#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod files;
pub mod gs;
pub mod image;
pub mod layout;
pub mod pvh;
pub mod syscalls;

/// Version of everything in this crate. An image carries it in its Unik note; a monitor refuses another.
pub const ABI_VERSION: u32 = 2;

/// Size of a page in bytes, and the alignment of every segment of an image.
pub const PAGE_SIZE: u64 = 4096;

/// The most vCPUs that the library OS can drive.
pub const MAX_VCPUS: usize = 16;
