//! The image linker: a static Linux program in, a bootable image out; and what an image says about itself.
//!
//! Bytes in, bytes out: no files, no processes. One way through the modules:
//! [`program`] reads the program, [`bind`] rewrites its system-call sites, [`libos`] reads the library OS, [`mod@link`] lays everything
//! out together with the [`vdso`], the packed files ([`cpio`]), the [`manifest`] in the [`notes`] and the first page tables
//! ([`paging`]). [`mod@inspect`] reads an image back, [`calls`] says which system calls a program holds. The contract with library OS and monitor is `unik_abi`.
#![forbid(unsafe_code)]

pub mod bind;
pub mod calls;
pub mod cpio;
mod elf_out;
mod files_index;
mod info;
pub mod inspect;
pub mod libos;
pub mod link;
pub mod manifest;
pub mod notes;
pub mod paging;
pub mod program;
mod symbols;
pub mod vdso;

pub use bind::{BindReport, Counts, Reason, SiteKind, Unbound};
pub use cpio::{PackError, PackedFile, PackedKind};
pub use inspect::{InspectError, Inspection, inspect, manifest_bytes};
pub use link::{LinkError, LinkOptions, LinkReport, Linked, Sizes, Symbols, link};
pub use program::ElfError;

/// Everything that reads foreign bytes, on `bytes`, results thrown away: for fuzzing. Neither panics nor allocates more than a
/// small multiple of the input, whatever the bytes are.
pub fn read_anything(bytes: &[u8]) {
    let _ = inspect(bytes);
    let _ = cpio::list(bytes);
    let _ = libos::LibOs::read(bytes);
    if let Ok(program) = program::Program::read(bytes) {
        let _ = bind::bind(&program, program.end());
        let _ = calls::calls(&program);
    }
}
