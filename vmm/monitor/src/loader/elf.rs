//! Just enough ELF: header, program headers and notes of a file that nobody vouches for.
//!
//! Only what is needed is read (a kilobyte or two), every number is checked before it is used, and what cannot be checked
//! against the file's length is an error. Source: System V ABI, chapters 4 and 5.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Size of an ELF64 header.
const HEADER_LEN: usize = 64;
/// Size of an ELF64 program header.
const PHDR_LEN: usize = 56;
/// More program headers than any image has.
const MAX_PHDRS: usize = 128;
/// More bytes of notes than any image has; the manifest is one.
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// More notes than any image or kernel has.
const MAX_NOTES: usize = 1024;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Why a file is not readable as ELF.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF magic number.
    #[error("it is not an ELF file")]
    NotElf,
    /// ELF, but not for this kind of machine.
    #[error("it is an ELF file for another kind of machine ({0})")]
    Machine(String),
    /// A table or segment lies beyond the end.
    #[error("it is cut short or damaged: {what} at {at:#x} lies beyond the end of the file")]
    Truncated {
        /// What was looked for.
        what: &'static str,
        /// File offset.
        at: u64,
    },
    /// Numbers that contradict each other.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The host could not read it.
    #[error("it cannot be read: {0}")]
    Read(String),
}

/// A segment to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// File offset of its first byte.
    pub offset: u64,
    /// Physical address.
    pub paddr: u64,
    /// Bytes in the file.
    pub file_len: u64,
    /// Bytes in memory, at least `file_len`.
    pub mem_len: u64,
}

/// A note: owner without its NUL, type, description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Who defines the type.
    pub owner: Vec<u8>,
    /// Type.
    pub kind: u32,
    /// Content.
    pub desc: Vec<u8>,
}

/// What the loader wants to know of an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// Segments to be loaded, in file order; all lie inside the file.
    pub loads: Vec<Load>,
    /// All notes that program headers point to.
    pub notes: Vec<Note>,
}

impl Elf {
    /// Reads the headers of `file`, which is `len` bytes long.
    pub fn read(file: &File, len: u64) -> Result<Self, ElfError> {
        let header = read_exact(file, len, 0, HEADER_LEN as u64, "the ELF header");
        let header = match header {
            Err(ElfError::Truncated { .. }) => return Err(ElfError::NotElf),
            other => other?,
        };
        check_ident(&header)?;
        let table = u64_at(&header, 32);
        let (entry_len, count) = (u16_at(&header, 54), usize::from(u16_at(&header, 56)));
        if count > 0 && usize::from(entry_len) != PHDR_LEN {
            return Err(ElfError::Damaged(
                "its program headers have an unknown size",
            ));
        }
        if count > MAX_PHDRS {
            return Err(ElfError::Damaged("it has too many program headers"));
        }
        let phdrs = read_exact(
            file,
            len,
            table,
            (count * PHDR_LEN) as u64,
            "the program header table",
        )?;
        let mut elf = Self::default();
        for phdr in phdrs.chunks_exact(PHDR_LEN) {
            elf.add(file, len, phdr)?;
        }
        Ok(elf)
    }

    fn add(&mut self, file: &File, len: u64, phdr: &[u8]) -> Result<(), ElfError> {
        let (offset, paddr) = (u64_at(phdr, 8), u64_at(phdr, 24));
        let (file_len, mem_len, align) = (u64_at(phdr, 32), u64_at(phdr, 40), u64_at(phdr, 48));
        match u32_at(phdr, 0) {
            PT_LOAD => {
                inside(len, offset, file_len, "a segment")?;
                if file_len > mem_len || paddr.checked_add(mem_len).is_none() {
                    return Err(ElfError::Damaged("a segment's sizes contradict each other"));
                }
                self.loads.push(Load {
                    offset,
                    paddr,
                    file_len,
                    mem_len,
                });
            }
            PT_NOTE => {
                let held: usize = self.notes.iter().map(|n| n.desc.len()).sum();
                if file_len.saturating_add(held as u64) > MAX_NOTE_BYTES {
                    return Err(ElfError::Damaged("its notes are too long"));
                }
                let bytes = read_exact(file, len, offset, file_len, "a note segment")?;
                parse_notes(&bytes, if align == 8 { 8 } else { 4 }, &mut self.notes);
                if self.notes.len() > MAX_NOTES {
                    return Err(ElfError::Damaged("it has too many notes"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The first note of this owner and type.
    pub fn note(&self, owner: &[u8], kind: u32) -> Option<&[u8]> {
        self.notes
            .iter()
            .find(|n| n.owner == owner && n.kind == kind)
            .map(|n| n.desc.as_slice())
    }
}

fn check_ident(header: &[u8]) -> Result<(), ElfError> {
    const X86_64: u16 = 62;
    if header[..4] != *b"\x7fELF" {
        return Err(ElfError::NotElf);
    }
    match (header[4], header[5], u16_at(header, 18)) {
        (2, 1, X86_64) => Ok(()),
        (1, ..) => Err(ElfError::Machine("32 bits".into())),
        (_, 2, _) => Err(ElfError::Machine("big endian".into())),
        (.., machine) => Err(ElfError::Machine(format!("ELF machine number {machine}"))),
    }
}

/// Collects notes until the bytes end or make no sense, or there are too many.
fn parse_notes(mut bytes: &[u8], align: usize, notes: &mut Vec<Note>) {
    while bytes.len() >= 12 && notes.len() <= MAX_NOTES {
        let (name_len, desc_len) = (u32_at(bytes, 0) as usize, u32_at(bytes, 4) as usize);
        let kind = u32_at(bytes, 8);
        let Some(desc_at) = name_len
            .checked_add(12)
            .map(|end| end.next_multiple_of(align))
        else {
            return;
        };
        let Some(end) = desc_at.checked_add(desc_len) else {
            return;
        };
        let (Some(name), Some(desc)) = (bytes.get(12..12 + name_len), bytes.get(desc_at..end))
        else {
            return;
        };
        let owner = name.strip_suffix(b"\0").unwrap_or(name).to_vec();
        notes.push(Note {
            owner,
            kind,
            desc: desc.to_vec(),
        });
        bytes = bytes.get(end.next_multiple_of(align)..).unwrap_or_default();
    }
}

fn inside(len: u64, at: u64, size: u64, what: &'static str) -> Result<(), ElfError> {
    match at.checked_add(size) {
        Some(end) if end <= len => Ok(()),
        _ => Err(ElfError::Truncated { what, at }),
    }
}

/// Reads `size` bytes at `at` after checking that the file has them.
fn read_exact(
    file: &File,
    len: u64,
    at: u64,
    size: u64,
    what: &'static str,
) -> Result<Vec<u8>, ElfError> {
    inside(len, at, size, what)?;
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, at)
        .map_err(|error| ElfError::Read(error.to_string()))?;
    Ok(bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}
