//! Reads an image back: what is in it, in what sizes. Made for any bytes at all: it never panics and allocates no more than
//! a small multiple of the file.

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian as LE, ReadRef};
use serde::{Deserialize, Serialize};
use unik_abi::image::{self, IMAGE_MAGIC, ImageInfo, NOTE_OWNER, NOTE_VERSION};
use unik_abi::layout::IMAGE_PADDR;
use unik_abi::pvh::XEN_ELFNOTE_PHYS32_ENTRY;
use unik_abi::{ABI_VERSION, PAGE_SIZE};

use crate::cpio::{self, ListedFile};
use crate::link::Sizes;
use crate::program::{ElfError, header};
use crate::{info, manifest, notes};

/// Why bytes are no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the numbers in the sentences")]
pub enum InspectError {
    /// Not even ELF.
    #[error("not a Unik image: {0}")]
    Elf(#[from] ElfError),
    /// ELF without the Unik note.
    #[error(
        "not a Unik image but an ordinary ELF file: make an image of it with `cargo unik pack`"
    )]
    NoNote,
    /// An image of another version.
    #[error(
        "the image follows version {image} of the Unik contract, this tool version {tool}: rebuild it, or use the tool of the same release"
    )]
    Version { image: u32, tool: u32 },
    /// Parts contradict each other.
    #[error("the image is damaged: {0}; build it again")]
    Damaged(&'static str),
}

/// Everything an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Version of the contract.
    pub abi_version: u32,
    /// Physical address of the 32-bit entry point.
    pub entry_paddr: u64,
    /// First free physical address after the image.
    pub phys_end: u64,
    /// Bytes by part.
    pub sizes: Sizes,
    /// The program.
    pub program: ProgramInfo,
    /// `syscall` sites; `None` when the image was made without binding.
    pub syscall: Option<SiteCounts>,
    /// `cpuid` sites.
    pub cpuid: Option<SiteCounts>,
    /// The packed files.
    pub files: Vec<ListedFile>,
    /// All manifest records.
    pub manifest: Vec<(String, String)>,
    /// Whether functions can be named in a crash.
    pub symbols: bool,
}

/// The program in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramInfo {
    /// Whether it is loaded at a random address.
    pub pie: bool,
    /// Entry point in the program file.
    pub entry: u64,
    /// Whether it asks for an executable stack (which it does not get).
    pub exec_stack: bool,
    /// Its pieces in address order, trampolines last.
    pub segments: Vec<SegmentInfo>,
}

/// A piece of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// First address, relative to the load base when position independent.
    pub vaddr: u64,
    /// Bytes in the image.
    pub image_len: u64,
    /// Bytes in memory.
    pub mem_len: u64,
    /// `r`, `w`, `x` or `-` in their places.
    pub permissions: String,
    /// Made by the linker.
    pub trampolines: bool,
}

/// Bound and unbound sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCounts {
    /// Rewritten.
    pub bound: u64,
    /// Left to the processor's path.
    pub unbound: u64,
}

impl Inspection {
    /// The value of the first manifest record `key`.
    pub fn record(&self, key: &str) -> Option<&str> {
        record(&self.manifest, key)
    }
}

/// The manifest of an image as it stands in its note, in the format of `unik_abi::config`.
///
/// # Errors
/// [`InspectError`] when `image` is not an image of this version.
pub fn manifest_bytes(image: &[u8]) -> Result<&[u8], InspectError> {
    Ok(Found::new(image)?.manifest)
}

/// Reads everything that an image says about itself.
///
/// # Errors
/// [`InspectError`] when `image` is not a sound image of this version.
pub fn inspect(image: &[u8]) -> Result<Inspection, InspectError> {
    let found = Found::new(image)?;
    let records = manifest::read(found.manifest);
    let info = image_info(image, &records)?;
    let segments = segments(&info)?;
    let files = blob(
        image,
        info.files_paddr,
        info.files_len,
        "its packed files lie outside it",
    )?;
    let files = cpio::list(files).ok_or(InspectError::Damaged(
        "its packed files are no cpio archive",
    ))?;
    let counts = |bound, unbound| {
        let number = |key| record(&records, key)?.parse().ok();
        Some(SiteCounts {
            bound: number(bound)?,
            unbound: number(unbound)?,
        })
    };
    Ok(Inspection {
        abi_version: info.abi_version,
        entry_paddr: found.entry,
        phys_end: info.phys_end,
        sizes: sizes(image, &info, &segments, found.loaded),
        program: ProgramInfo {
            pie: info.pie != 0,
            entry: info.entry,
            exec_stack: info.exec_stack != 0,
            segments,
        },
        syscall: counts(manifest::BOUND_SYSCALL, manifest::UNBOUND_SYSCALL),
        cpuid: counts(manifest::BOUND_CPUID, manifest::UNBOUND_CPUID),
        files,
        symbols: found.symbols,
        manifest: records,
    })
}

/// What headers and notes say.
struct Found<'a> {
    manifest: &'a [u8],
    entry: u64,
    /// End of the last loaded part in the file.
    loaded: u64,
    symbols: bool,
}

impl<'a> Found<'a> {
    fn new(image: &'a [u8]) -> Result<Self, InspectError> {
        let header = header::check(image)?;
        let phdrs = header::program_headers(header, image)?;
        let bytes = |p: &elf::ProgramHeader64<LE>| {
            image
                .read_bytes_at(p.p_offset(LE), p.p_filesz(LE))
                .unwrap_or_default()
        };
        let note = |owner: &[u8], kind| {
            phdrs
                .iter()
                .filter(|p| p.p_type(LE) == elf::PT_NOTE)
                .find_map(|p| notes::find(bytes(p), owner, kind))
        };
        let unik = note(NOTE_OWNER, NOTE_VERSION).ok_or(InspectError::NoNote)?;
        let (version, manifest) = unik
            .split_first_chunk()
            .ok_or(InspectError::Damaged("its version note is empty"))?;
        let version = u32::from_le_bytes(*version);
        if version != ABI_VERSION {
            return Err(InspectError::Version {
                image: version,
                tool: ABI_VERSION,
            });
        }
        let entry = note(notes::XEN_OWNER, XEN_ELFNOTE_PHYS32_ENTRY).and_then(|d| d.first_chunk());
        let entry =
            u64::from_le_bytes(*entry.ok_or(InspectError::Damaged("it has no PVH entry note"))?);
        let loads = phdrs.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD);
        let loaded = loads
            .map(|p| p.p_offset(LE).saturating_add(p.p_filesz(LE)))
            .max()
            .unwrap_or(0);
        Ok(Self {
            manifest,
            entry,
            loaded,
            symbols: header.e_shnum(LE) > 0,
        })
    }
}

fn record<'a>(records: &'a [(String, String)], key: &str) -> Option<&'a str> {
    records.iter().find(|r| r.0 == key).map(|r| r.1.as_str())
}

fn image_info(image: &[u8], records: &[(String, String)]) -> Result<ImageInfo, InspectError> {
    let at = record(records, manifest::INFO).and_then(|v| v.parse::<usize>().ok());
    let info = at
        .and_then(|at| info::from_bytes(image.get(at..)?))
        .filter(|i| i.magic == IMAGE_MAGIC);
    info.ok_or(InspectError::Damaged("its image information is missing"))
}

/// The bytes at a physical address.
fn blob<'a>(
    image: &'a [u8],
    paddr: u64,
    len: u64,
    what: &'static str,
) -> Result<&'a [u8], InspectError> {
    if len == 0 {
        return Ok(&[]);
    }
    let at = paddr
        .checked_sub(IMAGE_PADDR)
        .ok_or(InspectError::Damaged(what))?;
    image
        .read_bytes_at(at, len)
        .map_err(|()| InspectError::Damaged(what))
}

fn segments(info: &ImageInfo) -> Result<Vec<SegmentInfo>, InspectError> {
    let count = usize::try_from(info.segment_count).unwrap_or(usize::MAX);
    let segments = info
        .segments
        .get(..count)
        .ok_or(InspectError::Damaged("it has too many segments"))?;
    let letter = |flags: u32, bit, letter| if flags & bit != 0 { letter } else { '-' };
    Ok(segments
        .iter()
        .map(|s| SegmentInfo {
            vaddr: s.vaddr,
            image_len: s.image_len,
            mem_len: s.mem_len,
            permissions: [
                letter(s.flags, image::SEG_R, 'r'),
                letter(s.flags, image::SEG_W, 'w'),
                letter(s.flags, image::SEG_X, 'x'),
            ]
            .iter()
            .collect(),
            trampolines: s.flags & image::SEG_TRAMPOLINES != 0,
        })
        .collect())
}

fn sizes(image: &[u8], info: &ImageInfo, segments: &[SegmentInfo], loaded: u64) -> Sizes {
    let total = image.len() as u64;
    let sum = |trampolines| {
        segments
            .iter()
            .filter(|s| s.trampolines == trampolines)
            .fold(0u64, |sum, s| sum.saturating_add(s.image_len))
    };
    let first = info
        .segments
        .iter()
        .map(|s| s.paddr)
        .filter(|&p| p != 0)
        .min()
        .unwrap_or(IMAGE_PADDR);
    Sizes {
        total,
        libos: first.saturating_sub(IMAGE_PADDR + PAGE_SIZE),
        program: sum(false),
        trampolines: sum(true),
        vdso: info.vdso_len,
        manifest: info.manifest_len,
        files: pages(info.index_len).saturating_add(pages(info.files_len)),
        page_tables: (IMAGE_PADDR.saturating_add(loaded)).saturating_sub(info.boot_pml4_paddr),
        symbols: total.saturating_sub(loaded),
    }
}

/// Bytes of the whole pages that `len` bytes take.
fn pages(len: u64) -> u64 {
    len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(len)
}
