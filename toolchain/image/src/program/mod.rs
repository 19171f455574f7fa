//! Reads a program file: a static or static-pie x86-64 ELF64 executable for Linux, from anybody.
//!
//! [`Program::read`] checks every number once; what it returns can be used without further checks. Everything else is
//! refused with an [`ElfError`]. Neighbours: [`crate::bind`] rewrites the code of a [`Program`], [`mod@crate::link`] lays it out.
//! Source: System V ABI (generic and AMD64 supplements), Linux `fs/binfmt_elf.c` for what a loader does with it.

mod cuts;
mod error;
pub(crate) mod header;
mod relocations;
pub(crate) mod sections;

use std::ops::Range;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian as LE, ReadRef};
use unik_abi::image::MAX_SEGMENTS;
use unik_abi::{PAGE_SIZE, layout};

pub use error::ElfError;

/// A loadable segment with memory.
#[derive(Clone, Copy, Debug)]
pub struct LoadSegment<'a> {
    /// Virtual address of the first byte; not page-aligned.
    pub vaddr: u64,
    /// Bytes from the file.
    pub data: &'a [u8],
    /// Bytes in memory, at least `data.len()`.
    pub mem_len: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    pub flags: u32,
}

impl LoadSegment<'_> {
    /// Whether its bytes can be executed.
    pub fn executable(&self) -> bool {
        self.flags & elf::PF_X.0 != 0
    }

    /// Page of its first byte.
    pub fn first_page(&self) -> u64 {
        self.vaddr & !(PAGE_SIZE - 1)
    }

    /// End of its last page.
    pub fn page_end(&self) -> u64 {
        (self.vaddr + self.mem_len).next_multiple_of(PAGE_SIZE)
    }

    /// Addresses of the bytes that come from the file.
    pub fn file_range(&self) -> Range<u64> {
        self.vaddr..self.vaddr + self.data.len() as u64
    }
}

/// A function's name and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol<'a> {
    /// Address (relative to the load base of a position-independent program).
    pub vaddr: u64,
    /// Bytes; 0 when unknown.
    pub size: u64,
    /// As in the file, mangled.
    pub name: &'a [u8],
    /// Whether it names code.
    pub function: bool,
}

/// A checked program.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Whether it can be loaded anywhere (ET_DYN); all addresses are then relative to the load base.
    pub pie: bool,
    /// Entry point.
    pub entry: u64,
    /// Greatest segment alignment, at least a page.
    pub align: u64,
    /// Whether PT_GNU_STACK asks for an executable stack.
    pub exec_stack: bool,
    /// Where the program headers are in memory; 0 when they are not.
    pub phdr_vaddr: u64,
    /// Number of program headers.
    pub phnum: u16,
    /// Segments with memory, in address order; no two share a page.
    pub segments: Vec<LoadSegment<'a>>,
    /// Symbols of `.symtab`, sorted, none twice.
    pub symbols: Vec<Symbol<'a>>,
    /// Places of instructions: executable sections, or executable segments where there are no section headers.
    pub code: Vec<Range<u64>>,
    /// Where instructions are known to start, sorted: functions, symbols, sections, the entry point.
    pub cuts: Vec<u64>,
    /// Of a position-independent program: the addresses that its relocations store, unsorted.
    pub pointers: Vec<u64>,
}

impl<'a> Program<'a> {
    /// Reads and checks `bytes`.
    ///
    /// # Errors
    /// [`ElfError`] for anything but a sound static or static-pie executable for x86-64 Linux.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ElfError> {
        let header = header::check(bytes)?;
        let phdrs = header::program_headers(header, bytes)?;
        header::refuse_dynamic(phdrs, bytes)?;
        let kind = header.e_type(LE);
        let pie = kind == elf::ET_DYN;
        if pie {
            header::refuse_library(header, phdrs, bytes)?;
        }
        let mut program = Self {
            pie,
            entry: header.e_entry(LE),
            align: alignment(phdrs)?,
            exec_stack: phdrs
                .iter()
                .any(|p| p.p_type(LE) == elf::PT_GNU_STACK && p.p_flags(LE).0 & elf::PF_X.0 != 0),
            phdr_vaddr: phdr_vaddr(header, phdrs),
            phnum: header.e_phnum(LE),
            segments: segments(phdrs, bytes, pie)?,
            symbols: Vec::new(),
            code: Vec::new(),
            cuts: Vec::new(),
            pointers: Vec::new(),
        };
        if !program
            .segments
            .iter()
            .any(|s| s.executable() && s.file_range().contains(&program.entry))
        {
            return Err(ElfError::Entry {
                entry: program.entry,
            });
        }
        cuts::find(&mut program, header, phdrs, bytes)?;
        program.pointers = relocations::pointers(&program, phdrs, bytes)?;
        Ok(program)
    }

    /// End of the highest segment, page-aligned.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, LoadSegment::page_end)
    }

    /// The file bytes at `vaddr..vaddr + len`, if one segment has them all.
    pub fn bytes_at(&self, vaddr: u64, len: usize) -> Option<&'a [u8]> {
        let segment = self
            .segments
            .iter()
            .find(|s| s.file_range().contains(&vaddr))?;
        let at = usize::try_from(vaddr - segment.vaddr).ok()?;
        segment.data.get(at..at.checked_add(len)?)
    }
}

type Phdr = elf::ProgramHeader64<LE>;

fn alignment(phdrs: &[Phdr]) -> Result<u64, ElfError> {
    const MOST: u64 = 1 << 30;
    let mut greatest = PAGE_SIZE;
    for p in phdrs.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD) {
        let align = p.p_align(LE).max(1);
        if !align.is_power_of_two() || align > MOST {
            return Err(ElfError::Alignment {
                vaddr: p.p_vaddr(LE),
                align,
            });
        }
        greatest = greatest.max(align);
    }
    Ok(greatest)
}

/// As Linux computes AT_PHDR: where the segment that holds the table puts it.
fn phdr_vaddr(header: &elf::FileHeader64<LE>, phdrs: &[Phdr]) -> u64 {
    let at = header.e_phoff(LE);
    let end = at + phdrs.len() as u64 * u64::from(header.e_phentsize(LE));
    let holds = |p: &&Phdr| {
        p.p_type(LE) == elf::PT_LOAD
            && p.p_offset(LE) <= at
            && end <= p.p_offset(LE).saturating_add(p.p_filesz(LE))
    };
    phdrs
        .iter()
        .find(holds)
        .map_or(0, |p| at - p.p_offset(LE) + p.p_vaddr(LE))
}

fn segments<'a>(
    phdrs: &[Phdr],
    bytes: &'a [u8],
    pie: bool,
) -> Result<Vec<LoadSegment<'a>>, ElfError> {
    let loads = phdrs
        .iter()
        .filter(|p| p.p_type(LE) == elf::PT_LOAD && p.p_memsz(LE) > 0);
    let mut segments = loads
        .map(|p| segment(p, bytes, pie))
        .collect::<Result<Vec<_>, _>>()?;
    segments.sort_by_key(|s| s.vaddr);
    let most = MAX_SEGMENTS - 1; // one is for the trampolines
    if segments.is_empty() {
        return Err(ElfError::NoSegments);
    }
    if segments.len() > most {
        return Err(ElfError::TooManySegments {
            count: segments.len(),
            most,
        });
    }
    for pair in segments.windows(2) {
        if pair[0].page_end() > pair[1].first_page() {
            return Err(ElfError::Overlap {
                first: pair[0].vaddr,
                second: pair[1].vaddr,
            });
        }
    }
    Ok(segments)
}

fn segment<'a>(p: &Phdr, bytes: &'a [u8], pie: bool) -> Result<LoadSegment<'a>, ElfError> {
    let (vaddr, mem_len, flags) = (p.p_vaddr(LE), p.p_memsz(LE), p.p_flags(LE).0);
    let (offset, file_len) = (p.p_offset(LE), p.p_filesz(LE));
    if file_len > mem_len {
        return Err(ElfError::Segment { vaddr });
    }
    let end = vaddr
        .checked_add(mem_len)
        .ok_or(ElfError::Segment { vaddr })?;
    let lowest = if pie { 0 } else { PAGE_SIZE };
    // Room above for the trampolines and the heap.
    if vaddr < lowest || end > layout::USER_TOP - (1 << 32) {
        return Err(ElfError::Address {
            vaddr,
            top: layout::USER_TOP,
        });
    }
    if flags & elf::PF_W.0 != 0 && flags & elf::PF_X.0 != 0 {
        return Err(ElfError::WritableCode { vaddr });
    }
    let data = bytes
        .read_bytes_at(offset, file_len)
        .map_err(|()| ElfError::Truncated {
            what: "a segment",
            at: offset,
            len: bytes.len(),
        })?;
    Ok(LoadSegment {
        vaddr,
        data,
        mem_len,
        flags,
    })
}
