//! Files that nobody would call images, and images with one thing wrong.

use std::path::PathBuf;

use tempfile::TempDir;
use unik_host::memory::GuestRam;

use super::*;

const HEADER: usize = 64;
const PHDR: usize = 56;

/// A small image: one flat segment with its notes inside.
fn good() -> Vec<u8> {
    let mut bytes = vec![0u8; 0x2000];
    bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
    put(&mut bytes, 32, &(HEADER as u64).to_le_bytes());
    put(&mut bytes, 54, &(PHDR as u16).to_le_bytes());
    put(&mut bytes, 56, &2u16.to_le_bytes());
    phdr(
        &mut bytes,
        0,
        1,
        0x1000,
        layout::IMAGE_PADDR + 0x1000,
        0x1000,
        0x1000,
    );
    let mut notes = note(b"Xen\0", 18, &(layout::IMAGE_PADDR + 0x1000).to_le_bytes());
    notes.extend(note(
        b"Unik\0",
        1,
        &[&ABI_VERSION.to_le_bytes()[..], b"arg=x\0"].concat(),
    ));
    put(&mut bytes, 0x200, &notes);
    phdr(
        &mut bytes,
        1,
        4,
        0x200,
        0,
        notes.len() as u64,
        notes.len() as u64,
    );
    bytes
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn phdr(
    bytes: &mut [u8],
    index: usize,
    kind: u32,
    offset: u64,
    paddr: u64,
    file_len: u64,
    mem_len: u64,
) {
    let at = HEADER + index * PHDR;
    put(bytes, at, &kind.to_le_bytes());
    for (i, value) in [offset, paddr, paddr, file_len, mem_len, 0x1000]
        .into_iter()
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

struct Sample {
    path: PathBuf,
    _dir: TempDir,
}

fn sample(bytes: &[u8]) -> Sample {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    Sample { path, _dir: dir }
}

fn open(bytes: &[u8]) -> Result<Image, LoadError> {
    Image::open(&sample(bytes).path)
}

/// What goes wrong after `change`.
fn broken(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = good();
    change(&mut bytes);
    match open(&bytes) {
        Ok(image) => panic!("opened: {image:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_good_image_is_mapped_where_it_belongs() {
    let mut bytes = good();
    bytes[0x1000..0x1004].copy_from_slice(b"text");
    let image = open(&bytes).unwrap();
    assert_eq!(u64::from(image.entry), layout::IMAGE_PADDR + 0x1000);
    assert_eq!(image.manifest.as_deref(), Some(&b"arg=x\0"[..]));
    let mut ram =
        GuestRam::reserve(8 << 20, layout::MMIO_HOLE_START, layout::MMIO_HOLE_END).unwrap();
    assert_eq!(image.load(&mut ram).unwrap(), layout::IMAGE_PADDR + 0x2000);
    image.warm_up(&ram.warmer()).unwrap();
    let mut text = [0; 4];
    ram.view()
        .read_slice(&mut text, GuestAddress(layout::IMAGE_PADDR + 0x1000))
        .unwrap();
    assert_eq!(&text, b"text");
}

#[test]
fn a_foreign_kernel_is_copied() {
    let mut bytes = good();
    phdr(&mut bytes, 0, 1, 0x1000, 0x10_0000, 0x1000, 0x3000);
    put(
        &mut bytes,
        0x200,
        &note(b"Xen\0", 18, &0x10_0000u32.to_le_bytes()),
    );
    phdr(&mut bytes, 1, 4, 0x200, 0, 20, 20);
    bytes[0x1000] = 7;
    let image = open(&bytes).unwrap();
    assert_eq!((image.entry, image.manifest.is_none()), (0x10_0000, true));
    let mut ram =
        GuestRam::reserve(4 << 20, layout::MMIO_HOLE_START, layout::MMIO_HOLE_END).unwrap();
    assert_eq!(image.load(&mut ram).unwrap(), 0x10_3000);
    assert_eq!(
        ram.view().read_obj::<u8>(GuestAddress(0x10_0000)).unwrap(),
        7
    );
    let mut small =
        GuestRam::reserve(1 << 20, layout::MMIO_HOLE_START, layout::MMIO_HOLE_END).unwrap();
    assert!(
        image
            .load(&mut small)
            .unwrap_err()
            .to_string()
            .contains("more memory")
    );
}

#[test]
fn other_files_get_advice() {
    assert!(broken(|b| b.clear()).contains("not an ELF file"));
    assert!(broken(|b| b.truncate(40)).contains("not an ELF file"));
    assert!(broken(|b| b[0] = b'#').contains("not an ELF file"));
    assert!(broken(|b| b[4] = 1).contains("32 bits"));
    assert!(broken(|b| b[5] = 2).contains("big endian"));
    assert!(broken(|b| b[18] = 183).contains("machine number 183"));
    assert!(broken(|b| put(b, 0x200 + 8, &99u32.to_le_bytes())).contains("cargo unik pack"));
    assert!(broken(|b| b[0x200 + 24 + 20] = 99).contains("version 99 of the Unik contract"));
}

#[test]
fn damage_is_named() {
    assert!(broken(|b| b.truncate(0x1800)).contains("a segment at 0x1000 lies beyond the end"));
    assert!(broken(|b| put(b, 32, &u64::MAX.to_le_bytes())).contains("program header table"));
    assert!(broken(|b| put(b, 54, &7u16.to_le_bytes())).contains("unknown size"));
    assert!(broken(|b| put(b, 56, &u16::MAX.to_le_bytes())).contains("too many"));
    assert!(broken(|b| phdr(b, 0, 1, 0x1000, u64::MAX, 0x1000, 0x1000)).contains("contradict"));
    assert!(broken(|b| phdr(b, 0, 1, 0x1000, 0x20_1000, 0x1000, 0xfff)).contains("contradict"));
    assert!(broken(|b| phdr(b, 0, 1, u64::MAX, 0x20_1000, 2, 2)).contains("beyond the end"));
    assert!(broken(|b| phdr(b, 0, 1, 0x1000, 0x30_1000, 0x1000, 0x1000)).contains("entry point"));
    assert!(
        broken(|b| phdr(b, 0, 1, 0, 0x20_1000, 0x1000, 0x1000)).contains("as they lie in the file")
    );
    assert!(broken(|b| phdr(b, 0, 1, 0x1000, 0x20_1000, 0x800, 0x2000)).contains("zero part"));
    assert!(broken(|b| phdr(b, 0, 6, 0, 0, 0, 0)).contains("nothing to load"));
    assert!(
        broken(|b| put(b, 0x200 + 4, &3u32.to_le_bytes())).contains("entry note makes no sense")
    );
}

/// A megabyte of notes, named by every program header, would become a gigabyte here.
#[test]
fn notes_are_counted() {
    let (mut bytes, count) = (vec![0u8; 1 << 20], 100);
    bytes[..0x2000].copy_from_slice(&good());
    put(&mut bytes, 56, &(2 + count as u16).to_le_bytes());
    for index in 0..count {
        phdr(&mut bytes, 2 + index, 4, 0x2000, 0, 0xf_0000, 0xf_0000);
    }
    // The headers lie over the notes' old place.
    phdr(&mut bytes, 1, 4, 0x2000, 0, 0xf_0000, 0xf_0000);
    assert!(
        open(&bytes)
            .unwrap_err()
            .to_string()
            .contains("too many notes")
    );
    put(&mut bytes, 0x2000, &note(b"x\0", 1, &vec![0; 0x8_0000]));
    for index in 1..2 + count {
        phdr(&mut bytes, index, 4, 0x2000, 0, 0x8_0010, 0x8_0010);
    }
    assert!(open(&bytes).unwrap_err().to_string().contains("too long"));
}

#[test]
fn every_corrupted_byte_and_every_length_is_survived() {
    let bytes = good();
    for at in (0..HEADER + 2 * PHDR).chain(0x200..0x260) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] = value;
            let _ = open(&bad);
        }
    }
    for len in (0..0x300).chain([0xfff, 0x1000, 0x1fff]) {
        let _ = open(&bytes[..len]);
    }
}
