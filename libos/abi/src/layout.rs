//! Guest addresses fixed by contract.
//!
//! Physical memory: the low megabyte holds what the monitor hands over and the start page of further vCPUs;
//! the image file lies at [`IMAGE_PADDR`] byte for byte (physical address = `IMAGE_PADDR` + file offset), so a monitor can
//! map the file there in one `mmap`. Everything from `ImageInfo::phys_end` up to the end of RAM belongs to the library OS.
//!
//! Virtual memory (one address space, lower canonical half): the program below [`USER_TOP`], then
//! all physical memory at [`PHYSMAP_VADDR`] and the library OS at [`LIBOS_VADDR`].

/// Where the control page (`control::ControlPage`) lies. Zero at start.
pub const CONTROL_PAGE_PADDR: u64 = 0x7000;

/// The page that further vCPUs start from in real mode (SIPI vector 0x08). Written by the library OS.
pub const AP_START_PADDR: u64 = 0x8000;

/// First byte of the area where Unik's own monitor puts start_info, memory map, command line and modules.
pub const BOOT_AREA_PADDR: u64 = 0x1_0000;

/// End of that area.
pub const BOOT_AREA_END: u64 = 0x9_f000;

/// Physical address of file offset 0 of the image.
pub const IMAGE_PADDR: u64 = 0x20_0000;

/// Virtual address of the library OS: `LIBOS_VADDR + x` is backed by `IMAGE_PADDR + x`.
/// The first page holds the image's ELF header and is not mapped.
pub const LIBOS_VADDR: u64 = 0x7e00_0000_0000;

/// Virtual address of physical address 0: all of physical memory, readable and writable, never executable.
pub const PHYSMAP_VADDR: u64 = 0x7d00_0000_0000;

/// Virtual area of the library OS's thread stacks (with guard pages).
pub const KSTACK_VADDR: u64 = 0x7e80_0000_0000;

/// End of the addresses a program can use (the `TASK_SIZE` of this system).
pub const USER_TOP: u64 = 0x7c00_0000_0000;

/// Guest RAM ends here at the latest below 4 GiB; the rest continues at 4 GiB.
pub const MMIO_HOLE_START: u64 = 0xc000_0000;

/// Where RAM continues.
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;

/// First virtio-mmio register window of Unik's own monitor; window `i` is at `+ i * VIRTIO_MMIO_STRIDE`.
/// Windows are announced on the command line as `virtio_mmio.device=4K@ADDR:GSI`.
pub const VIRTIO_MMIO_PADDR: u64 = 0xd000_0000;

/// Distance between two windows, bytes.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;

/// Global system interrupt of window 0; window `i` has `+ i`.
pub const VIRTIO_GSI_BASE: u32 = 5;

/// The I/O APIC (82093AA), the same place as on a PC.
pub const IOAPIC_PADDR: u64 = 0xfec0_0000;
