//! Writes ELF64 headers and symbols: for images and for the vDSO.
//!
//! Source: System V ABI, chapter 4 "Object Files". Everything is little endian, for x86-64.

/// Bytes of the ELF header.
pub const HEADER_LEN: usize = 64;
/// Bytes of a program header.
pub const PHDR_LEN: usize = 56;
/// Bytes of a section header.
pub const SHDR_LEN: usize = 64;

pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;
pub const PT_LOAD: u32 = 1;
pub const PT_DYNAMIC: u32 = 2;
pub const PT_NOTE: u32 = 4;
pub const PT_GNU_STACK: u32 = 0x6474_e551;
pub const PF_X: u32 = 1;
pub const PF_R: u32 = 4;
const EM_X86_64: u16 = 62;

/// What differs between our ELF headers.
pub struct Header {
    /// `ET_*`.
    pub kind: u16,
    /// Entry point.
    pub entry: u64,
    /// Section header table.
    pub sections: Option<SectionTable>,
}

/// Where the section headers are.
#[derive(Clone, Copy)]
pub struct SectionTable {
    pub offset: u64,
    pub count: u16,
    /// Index of the section with the names of sections.
    pub names: u16,
}

/// A program header whose memory is as long as its file part.
pub struct Phdr {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    /// Virtual and physical address.
    pub addr: u64,
    pub len: u64,
    pub align: u64,
}

impl Phdr {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = [self.kind, self.flags].map(u32::to_le_bytes).concat();
        out.extend(
            [
                self.offset,
                self.addr,
                self.addr,
                self.len,
                self.len,
                self.align,
            ]
            .map(u64::to_le_bytes)
            .concat(),
        );
        out
    }
}

/// A symbol table entry.
pub struct Symbol {
    /// Offset in the string table.
    pub name: u32,
    /// Binding and type.
    pub info: u8,
    /// Section index.
    pub section: u16,
    pub value: u64,
    pub size: u64,
}

impl Symbol {
    /// Its 24 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.name.to_le_bytes().to_vec();
        out.extend([self.info, 0]);
        out.extend(self.section.to_le_bytes());
        out.extend([self.value, self.size].map(u64::to_le_bytes).concat());
        out
    }
}

/// A section header.
#[derive(Clone, Copy, Default)]
pub struct Section {
    pub name: u32,
    pub kind: u32,
    pub flags: u64,
    pub addr: u64,
    pub offset: u64,
    pub len: u64,
    pub link: u32,
    pub info: u32,
    pub align: u64,
    pub entry_len: u64,
}

impl Section {
    /// Its 64 bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = [self.name, self.kind].map(u32::to_le_bytes).concat();
        out.extend(
            [self.flags, self.addr, self.offset, self.len]
                .map(u64::to_le_bytes)
                .concat(),
        );
        out.extend([self.link, self.info].map(u32::to_le_bytes).concat());
        out.extend([self.align, self.entry_len].map(u64::to_le_bytes).concat());
        out
    }
}

/// Writes the ELF header and, right behind it, the program headers over the start of `bytes`, which must have the room.
pub fn write_headers(bytes: &mut [u8], header: &Header, phdrs: &[Phdr]) {
    let table = header.sections.unwrap_or(SectionTable {
        offset: 0,
        count: 0,
        names: 0,
    });
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([header.kind, EM_X86_64].map(u16::to_le_bytes).concat());
    out.extend(1u32.to_le_bytes());
    out.extend(
        [header.entry, HEADER_LEN as u64, table.offset]
            .map(u64::to_le_bytes)
            .concat(),
    );
    out.extend(0u32.to_le_bytes());
    let sizes = [HEADER_LEN, PHDR_LEN, phdrs.len(), SHDR_LEN].map(|n| n as u16);
    out.extend(sizes.map(u16::to_le_bytes).concat());
    out.extend([table.count, table.names].map(u16::to_le_bytes).concat());
    phdrs.iter().for_each(|p| out.extend(p.to_bytes()));
    bytes[..out.len()].copy_from_slice(&out);
}
