//! Lays out an image: `unik_abi::image` says what goes in, `unik_abi::layout` where.
//!
//! File offset `x` is physical address `IMAGE_PADDR + x`. In file order: ELF header; library OS (its zero memory as zero bytes);
//! the program's segments and the trampolines, each in pages of its own; vDSO; notes with the manifest; packed files behind their index; page
//! tables; and, not loaded, symbols. The bytes depend on nothing but the inputs.

mod layout;

use serde::{Deserialize, Serialize};
use unik_abi::image::{
    IMAGE_MAGIC, ImageInfo, MAX_SEGMENTS, SEG_R, SEG_TRAMPOLINES, SEG_X, Segment,
};
use unik_abi::layout::{IMAGE_PADDR, LIBOS_VADDR, MMIO_HOLE_START};
use unik_abi::{ABI_VERSION, PAGE_SIZE};

use crate::bind::{self, BindReport, Bound};
use crate::cpio::{self, Archive, PackError, PackedFile};
use crate::elf_out::{self, PHDR_LEN, PT_LOAD, PT_NOTE, Phdr};
use crate::libos::{LibOs, LibOsError};
use crate::program::{ElfError, LoadSegment, Program};
use crate::{info, manifest, notes, paging, symbols, vdso};
use layout::{Out, Part};

/// Which symbols an image carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbols {
    /// None: the smallest image.
    #[default]
    None,
    /// Functions of program and library OS, so that crashes are reported by name. A program without symbols was stripped to be
    /// small: its image has none either.
    Functions,
}

/// What goes into an image beside program and library OS.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Whether to rewrite system-call sites; without it every call takes the processor's path.
    pub bind: bool,
    /// Manifest records in the keys of `unik_abi::config`.
    pub manifest: Vec<(String, String)>,
    /// Files to pack.
    pub files: Vec<PackedFile>,
    /// Symbols to keep.
    pub symbols: Symbols,
    /// Path of the program inside the guest; becomes the record `exe`.
    pub exe: String,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            bind: true,
            manifest: Vec::new(),
            files: Vec::new(),
            symbols: Symbols::None,
            exe: "/bin/program".into(),
        }
    }
}

/// An image.
#[derive(Clone, Debug)]
pub struct Linked {
    /// The file.
    pub bytes: Vec<u8>,
    /// What was done.
    pub report: LinkReport,
}

/// What the linker did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Sites found and bound; `None` when binding was switched off.
    pub bind: Option<BindReport>,
    /// Bytes by part.
    pub sizes: Sizes,
}

/// Bytes of an image by part. All but `total`, `manifest` and `vdso` are whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The file.
    pub total: u64,
    /// Library OS with its zero memory.
    pub libos: u64,
    /// The program's segments.
    pub program: u64,
    /// Trampolines of bound sites.
    pub trampolines: u64,
    /// vDSO.
    pub vdso: u64,
    /// Manifest.
    pub manifest: u64,
    /// Packed files with their index.
    pub files: u64,
    /// First page tables.
    pub page_tables: u64,
    /// Symbols, not loaded.
    pub symbols: u64,
}

/// Why an image cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the numbers in the sentences")]
pub enum LinkError {
    /// The program.
    #[error("the program cannot become an image: {0}")]
    Program(#[from] ElfError),
    /// The library OS.
    #[error("the library OS is not usable: {0}")]
    LibOs(#[from] LibOsError),
    /// The files to pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A manifest record that cannot be written.
    #[error(
        "the manifest record {key:?} cannot be stored: keys have no `=`, and neither keys nor values have NUL characters"
    )]
    Manifest { key: String },
    /// Does not fit below the device window of a PC.
    #[error(
        "the image would have {len} bytes, at most {most} are possible: pack fewer files, or give them by `-v`"
    )]
    TooLarge { len: u64, most: u64 },
    /// More parts than the first page has room for.
    #[error("the library OS has too many segments ({count}): build it with its linker script")]
    Headers { count: usize },
}

/// Links `program` and `libos` (both ELF files) to an image.
///
/// # Errors
/// [`LinkError`], one sentence for the user.
pub fn link(program: &[u8], libos: &[u8], options: &LinkOptions) -> Result<Linked, LinkError> {
    let program = Program::read(program)?;
    let libos = LibOs::read(libos)?;
    let archive = cpio::write(&options.files)?;
    let bound = options.bind.then(|| bind::bind(&program, program.end()));
    Linker {
        program,
        libos,
        archive,
        bound,
        options,
    }
    .run()
}

struct Linker<'a> {
    program: Program<'a>,
    libos: LibOs<'a>,
    archive: Archive,
    bound: Option<Bound>,
    options: &'a LinkOptions,
}

impl Linker<'_> {
    fn run(self) -> Result<Linked, LinkError> {
        let mut sizes = Sizes::default();
        let mut out = Out::new(self.size_hint());
        let mut info = self.info();
        self.put_libos(&mut out);
        sizes.libos = out.len() - PAGE_SIZE;
        sizes.program = self.put_program(&mut out, &mut info);
        sizes.trampolines = self.put_trampolines(&mut out, &mut info);

        let vdso = vdso::build();
        (info.vdso_paddr, info.vdso_len) = out.put(&vdso, SEG_R | SEG_X);
        sizes.vdso = info.vdso_len;
        let manifest = manifest::write(
            self.options,
            self.bound.as_ref().map(|b| &b.report),
            self.libos.info,
        )?;
        let notes = notes::write(IMAGE_PADDR + self.libos.entry, &manifest);
        let (notes_paddr, notes_len) = out.put(&notes.bytes, SEG_R);
        (info.manifest_paddr, info.manifest_len) = (
            notes_paddr + notes.manifest_at as u64,
            manifest.len() as u64,
        );
        sizes.manifest = info.manifest_len;
        (info.index_paddr, info.index_len) = out.put(&self.archive.index, SEG_R);
        (info.files_paddr, info.files_len) = out.put(&self.archive.bytes, SEG_R);
        sizes.files =
            info.index_len.next_multiple_of(PAGE_SIZE) + info.files_len.next_multiple_of(PAGE_SIZE);
        let tables = paging::build(&self.libos, out.paddr());
        sizes.page_tables = out.put(&tables.bytes, SEG_R).1;
        (info.pml4_paddr, info.boot_pml4_paddr) = (tables.pml4_paddr, tables.boot_pml4_paddr);

        let (mut bytes, parts) = out.finish();
        let loaded = bytes.len() as u64;
        let wanted = self.options.symbols == Symbols::Functions && !self.program.symbols.is_empty();
        let sections = wanted.then(|| symbols::append(&mut bytes, &self.functions()));
        bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE as usize), 0);
        sizes.total = bytes.len() as u64;
        sizes.symbols = sizes.total - loaded;
        // A monitor that maps the whole file puts the symbols there too: not free memory.
        info.phys_end = IMAGE_PADDR + sizes.total;
        let most = MMIO_HOLE_START - IMAGE_PADDR;
        if sizes.total > most {
            return Err(LinkError::TooLarge {
                len: sizes.total,
                most,
            });
        }

        let at = self.libos.info as usize;
        let info = info::to_bytes(&info);
        bytes[at..at + info.len()].copy_from_slice(&info);
        let phdrs = phdrs(&parts, notes_paddr, notes_len)?;
        let header = elf_out::Header {
            kind: elf_out::ET_EXEC,
            entry: IMAGE_PADDR + self.libos.entry,
            sections,
        };
        elf_out::write_headers(&mut bytes, &header, &phdrs);
        Ok(Linked {
            bytes,
            report: LinkReport {
                bind: self.bound.map(|b| b.report),
                sizes,
            },
        })
    }

    /// Roughly the length of the result.
    fn size_hint(&self) -> usize {
        let program: usize = self
            .program
            .segments
            .iter()
            .map(|s| s.data.len() + 2 * PAGE_SIZE as usize)
            .sum();
        self.libos.end() as usize
            + program
            + self.archive.bytes.len()
            + self.archive.index.len()
            + (1 << 16)
    }

    fn info(&self) -> ImageInfo {
        let program = &self.program;
        ImageInfo {
            magic: IMAGE_MAGIC,
            abi_version: ABI_VERSION,
            pie: program.pie.into(),
            entry: program.entry,
            phdr_vaddr: program.phdr_vaddr,
            phent: PHDR_LEN as u32,
            phnum: program.phnum.into(),
            program_end: program.end(),
            align: program.align,
            exec_stack: program.exec_stack.into(),
            ..ImageInfo::default()
        }
    }

    fn put_libos(&self, out: &mut Out) {
        for segment in &self.libos.segments {
            out.pad_to(segment.pages().start);
            let mut pages = vec![0; (segment.pages().end - segment.pages().start) as usize];
            let at = (segment.offset - segment.pages().start) as usize;
            pages[at..at + segment.data.len()].copy_from_slice(segment.data);
            out.put(&pages, segment.flags);
        }
        out.pad_to(self.libos.end());
    }

    fn put_program(&self, out: &mut Out, info: &mut ImageInfo) -> u64 {
        let start = out.len();
        for segment in &self.program.segments {
            let pages = self.pages(segment);
            let (paddr, image_len) = out.put(&pages, segment.flags);
            let mem_len = segment.page_end() - segment.first_page();
            add(
                info,
                Segment {
                    vaddr: segment.first_page(),
                    paddr,
                    image_len,
                    mem_len,
                    flags: segment.flags & 7,
                    reserved: 0,
                },
            );
        }
        out.len() - start
    }

    /// The file part of a segment in whole pages, with its sites rewritten.
    fn pages(&self, segment: &LoadSegment<'_>) -> Vec<u8> {
        if segment.data.is_empty() {
            return Vec::new();
        }
        let lead = (segment.vaddr - segment.first_page()) as usize;
        let len = (lead + segment.data.len()).next_multiple_of(PAGE_SIZE as usize);
        let mut pages = Vec::with_capacity(len);
        pages.resize(lead, 0);
        pages.extend_from_slice(segment.data);
        pages.resize(len, 0);
        let patches = self.bound.iter().flat_map(|b| &b.patches);
        for patch in patches.filter(|p| segment.file_range().contains(&p.vaddr)) {
            let at = (patch.vaddr - segment.first_page()) as usize;
            pages[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        pages
    }

    fn put_trampolines(&self, out: &mut Out, info: &mut ImageInfo) -> u64 {
        let Some(bound) = self.bound.as_ref().filter(|b| !b.trampolines.is_empty()) else {
            return 0;
        };
        let (paddr, len) = out.put(&bound.trampolines, SEG_R | SEG_X);
        let (vaddr, len) = (info.program_end, len.next_multiple_of(PAGE_SIZE));
        add(
            info,
            Segment {
                vaddr,
                paddr,
                image_len: len,
                mem_len: len,
                flags: SEG_R | SEG_X | SEG_TRAMPOLINES,
                reserved: 0,
            },
        );
        info.program_end += len;
        len
    }

    fn functions(&self) -> Vec<crate::program::Symbol<'_>> {
        let all = self.program.symbols.iter().chain(&self.libos.symbols);
        // The nucleus is assembly: its labels have no type.
        let nucleus = |s: &&crate::program::Symbol<'_>| {
            s.vaddr >= LIBOS_VADDR && self.libos.nucleus[0].contains(&(s.vaddr - LIBOS_VADDR))
        };
        all.filter(|s| s.function || nucleus(s)).copied().collect()
    }
}

fn add(info: &mut ImageInfo, segment: Segment) {
    let index = info.segment_count as usize;
    debug_assert!(
        index < MAX_SEGMENTS,
        "Program::read leaves one for the trampolines"
    );
    info.segments[index] = segment;
    info.segment_count += 1;
}

/// Loadable parts, then the notes.
fn phdrs(parts: &[Part], notes_paddr: u64, notes_len: u64) -> Result<Vec<Phdr>, LinkError> {
    let most = (PAGE_SIZE as usize - elf_out::HEADER_LEN) / PHDR_LEN - 1;
    if parts.len() > most {
        return Err(LinkError::Headers { count: parts.len() });
    }
    let load = |p: &Part| Phdr {
        kind: PT_LOAD,
        flags: p.flags,
        offset: p.offset,
        addr: IMAGE_PADDR + p.offset,
        len: p.len,
        align: PAGE_SIZE,
    };
    let mut phdrs: Vec<Phdr> = parts.iter().map(load).collect();
    let offset = notes_paddr - IMAGE_PADDR;
    phdrs.push(Phdr {
        kind: PT_NOTE,
        flags: SEG_R,
        offset,
        addr: notes_paddr,
        len: notes_len,
        align: 4,
    });
    Ok(phdrs)
}
