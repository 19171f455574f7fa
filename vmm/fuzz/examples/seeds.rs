//! Writes the first inputs of the targets that read files: small kernels and images that are well. Run in this folder:
//! `cargo run --example seeds`.

use std::io;

use unik_abi::layout::IMAGE_PADDR;
use unik_abi::{ABI_VERSION, image, pvh};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

fn main() -> io::Result<()> {
    let unik = [
        &ABI_VERSION.to_le_bytes()[..],
        b"arg=x\0memory=16777216\0cpus=2\0exe=/bin/x\0",
    ]
    .concat();
    let owner = image::NOTE_OWNER;
    let pvh_note = |entry: u64| {
        note(
            b"Xen\0",
            pvh::XEN_ELFNOTE_PHYS32_ENTRY,
            &entry.to_le_bytes(),
        )
    };
    let unik_notes = [
        pvh_note(IMAGE_PADDR + 0x400),
        note(owner, image::NOTE_VERSION, &unik),
    ]
    .concat();
    save("image", "unik", &elf(IMAGE_PADDR, 0, &unik_notes))?;
    save(
        "image",
        "foreign",
        &elf(0x10_0000, 0x1000, &pvh_note(0x10_0400)),
    )?;
    save(
        "kernel",
        "vmlinux-pvh",
        &elf(0x10_0000, 0x1000, &pvh_note(0x10_0400)),
    )?;
    save("kernel", "vmlinux", &elf(0x20_0000, 0, &[]))?;
    save("kernel", "bzimage", &bzimage())?;
    save("records", "manifest", &unik[4..])?;
    let mut words = 0x200u32.to_le_bytes().to_vec();
    words.resize(4 + 104, 0);
    words.extend(6u64.to_le_bytes());
    words.extend(b"a \x1b[2Jb");
    save("words", "panic", &words)
}

fn save(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = format!("corpus/{target}");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(format!("{folder}/{name}"), bytes)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// One segment from the file's start to its end, `zeroes` of memory behind it, and notes.
fn elf(paddr: u64, zeroes: u64, notes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 0x600];
    put(
        &mut bytes,
        0,
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0",
    );
    put(&mut bytes, 24, &(paddr + 0x400).to_le_bytes());
    put(&mut bytes, 32, &64u64.to_le_bytes());
    put(&mut bytes, 54, &56u16.to_le_bytes());
    put(&mut bytes, 56, &2u16.to_le_bytes());
    let len = bytes.len() as u64;
    phdr(&mut bytes, 64, PT_LOAD, [0, paddr, len, len + zeroes]);
    let notes_len = notes.len() as u64;
    phdr(
        &mut bytes,
        120,
        PT_NOTE,
        [0x200, paddr + 0x200, notes_len, notes_len],
    );
    put(&mut bytes, 0x200, notes);
    put(&mut bytes, 0x400, b"\xf4\xeb\xfd");
    bytes
}

/// Offset, address, bytes in the file, bytes in memory.
fn phdr(bytes: &mut [u8], at: usize, kind: u32, [offset, addr, file_len, mem_len]: [u64; 4]) {
    put(bytes, at, &kind.to_le_bytes());
    for (i, value) in [offset, addr, addr, file_len, mem_len, 0x1000]
        .iter()
        .enumerate()
    {
        put(bytes, at + 8 + 8 * i, &value.to_le_bytes());
    }
}

fn note(owner: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = [owner.len() as u32, desc.len() as u32, kind]
        .map(u32::to_le_bytes)
        .concat();
    for part in [owner, desc] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A boot sector and one sector of set-up code before a kernel of 512 bytes (Linux `Documentation/arch/x86/boot.rst`).
fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 0x600];
    put(&mut bytes, 0x1f1, &[1]); // sectors of set-up code
    put(&mut bytes, 0x1f4, &32u32.to_le_bytes()); // kernel's length in 16 bytes
    put(&mut bytes, 0x1fe, &0xaa55u16.to_le_bytes());
    put(&mut bytes, 0x200, &[0xeb, 0x66]);
    put(&mut bytes, 0x202, b"HdrS");
    put(&mut bytes, 0x206, &0x20fu16.to_le_bytes());
    put(&mut bytes, 0x211, &[1]); // loaded high
    put(&mut bytes, 0x214, &0x10_0000u32.to_le_bytes());
    put(&mut bytes, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut bytes, 0x230, &0x20_0000u32.to_le_bytes());
    put(&mut bytes, 0x236, &1u16.to_le_bytes()); // 64-bit entry
    put(&mut bytes, 0x238, &2047u32.to_le_bytes());
    put(&mut bytes, 0x258, &0x10_0000u64.to_le_bytes());
    put(&mut bytes, 0x260, &0x20_0000u32.to_le_bytes());
    bytes
}
