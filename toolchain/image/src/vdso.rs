//! The vDSO: a small shared object with the clock functions that libc and Go look up by the name in `AT_SYSINFO_EHDR`.
//!
//! Each function is a bound system call (see [`crate::bind`]); `rcx` and `r11` belong to the callee in the System V ABI, so it is an
//! ordinary function. Names, version and the soname are Linux's (`man 7 vdso`); readers want DT_HASH, DT_SYMTAB, DT_STRTAB,
//! DT_VERSYM, DT_VERDEF, one PT_LOAD and a read-only PT_DYNAMIC (glibc relocates it in place otherwise).

use crate::bind::Code;
use crate::elf_out::{self, Phdr, Section, SectionTable};

/// `(name, system call)`; each name has a twin with `__vdso_` before it.
const FUNCTIONS: [(&str, u32); 5] = [
    ("clock_gettime", 228),
    ("gettimeofday", 96),
    ("time", 201),
    ("clock_getres", 229),
    ("getcpu", 309),
];
const SONAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";
/// Bytes from one function to the next.
const FUNCTION_LEN: usize = 32;

const STB_GLOBAL: u8 = 1;
const STB_WEAK: u8 = 2;
const STT_FUNC: u8 = 2;
/// Index of `.text`.
const TEXT: u16 = 1;
const SYMBOL_LEN: usize = 24;

/// The shared object; the same bytes every time.
pub fn build() -> Vec<u8> {
    let mut strings = Strings::default();
    let (soname, version) = (strings.add(SONAME), strings.add(VERSION));
    let names = names(&mut strings);
    let mut out = Builder {
        bytes: vec![0; elf_out::HEADER_LEN + 3 * elf_out::PHDR_LEN],
        sections: vec![("", Section::default())],
    };

    // Section indices: 1 .text, 2 .dynsym, 3 .dynstr, then the rest.
    let text = out.bytes.len().next_multiple_of(FUNCTION_LEN) as u64;
    out.add(".text", SHT_PROGBITS, FUNCTION_LEN as u64, &functions(text));
    let symbols = out.add(".dynsym", SHT_DYNSYM, 8, &symbol_table(&names, text));
    let strtab = out.add(".dynstr", SHT_STRTAB, 1, &strings.bytes);
    let hash = out.add(".hash", SHT_HASH, 8, &hash_table(names.len()));
    let versions = out.add(
        ".gnu.version",
        SHT_GNU_VERSYM,
        2,
        &version_symbols(names.len()),
    );
    let definitions = out.add(
        ".gnu.version_d",
        SHT_GNU_VERDEF,
        8,
        &version_definitions(soname, version),
    );
    let tags = [
        (tag::SONAME, u64::from(soname)),
        (tag::HASH, hash),
        (tag::STRTAB, strtab),
        (tag::SYMTAB, symbols),
        (tag::STRSZ, strings.bytes.len() as u64),
        (tag::SYMENT, SYMBOL_LEN as u64),
        (tag::VERSYM, versions),
        (tag::VERDEF, definitions),
        (tag::VERDEFNUM, 2),
        (tag::NULL, 0),
    ];
    let dynamic: Vec<u8> = tags
        .iter()
        .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
        .collect();
    let dynamic_at = out.add(".dynamic", SHT_DYNAMIC, 8, &dynamic);
    out.finish(dynamic_at, dynamic.len() as u64)
}

/// A function's name: text, place in the string table, binding, index in [`FUNCTIONS`].
type Name = (String, u32, u8, usize);

fn names(strings: &mut Strings) -> Vec<Name> {
    let mut names = Vec::new();
    for (index, (name, _)) in FUNCTIONS.iter().enumerate() {
        let prefixed = format!("__vdso_{name}");
        names.push((prefixed.clone(), strings.add(&prefixed), STB_GLOBAL, index));
        names.push(((*name).to_owned(), strings.add(name), STB_WEAK, index));
    }
    names
}

const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const SHT_HASH: u32 = 5;
const SHT_DYNAMIC: u32 = 6;
const SHT_DYNSYM: u32 = 11;
const SHT_GNU_VERDEF: u32 = 0x6fff_fffd;
const SHT_GNU_VERSYM: u32 = 0x6fff_ffff;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const DYNSYM: u32 = 2;
const DYNSTR: u32 = 3;

mod tag {
    pub const NULL: u64 = 0;
    pub const HASH: u64 = 4;
    pub const STRTAB: u64 = 5;
    pub const SYMTAB: u64 = 6;
    pub const STRSZ: u64 = 10;
    pub const SYMENT: u64 = 11;
    pub const SONAME: u64 = 14;
    pub const VERSYM: u64 = 0x6fff_fff0;
    pub const VERDEF: u64 = 0x6fff_fffc;
    pub const VERDEFNUM: u64 = 0x6fff_fffd;
}

/// Sections one after the other.
struct Builder {
    bytes: Vec<u8>,
    sections: Vec<(&'static str, Section)>,
}

impl Builder {
    /// Appends a section and returns its address.
    fn add(&mut self, name: &'static str, kind: u32, align: u64, content: &[u8]) -> u64 {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(align as usize), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(content);
        let flags = if kind == SHT_PROGBITS {
            SHF_ALLOC | SHF_EXECINSTR
        } else {
            SHF_ALLOC
        };
        let (link, info, entry_len) = match kind {
            SHT_HASH => (DYNSYM, 0, 4),
            SHT_DYNSYM => (DYNSTR, 1, SYMBOL_LEN as u64),
            SHT_GNU_VERSYM => (DYNSYM, 0, 2),
            SHT_GNU_VERDEF => (DYNSTR, 2, 0),
            SHT_DYNAMIC => (DYNSTR, 0, 16),
            _ => (0, 0, 0),
        };
        let section = Section {
            name: 0,
            kind,
            flags,
            addr: at,
            offset: at,
            len: content.len() as u64,
            link,
            info,
            align,
            entry_len,
        };
        self.sections.push((name, section));
        at
    }

    /// Adds section names and headers and fills in the ELF header.
    fn finish(mut self, dynamic: u64, dynamic_len: u64) -> Vec<u8> {
        let mut names = Strings::default();
        for (name, section) in &mut self.sections {
            section.name = if name.is_empty() { 0 } else { names.add(name) };
        }
        let (name, offset) = (names.add(".shstrtab"), self.bytes.len() as u64);
        let len = names.bytes.len() as u64;
        self.sections.push((
            ".shstrtab",
            Section {
                name,
                kind: SHT_STRTAB,
                offset,
                len,
                align: 1,
                ..Section::default()
            },
        ));
        self.bytes.extend(names.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let count = self.sections.len() as u16;
        let table = SectionTable {
            offset: self.bytes.len() as u64,
            count,
            names: count - 1,
        };
        self.bytes
            .extend(self.sections.iter().flat_map(|(_, s)| s.to_bytes()));
        let len = self.bytes.len() as u64;
        let phdr = |kind, flags, at, len, align| Phdr {
            kind,
            flags,
            offset: at,
            addr: at,
            len,
            align,
        };
        let phdrs = [
            phdr(
                elf_out::PT_LOAD,
                elf_out::PF_R | elf_out::PF_X,
                0,
                len,
                4096,
            ),
            phdr(elf_out::PT_DYNAMIC, elf_out::PF_R, dynamic, dynamic_len, 8),
            phdr(elf_out::PT_GNU_STACK, elf_out::PF_R, 0, 0, 16),
        ];
        let header = elf_out::Header {
            kind: elf_out::ET_DYN,
            entry: 0,
            sections: Some(table),
        };
        elf_out::write_headers(&mut self.bytes, &header, &phdrs);
        self.bytes
    }
}

struct Strings {
    bytes: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: vec![0] }
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        at
    }
}

/// All functions, [`FUNCTION_LEN`] bytes each: `mov $number, %eax`, the call, `ret`.
fn functions(text: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, number) in FUNCTIONS {
        let mut code = Code::new(text + out.len() as u64);
        code.put(&[0xb8]);
        code.put(&number.to_le_bytes());
        code.syscall(None)
            .expect("the return address is a few bytes away");
        code.put(&[0xc3]);
        code.bytes.resize(FUNCTION_LEN, 0xcc);
        out.extend(code.bytes);
    }
    out
}

fn symbol_table(names: &[Name], text: u64) -> Vec<u8> {
    let mut out = vec![0; SYMBOL_LEN];
    for (_, name, binding, index) in names {
        let value = text + (index * FUNCTION_LEN) as u64;
        let symbol = elf_out::Symbol {
            name: *name,
            info: binding << 4 | STT_FUNC,
            section: TEXT,
            value,
            size: FUNCTION_LEN as u64,
        };
        out.extend(symbol.to_bytes());
    }
    out
}

/// DT_HASH with one bucket: a chain through all symbols (System V ABI, "Hash Table").
fn hash_table(names: usize) -> Vec<u8> {
    let count = names as u32 + 1;
    let mut words = vec![1, count, 1];
    // The chain: symbol i leads to i + 1, the last to 0 (the undefined symbol ends it).
    words.push(0);
    words.extend((1..count).map(|i| if i + 1 < count { i + 1 } else { 0 }));
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// DT_VERSYM: 0 for the undefined symbol, version index 2 for the rest.
fn version_symbols(count: usize) -> Vec<u8> {
    [0u16]
        .into_iter()
        .chain(std::iter::repeat_n(2, count))
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// DT_VERDEF: the object's own name (VER_FLG_BASE), then the version.
fn version_definitions(soname: u32, version: u32) -> Vec<u8> {
    let entry = |flags: u16, index: u16, name: &str, at: u32, last: bool| {
        let next: u32 = if last { 0 } else { 28 };
        let halves = [1u16, flags, index, 1].map(u16::to_le_bytes).concat();
        let words = [hash(name), 20, next, at, 0].map(u32::to_le_bytes).concat();
        [halves, words].concat()
    };
    [
        entry(1, 1, SONAME, soname, false),
        entry(0, 2, VERSION, version, true),
    ]
    .concat()
}

/// The System V ABI's hash of a symbol name.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0, |h: u32, byte| {
        let h = (h << 4).wrapping_add(u32::from(byte));
        let high = h & 0xf000_0000;
        (h ^ high >> 24) & !high
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::Elf;

    #[test]
    fn goblin_finds_the_functions_and_their_version() {
        let bytes = build();
        assert_eq!(bytes, build());
        assert!(bytes.len() <= 4096, "{}", bytes.len());
        let elf = Elf::parse(&bytes).unwrap();
        assert!(elf.is_lib && elf.is_64);
        assert_eq!(elf.soname, Some(SONAME));
        assert_eq!(elf.dynsyms.len(), 11);
        for (index, (name, number)) in FUNCTIONS.iter().enumerate() {
            for (name, binding) in [
                (format!("__vdso_{name}"), STB_GLOBAL),
                ((*name).to_owned(), STB_WEAK),
            ] {
                let symbol = elf
                    .dynsyms
                    .iter()
                    .find(|s| elf.dynstrtab.get_at(s.st_name) == Some(&name))
                    .unwrap();
                assert_eq!(symbol.st_bind(), binding);
                let code = &bytes[symbol.st_value as usize..][..FUNCTION_LEN];
                assert_eq!(code[0], 0xb8);
                assert_eq!(u32::from_le_bytes(code[1..5].try_into().unwrap()), *number);
                assert_eq!(
                    index * FUNCTION_LEN,
                    (symbol.st_value - elf.dynsyms.get(1).unwrap().st_value) as usize
                );
            }
        }
        let versions: Vec<_> = elf.versym.unwrap().iter().map(|v| v.vs_val).collect();
        assert_eq!(versions, [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        let definitions: Vec<_> = elf
            .verdef
            .unwrap()
            .iter()
            .map(|d| (d.vd_ndx, d.vd_hash))
            .collect();
        assert_eq!(definitions, [(1, hash(SONAME)), (2, 0x3ae_75f6)]);
    }

    #[test]
    fn the_hash_chain_reaches_every_symbol() {
        let table = hash_table(3);
        let words: Vec<u32> = table
            .as_chunks::<4>()
            .0
            .iter()
            .map(|w| u32::from_le_bytes(*w))
            .collect();
        assert_eq!(words, [1, 4, 1, 0, 2, 3, 0]);
    }
}
