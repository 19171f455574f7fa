//! Guest physical addresses of what a Linux guest finds at its start, ports, and interrupts.
//!
//! ```text
//! 0x500 GDT | 0x7000 zero page or PVH tables | 0x9000 page tables | 0x20000 command line | 0xe0000 ACPI tables | 0x100000 ...
//! ```

/// Global descriptor table of the start.
pub const GDT: u64 = 0x500;
/// The zero page (`boot_params`), or PVH start info, modules and memory map.
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables that map the first 4 GiB one to one: six pages.
pub const PAGE_TABLES: u64 = 0x9000;
/// First vCPU's stack at its start, growing down.
pub const STACK: u64 = 0x1_fff0;
/// The kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// End of the first piece of RAM.
pub const LOW_END: u64 = 0x9_fc00;
/// ACPI tables, the RSDP first: where kernels search for it by themselves.
pub const ACPI: u64 = 0xe_0000;
/// End of that area, and start of RAM proper.
pub const HIGH_START: u64 = 0x10_0000;

/// Where a PC goes on after a reset, f000:fff0 in real mode. Kernels jump there when they know no better way to reset.
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// A guest that writes [`BOOT_TIMER_VALUE`] (one byte) here reports that it has come up (`--boot-timer`).
pub const BOOT_TIMER: u64 = 0xcfff_f000;
/// What to write there.
pub const BOOT_TIMER_VALUE: u8 = 123;

/// First port and interrupt of the serial line.
pub const COM1: u16 = 0x3f8;
/// Global system interrupt of the serial line.
pub const COM1_GSI: u32 = 4;
/// Global system interrupt of the power button.
pub const BUTTON_GSI: u32 = 3;
/// ACPI's sleep control register; the status register follows it.
pub const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's reset register.
pub const RESET: u16 = 0x604;
/// What to write there.
pub const RESET_VALUE: u8 = 1;
/// QEMU's pvpanic port, by which a kernel reports its panic.
pub const PANIC: u16 = 0x505;
/// Keyboard controller: status and commands.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Reset control register of PC chip sets.
pub const RESET_CONTROL: u16 = 0xcf9;

/// Number of interrupt pins that virtio devices can have.
pub const MAX_DEVICES: usize = 24 - unik_abi::layout::VIRTIO_GSI_BASE as usize;
