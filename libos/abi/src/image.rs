//! What the image linker tells the others: the Unik note (for monitors and tools) and [`ImageInfo`] (for the library OS).
//!
//! # What the linker expects of the library OS's ELF
//! Static ET_EXEC linked at `layout::LIBOS_VADDR`, nothing in its first page, with these symbols:
//! - `pvh_entry`: 32-bit entry point, run at its physical address with paging off;
//! - `UNIK_IMAGE_INFO`: a zeroed [`ImageInfo`] in a data section, patched by the linker;
//! - `__nucleus_start`, `__nucleus_end`: page-aligned range of ring-0 code (mapped supervisor, read + execute);
//! - `__nucleus_data_start`, `__nucleus_data_end`: page-aligned range of ring-0 data (supervisor, read + write).
//!
//! # Page tables in the image
//! The linker writes the first page tables as image bytes: `pml4_paddr` maps the library OS (4 KiB pages, segment permissions, U/S=1
//! except the nucleus ranges) and the first 4 GiB of the physmap (one page directory pointer table with four page directories of 2 MiB pages, writable,
//! U/S=1, no-execute set in the PML4 entry; not 1 GiB pages: a KVM without two-dimensional paging does not offer them; the library OS
//! adds the rest). `boot_pml4_paddr` is the same plus entry 0 = that same physmap table, executable: an identity map for
//! the way into long mode. Every entry has accessed and dirty set where the level allows it.

/// Owner of the Unik note (with its NUL: 5 bytes).
pub const NOTE_OWNER: &[u8; 5] = b"Unik\0";

/// Note type of the version note. Description: [`crate::ABI_VERSION`] as a 4-byte little-endian number, then the manifest
/// in the format of [`crate::config`].
pub const NOTE_VERSION: u32 = 1;

/// Value of [`ImageInfo::magic`].
pub const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"UNIKIMG1");

/// The most segments a program can have, trampolines included.
pub const MAX_SEGMENTS: usize = 16;

/// Segment permission bits, the same as ELF's `PF_X`, `PF_W`, `PF_R`.
pub const SEG_X: u32 = 1;
/// Writable.
pub const SEG_W: u32 = 2;
/// Readable.
pub const SEG_R: u32 = 4;
/// The linker's own trampolines, not part of the program file.
pub const SEG_TRAMPOLINES: u32 = 0x100;

/// A page-aligned piece of the program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Page-aligned virtual address; relative to the load base when the program is position independent.
    pub vaddr: u64,
    /// Physical address of the first page (page-aligned, inside the image).
    pub paddr: u64,
    /// Bytes that come from the image, a multiple of the page size (the tail of the last page is zero).
    pub image_len: u64,
    /// Bytes in memory, a multiple of the page size, at least `image_len`; the rest is zero memory.
    pub mem_len: u64,
    /// `SEG_*`.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

/// Filled by the linker at the symbol `UNIK_IMAGE_INFO`. All addresses of blobs are physical.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageInfo {
    /// [`IMAGE_MAGIC`] once filled.
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// 1 when the program is position independent.
    pub pie: u32,
    /// First physical address after the image: free memory from here on. Page-aligned.
    pub phys_end: u64,
    /// Page tables for running (see the module text).
    pub pml4_paddr: u64,
    /// Page tables for the way into long mode.
    pub boot_pml4_paddr: u64,
    /// Program entry point (relative when `pie`).
    pub entry: u64,
    /// Where the program's own program headers are in memory (AT_PHDR; relative when `pie`).
    pub phdr_vaddr: u64,
    /// AT_PHENT.
    pub phent: u32,
    /// AT_PHNUM.
    pub phnum: u32,
    /// End of the program's highest segment, trampolines included, page-aligned (relative when `pie`): the heap (brk) starts after it.
    pub program_end: u64,
    /// The vDSO: a page-aligned ELF shared object, to be mapped read + execute.
    pub vdso_paddr: u64,
    /// Its length in bytes.
    pub vdso_len: u64,
    /// Packed files: a cpio archive in the "newc" format (the format of an initramfs), file data page-aligned by NUL padding of the names.
    pub files_paddr: u64,
    /// Its length in bytes; 0 when nothing is packed.
    pub files_len: u64,
    /// The index of the packed files ([`crate::files`]).
    pub index_paddr: u64,
    /// Its length in bytes; 0 when nothing is packed.
    pub index_len: u64,
    /// The manifest: default arguments, environment, ... in the format of [`crate::config`].
    pub manifest_paddr: u64,
    /// Its length in bytes.
    pub manifest_len: u64,
    /// Number of valid entries in `segments`.
    pub segment_count: u64,
    /// The program, in address order.
    pub segments: [Segment; MAX_SEGMENTS],
    /// Required alignment of the load base when `pie` (a power of two, at least a page).
    pub align: u64,
    /// PT_GNU_STACK asked for an executable stack: 1 (the library OS refuses to give one; for the record).
    pub exec_stack: u64,
}
