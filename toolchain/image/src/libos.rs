//! Reads the library OS's ELF file: what the linker expects of it is written in `unik_abi::image`.

use std::collections::HashMap;
use std::ops::Range;

use object::read::elf::ProgramHeader;
use object::{LittleEndian as LE, ReadRef, elf};
use unik_abi::image::ImageInfo;
use unik_abi::{PAGE_SIZE, layout};

use crate::program::{ElfError, Symbol, header, sections};

/// Why a file is not a library OS. Users see this only when a tool was built wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the numbers in the sentences")]
pub enum LibOsError {
    /// Not a sound ELF file.
    #[error("{0}")]
    Elf(#[from] ElfError),
    /// A symbol of the contract is missing.
    #[error("the symbol {0} is missing: keep the symbol table and build it with its linker script")]
    Symbol(&'static str),
    /// A segment is not where the contract wants it.
    #[error(
        "its segment at {vaddr:#x} is not above {lowest:#x} in whole pages of its own: build it with its linker script"
    )]
    Place { vaddr: u64, lowest: u64 },
    /// A symbol points outside the segments.
    #[error("the symbol {0} lies outside its segments: build it with its linker script")]
    Outside(&'static str),
}

/// A segment of the library OS.
#[derive(Clone, Copy, Debug)]
pub struct LibOsSegment<'a> {
    /// Distance from `LIBOS_VADDR`, which is also the file offset in the image.
    pub offset: u64,
    /// Bytes from the file.
    pub data: &'a [u8],
    /// Bytes in memory.
    pub mem_len: u64,
    /// `PF_*`.
    pub flags: u32,
}

impl LibOsSegment<'_> {
    /// The whole pages that it lies in.
    pub fn pages(&self) -> Range<u64> {
        self.offset & !(PAGE_SIZE - 1)..(self.offset + self.mem_len).next_multiple_of(PAGE_SIZE)
    }
}

/// A checked library OS. All places are distances from `LIBOS_VADDR`.
#[derive(Clone, Debug)]
pub struct LibOs<'a> {
    /// Segments with memory, in address order.
    pub segments: Vec<LibOsSegment<'a>>,
    /// 32-bit entry point.
    pub entry: u64,
    /// Where the [`ImageInfo`] goes.
    pub info: u64,
    /// Supervisor pages: ring-0 code and data.
    pub nucleus: [Range<u64>; 2],
    /// All symbols, with virtual addresses.
    pub symbols: Vec<Symbol<'a>>,
}

impl<'a> LibOs<'a> {
    /// Reads and checks `bytes`.
    ///
    /// # Errors
    /// [`LibOsError`] when it is no library OS of this contract.
    pub fn read(bytes: &'a [u8]) -> Result<Self, LibOsError> {
        let header = header::check(bytes)?;
        let phdrs = header::program_headers(header, bytes)?;
        let symbols = sections::symbols(sections::table(header, bytes)?, bytes)?;
        let places: HashMap<&[u8], u64> = symbols.iter().map(|s| (s.name, s.vaddr)).collect();
        let place = |name: &'static str| {
            let vaddr = places
                .get(name.as_bytes())
                .ok_or(LibOsError::Symbol(name))?;
            vaddr
                .checked_sub(layout::LIBOS_VADDR)
                .ok_or(LibOsError::Outside(name))
        };
        let libos = Self {
            segments: segments(phdrs, bytes)?,
            entry: place("pvh_entry")?,
            info: place("UNIK_IMAGE_INFO")?,
            nucleus: [
                place("__nucleus_start")?..place("__nucleus_end")?,
                place("__nucleus_data_start")?..place("__nucleus_data_end")?,
            ],
            symbols,
        };
        let holds = |range: Range<u64>| {
            libos
                .segments
                .iter()
                .any(|s| s.offset <= range.start && range.end <= s.offset + s.mem_len)
        };
        if !holds(libos.entry..libos.entry.saturating_add(1)) {
            return Err(LibOsError::Outside("pvh_entry"));
        }
        if !holds(libos.info..libos.info.saturating_add(size_of::<ImageInfo>() as u64)) {
            return Err(LibOsError::Outside("UNIK_IMAGE_INFO"));
        }
        Ok(libos)
    }

    /// Bytes from `LIBOS_VADDR` to the end of the last page.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(PAGE_SIZE, |s| s.pages().end)
    }

    /// Whether the page at this distance belongs to ring 0.
    pub fn supervisor(&self, page: u64) -> bool {
        self.nucleus.iter().any(|r| r.contains(&page))
    }
}

fn segments<'a>(
    phdrs: &[elf::ProgramHeader64<LE>],
    bytes: &'a [u8],
) -> Result<Vec<LibOsSegment<'a>>, LibOsError> {
    let loads = phdrs
        .iter()
        .filter(|p| p.p_type(LE) == elf::PT_LOAD && p.p_memsz(LE) > 0);
    let mut segments = loads
        .map(|p| segment(p, bytes))
        .collect::<Result<Vec<_>, _>>()?;
    segments.sort_by_key(|s| s.offset);
    let mut free = PAGE_SIZE;
    for segment in &segments {
        if segment.pages().start < free {
            let (vaddr, lowest) = (
                layout::LIBOS_VADDR + segment.offset,
                layout::LIBOS_VADDR + free,
            );
            return Err(LibOsError::Place { vaddr, lowest });
        }
        free = segment.pages().end;
    }
    if segments.is_empty() {
        Err(ElfError::NoSegments.into())
    } else {
        Ok(segments)
    }
}

fn segment<'a>(
    p: &elf::ProgramHeader64<LE>,
    bytes: &'a [u8],
) -> Result<LibOsSegment<'a>, LibOsError> {
    const MOST: u64 = 64 << 20;
    let (vaddr, mem_len) = (p.p_vaddr(LE), p.p_memsz(LE));
    let misplaced = LibOsError::Place {
        vaddr,
        lowest: layout::LIBOS_VADDR + PAGE_SIZE,
    };
    let offset = vaddr
        .checked_sub(layout::LIBOS_VADDR)
        .filter(|&o| o < MOST && mem_len < MOST)
        .ok_or(misplaced)?;
    if p.p_filesz(LE) > mem_len {
        return Err(ElfError::Segment { vaddr }.into());
    }
    let at = p.p_offset(LE);
    let data = bytes
        .read_bytes_at(at, p.p_filesz(LE))
        .map_err(|()| ElfError::Truncated {
            what: "a segment",
            at,
            len: bytes.len(),
        })?;
    Ok(LibOsSegment {
        offset,
        data,
        mem_len,
        flags: p.p_flags(LE).0,
    })
}
