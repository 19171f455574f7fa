//! The ELF header and the program header table: what a file is, before anything is believed of it.

use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian as LE, ReadRef};

use super::ElfError;

/// More program headers than any linker writes.
const MAX_PHDRS: usize = 1024;
/// `e_ident[EI_OSABI]` values that Linux programs have: none, GNU.
const LINUX_ABIS: [u8; 2] = [0, 3];

/// Checks identification, machine and type.
pub fn check(bytes: &[u8]) -> Result<&FileHeader64<LE>, ElfError> {
    if bytes.get(..4) != Some(&elf::ELFMAG[..]) {
        return Err(ElfError::NotElf);
    }
    let cut = |at: usize| ElfError::Truncated {
        what: "the ELF header",
        at: at as u64,
        len: bytes.len(),
    };
    let ident = bytes.get(..20).ok_or(cut(4))?;
    let big_endian = ident[5] == 2;
    match ident[4] {
        1 => return Err(ElfError::Class32),
        2 => {}
        _ => return Err(ElfError::Damaged("its ELF class is neither 32 nor 64 bits")),
    }
    match ident[5] {
        1 => {}
        _ if big_endian => return Err(ElfError::BigEndian),
        _ => {
            return Err(ElfError::Damaged(
                "its byte order is neither little nor big endian",
            ));
        }
    }
    let machine = u16::from_le_bytes([ident[18], ident[19]]);
    if machine != elf::EM_X86_64.0 {
        return Err(ElfError::Machine(machine_name(machine)));
    }
    if !LINUX_ABIS.contains(&ident[7]) {
        return Err(ElfError::System(ident[7]));
    }
    let header = bytes.read_at::<FileHeader64<LE>>(0).map_err(|()| cut(0))?;
    match header.e_type(LE) {
        elf::ET_EXEC | elf::ET_DYN => Ok(header),
        elf::ET_REL => Err(ElfError::Object),
        elf::ET_CORE => Err(ElfError::Core),
        other => Err(ElfError::Type(other.0)),
    }
}

fn machine_name(machine: u16) -> String {
    let name = match elf::Machine(machine) {
        elf::EM_386 => "32-bit x86",
        elf::EM_AARCH64 => "64-bit ARM (aarch64)",
        elf::EM_ARM => "32-bit ARM",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "64-bit PowerPC",
        elf::EM_S390 => "IBM Z (s390x)",
        elf::EM_MIPS => "MIPS",
        elf::EM_LOONGARCH => "LoongArch",
        elf::EM_BPF => "BPF",
        _ => return format!("another kind of machine (ELF machine {machine})"),
    };
    name.into()
}

/// The program header table.
pub fn program_headers<'a>(
    header: &FileHeader64<LE>,
    bytes: &'a [u8],
) -> Result<&'a [ProgramHeader64<LE>], ElfError> {
    let (at, count) = (header.e_phoff(LE), usize::from(header.e_phnum(LE)));
    if count == 0 {
        return Err(ElfError::NoSegments);
    }
    if usize::from(header.e_phentsize(LE)) != size_of::<ProgramHeader64<LE>>() {
        return Err(ElfError::Damaged(
            "its program headers have an unknown size",
        ));
    }
    if count > MAX_PHDRS {
        return Err(ElfError::Damaged("it has more than 1024 program headers"));
    }
    bytes
        .read_slice_at(at, count)
        .map_err(|()| ElfError::Truncated {
            what: "the program header table",
            at,
            len: bytes.len(),
        })
}

/// Refuses a program that wants a dynamic loader.
pub fn refuse_dynamic(phdrs: &[ProgramHeader64<LE>], bytes: &[u8]) -> Result<(), ElfError> {
    let Some(interp) = phdrs.iter().find(|p| p.p_type(LE) == elf::PT_INTERP) else {
        return Ok(());
    };
    let name = bytes
        .read_bytes_at(interp.p_offset(LE), interp.p_filesz(LE).min(256))
        .unwrap_or_default();
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    Err(ElfError::Dynamic {
        interpreter: String::from_utf8_lossy(name).escape_debug().to_string(),
    })
}

/// Refuses an ET_DYN file that is a library, or whose code needs relocation.
pub fn refuse_library(
    header: &FileHeader64<LE>,
    phdrs: &[ProgramHeader64<LE>],
    bytes: &[u8],
) -> Result<(), ElfError> {
    let dynamic = Dynamic::read(phdrs, bytes)?;
    if dynamic.text_relocations {
        return Err(ElfError::TextRelocations);
    }
    let library = dynamic.needed || (!dynamic.pie && dynamic.soname) || header.e_entry(LE) == 0;
    if library {
        Err(ElfError::SharedLibrary)
    } else {
        Ok(())
    }
}

/// What the dynamic section says.
#[derive(Default)]
struct Dynamic {
    needed: bool,
    soname: bool,
    pie: bool,
    text_relocations: bool,
}

impl Dynamic {
    fn read(phdrs: &[ProgramHeader64<LE>], bytes: &[u8]) -> Result<Self, ElfError> {
        let mut found = Self::default();
        for entry in dynamic(phdrs, bytes)? {
            let value = entry.d_val.get(LE);
            match entry.d_tag.get(LE) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => found.needed = true,
                elf::DT_SONAME => found.soname = true,
                elf::DT_TEXTREL => found.text_relocations = true,
                elf::DT_FLAGS => found.text_relocations |= value & elf::DF_TEXTREL.0 != 0,
                elf::DT_FLAGS_1 => found.pie |= value & elf::DF_1_PIE.0 != 0,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The dynamic section; empty where there is none.
pub fn dynamic<'a>(
    phdrs: &[ProgramHeader64<LE>],
    bytes: &'a [u8],
) -> Result<&'a [elf::Dyn64<LE>], ElfError> {
    let Some(p) = phdrs.iter().find(|p| p.p_type(LE) == elf::PT_DYNAMIC) else {
        return Ok(&[]);
    };
    let (at, count) = (
        p.p_offset(LE),
        p.p_filesz(LE) as usize / size_of::<elf::Dyn64<LE>>(),
    );
    bytes
        .read_slice_at(at, count)
        .map_err(|()| ElfError::Truncated {
            what: "the dynamic section",
            at,
            len: bytes.len(),
        })
}
