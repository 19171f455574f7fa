//! PVH start of day: the note that names the 32-bit entry point and what EBX points to there.
//!
//! Source: Xen `public/elfnote.h` (XEN_ELFNOTE_PHYS32_ENTRY) and `public/arch-x86/hvm/start_info.h`.

/// Note type XEN_ELFNOTE_PHYS32_ENTRY; owner "Xen", description: the entry address as 8 bytes, little endian
/// (QEMU reads 8).
pub const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// `hvm_start_info.magic`.
pub const START_MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StartInfo {
    /// [`START_MAGIC`].
    pub magic: u32,
    /// 1 when the memory map fields are there.
    pub version: u32,
    /// SIF_xxx flags; 0.
    pub flags: u32,
    /// Number of modules.
    pub nr_modules: u32,
    /// Physical address of an array of [`Module`].
    pub modlist_paddr: u64,
    /// Physical address of the NUL-terminated command line.
    pub cmdline_paddr: u64,
    /// Physical address of the RSDP, or 0.
    pub rsdp_paddr: u64,
    /// Physical address of an array of [`MemmapEntry`].
    pub memmap_paddr: u64,
    /// Number of entries in it.
    pub memmap_entries: u32,
    /// 0.
    pub reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Module {
    /// Physical address of the module.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
    /// Physical address of its command line, or 0.
    pub cmdline_paddr: u64,
    /// 0.
    pub reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MemmapEntry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// E820 type: 1 = RAM, 2 = reserved.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// E820 type of usable memory.
pub const E820_RAM: u32 = 1;
