//! Section headers and the symbol table, both optional in a program.

use object::elf::{self, FileHeader64, SectionHeader64, Sym64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{LittleEndian as LE, ReadRef};

use super::{ElfError, Symbol};

/// The section header table; empty where there is none.
pub fn table<'a>(
    header: &FileHeader64<LE>,
    bytes: &'a [u8],
) -> Result<&'a [SectionHeader64<LE>], ElfError> {
    let (at, count) = (header.e_shoff(LE), usize::from(header.e_shnum(LE)));
    if at == 0 || count == 0 {
        return Ok(&[]);
    }
    if usize::from(header.e_shentsize(LE)) != size_of::<SectionHeader64<LE>>() {
        return Err(ElfError::Damaged(
            "its section headers have an unknown size",
        ));
    }
    bytes
        .read_slice_at(at, count)
        .map_err(|()| ElfError::Truncated {
            what: "the section header table",
            at,
            len: bytes.len(),
        })
}

/// Named functions and objects, and places that have only a name.
pub fn symbols<'a>(
    sections: &[SectionHeader64<LE>],
    bytes: &'a [u8],
) -> Result<Vec<Symbol<'a>>, ElfError> {
    let Some(table) = sections.iter().find(|s| s.sh_type(LE) == elf::SHT_SYMTAB) else {
        return Ok(Vec::new());
    };
    let truncated = |at| ElfError::Truncated {
        what: "the symbol table",
        at,
        len: bytes.len(),
    };
    let (at, count) = (
        table.sh_offset(LE),
        table.sh_size(LE) as usize / size_of::<Sym64<LE>>(),
    );
    let entries: &[Sym64<LE>] = bytes.read_slice_at(at, count).map_err(|()| truncated(at))?;
    let names = sections
        .get(table.sh_link(LE) as usize)
        .ok_or(ElfError::Damaged("its symbol table has no names"))?;
    let at = names.sh_offset(LE);
    let names = bytes
        .read_bytes_at(at, names.sh_size(LE))
        .map_err(|()| truncated(at))?;
    let mut symbols: Vec<_> = entries.iter().filter_map(|s| symbol(s, names)).collect();
    symbols.sort_unstable();
    symbols.dedup();
    Ok(symbols)
}

fn symbol<'a>(s: &Sym64<LE>, names: &'a [u8]) -> Option<Symbol<'a>> {
    let kind = s.st_type();
    let kinds = [
        elf::STT_NOTYPE,
        elf::STT_OBJECT,
        elf::STT_FUNC,
        elf::STT_GNU_IFUNC,
    ];
    if !kinds.contains(&kind) || s.st_shndx(LE) == elf::SHN_UNDEF {
        return None;
    }
    let name = names.get(s.st_name(LE) as usize..)?;
    let name = &name[..memchr::memchr(0, name)?];
    let function = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC;
    Some(Symbol {
        vaddr: s.st_value(LE),
        size: s.st_size(LE),
        name,
        function,
    })
}
