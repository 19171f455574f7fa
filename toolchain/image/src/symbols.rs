//! The symbol table of an image, outside its loaded part, so that a monitor can name addresses in a crash.
//!
//! A standard one: sections `.symtab` and `.strtab`. Functions of the library OS have their absolute virtual address, functions of
//! the program the address in the program file (relative to the load base when it is position independent).

use crate::elf_out::{SHDR_LEN, Section, SectionTable, Symbol};
use crate::program;

const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHN_ABS: u16 = 0xfff1;
const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
const SYMBOL_LEN: u64 = 24;
/// Sections, the null section included.
const COUNT: usize = 4;
const NAMES: &[u8] = b"\0.symtab\0.strtab\0.shstrtab\0";

/// Appends string table, symbol table and section headers to an image.
pub fn append(image: &mut Vec<u8>, functions: &[program::Symbol<'_>]) -> SectionTable {
    let mut strings = vec![0];
    let mut symbols = vec![0; SYMBOL_LEN as usize];
    for function in functions {
        let name = strings.len() as u32;
        strings.extend_from_slice(function.name);
        strings.push(0);
        let symbol = Symbol {
            name,
            info: GLOBAL_FUNCTION,
            section: SHN_ABS,
            value: function.vaddr,
            size: function.size,
        };
        symbols.extend(symbol.to_bytes());
    }
    let mut put = |bytes: &[u8]| {
        image.resize(image.len().next_multiple_of(8), 0);
        let at = image.len() as u64;
        image.extend_from_slice(bytes);
        (at, bytes.len() as u64)
    };
    let mut section = |name, kind, bytes: &[u8], align| {
        let (offset, len) = put(bytes);
        Section {
            name,
            kind,
            offset,
            len,
            align,
            ..Section::default()
        }
    };
    let headers: [Section; COUNT] = [
        Section::default(),
        Section {
            link: 2,
            info: 1,
            entry_len: SYMBOL_LEN,
            ..section(1, SHT_SYMTAB, &symbols, 8)
        },
        section(9, SHT_STRTAB, &strings, 1),
        section(17, SHT_STRTAB, NAMES, 1),
    ];
    let table: Vec<u8> = headers.into_iter().flat_map(Section::to_bytes).collect();
    debug_assert_eq!(table.len(), COUNT * SHDR_LEN);
    let (offset, _) = put(&table);
    SectionTable {
        offset,
        count: COUNT as u16,
        names: 3,
    }
}
