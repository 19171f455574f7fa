//! What is in an image, read by other readers (goblin, a page walk of our own) and by `inspect`; and hostile images.

mod common;

use common::Elf;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};
use unik_abi::layout::{IMAGE_PADDR, LIBOS_VADDR, PHYSMAP_VADDR};
use unik_image::{Inspection, LinkOptions, Linked, PackedFile, PackedKind, Symbols, inspect, link};

fn options() -> LinkOptions {
    let file = |path: &str, data: &[u8]| PackedFile {
        path: path.into(),
        kind: PackedKind::File(data.into()),
        mode: 0o644,
        mtime: 77,
    };
    LinkOptions {
        manifest: vec![
            ("arg".into(), "hello".into()),
            ("env".into(), "A=b".into()),
            ("memory".into(), "67108864".into()),
        ],
        files: vec![file("data/a", &[5; 5000]), file("data/b", b"b")],
        symbols: Symbols::Functions,
        exe: "/bin/hello".into(),
        ..LinkOptions::default()
    }
}

/// A program that was not stripped.
fn program() -> Elf {
    Elf {
        symbols: vec![("_start", 0x40_1000)],
        ..Elf::program()
    }
}

fn image() -> Linked {
    link(&program().bytes(), &Elf::libos().bytes(), &options()).unwrap()
}

fn word(image: &[u8], paddr: u64) -> u64 {
    let at = (paddr - IMAGE_PADDR) as usize;
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

/// The ImageInfo's 8-byte words.
fn info(image: &[u8], index: u64) -> u64 {
    word(image, IMAGE_PADDR + 0x5040 + 8 * index)
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    assert_eq!(image().bytes, image().bytes);
    let mut turned = options();
    turned.files.reverse();
    assert_eq!(
        image().bytes,
        link(&program().bytes(), &Elf::libos().bytes(), &turned)
            .unwrap()
            .bytes
    );
}

#[test]
fn headers_are_flat_and_name_the_entry() {
    let bytes = image().bytes;
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    assert_eq!(elf.entry, IMAGE_PADDR + 0x1010);
    let mut next = 0;
    for p in elf.program_headers.iter().filter(|p| p.p_type == PT_LOAD) {
        assert_eq!(
            (p.p_offset, p.p_paddr, p.p_filesz),
            (next, IMAGE_PADDR + next, p.p_memsz)
        );
        assert_ne!(p.p_flags & 3, 3, "writable and executable");
        next += p.p_filesz;
    }
    assert_eq!(
        info(&bytes, 2),
        IMAGE_PADDR + bytes.len() as u64,
        "phys_end"
    );
    assert!(next < bytes.len() as u64, "symbols are not loaded");
    let note = elf
        .program_headers
        .iter()
        .find(|p| p.p_type == PT_NOTE)
        .unwrap();
    assert_eq!(note.p_align, 4);
    let notes: Vec<_> = elf
        .iter_note_headers(&bytes)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        (notes[0].name, notes[0].n_type, notes[0].desc),
        ("Xen", 18, &(IMAGE_PADDR + 0x1010).to_le_bytes()[..])
    );
    assert_eq!(
        (notes[1].name, notes[1].n_type, &notes[1].desc[..4]),
        ("Unik", 1, &unik_abi::ABI_VERSION.to_le_bytes()[..])
    );
    let manifest = std::str::from_utf8(&notes[1].desc[4..]).unwrap();
    assert!(manifest.starts_with("exe=/bin/hello\0arg=hello\0env=A=b\0memory=67108864\0bound.syscall=1\0unbound.syscall=0\0"), "{manifest:?}");
    let names: Vec<_> = elf
        .syms
        .iter()
        .filter_map(|s| elf.strtab.get_at(s.st_name))
        .collect();
    assert_eq!(names, ["", "__nucleus_start", "pvh_entry"]);
}

#[test]
fn segments_are_private_whole_pages() {
    let bytes = image().bytes;
    let segment = |i: u64| -> Vec<u64> { (0..5).map(|w| info(&bytes, 18 + 5 * i + w)).collect() };
    assert_eq!(info(&bytes, 17), 3, "segment_count");
    let (code, data, trampolines) = (segment(0), segment(1), segment(2));
    assert_eq!(
        (code[0], code[2], code[3], code[4]),
        (0x40_1000, 0x1000, 0x1000, 5)
    );
    assert_eq!(
        (data[0], data[2], data[3], data[4]),
        (0x60_2000, 0x1000, 0x4000, 6)
    );
    assert_eq!(
        (trampolines[0], trampolines[2], trampolines[4]),
        (0x60_6000, 0x1000, 0x105)
    );
    assert_eq!(info(&bytes, 8), 0x60_7000, "program_end");
    let page = |paddr: u64| &bytes[(paddr - IMAGE_PADDR) as usize..][..4096];
    assert_eq!(&page(data[1])[0xff0..], b"initialised data");
    assert!(
        page(data[1])[..0xff0].iter().all(|&b| b == 0),
        "no bytes of other parts"
    );
    // mov and xor moved away: a jump into the trampolines, the system call stays.
    assert_eq!(page(code[1])[0], 0xe9);
    assert_eq!(&page(code[1])[7..11], b"\x0f\x05\x0f\x0b");
    assert_eq!(&page(trampolines[1])[..7], b"\xb8\xe7\0\0\0\x31\xff");
}

/// Walks the page tables at `root`: entry of the last level, and its level.
fn walk(image: &[u8], root: u64, vaddr: u64) -> Option<(u64, u32)> {
    let mut table = root;
    for shift in [39, 30, 21, 12] {
        let entry = word(image, table + (vaddr >> shift & 511) * 8);
        if entry & 1 == 0 {
            return None;
        }
        if shift == 12 || entry & 0x80 != 0 {
            return Some((entry, shift));
        }
        table = entry & 0x000f_ffff_ffff_f000;
    }
    None
}

#[test]
fn page_tables_map_what_the_contract_says() {
    const NX: u64 = 1 << 63;
    let bytes = image().bytes;
    let (run, boot) = (info(&bytes, 3), info(&bytes, 4));
    let low = |entry: u64| entry & 0xfff;
    for root in [run, boot] {
        // present, accessed, dirty; then user and writable where they belong
        for (page, bits, nx) in [
            (1, 0x61, false),
            (2, 0x63, true),
            (3, 0x65, false),
            (4, 0x65, true),
            (5, 0x67, true),
            (8, 0x67, true),
        ] {
            let (entry, shift) = walk(&bytes, root, LIBOS_VADDR + page * 4096).unwrap();
            assert_eq!(
                (low(entry), entry & NX != 0, shift),
                (bits, nx, 12),
                "page {page}"
            );
            assert_eq!(entry & 0x000f_ffff_ffff_f000, IMAGE_PADDR + page * 4096);
        }
        assert_eq!(
            walk(&bytes, root, LIBOS_VADDR),
            None,
            "the header is not mapped"
        );
        assert_eq!(walk(&bytes, root, LIBOS_VADDR + 9 * 4096), None);
        for gib in 0..4u64 {
            let (entry, shift) =
                walk(&bytes, root, PHYSMAP_VADDR + (gib << 30) + 0x20_1000).unwrap();
            assert_eq!((entry, shift), ((gib << 30) + 0x20_0000 + 0xe7, 21));
        }
        assert_ne!(word(&bytes, root + (PHYSMAP_VADDR >> 39 & 511) * 8) & NX, 0);
    }
    assert_eq!(
        walk(&bytes, run, IMAGE_PADDR),
        None,
        "no identity map while running"
    );
    assert_eq!(
        walk(&bytes, boot, IMAGE_PADDR + 0x1010).unwrap().0 & !0xfff,
        IMAGE_PADDR
    );
    assert_eq!(word(&bytes, boot) & NX, 0);
}

#[test]
fn a_stripped_program_makes_an_image_without_symbols() {
    let stripped = link(&Elf::program().bytes(), &Elf::libos().bytes(), &options()).unwrap();
    assert_eq!(stripped.report.sizes.symbols, 0);
    assert!(!inspect(&stripped.bytes).unwrap().symbols);
}

#[test]
fn inspect_tells_what_was_linked() {
    let linked = image();
    let seen = inspect(&linked.bytes).unwrap();
    assert_eq!(seen.sizes, linked.report.sizes);
    let counts = seen.syscall.unwrap();
    assert_eq!(
        (counts.bound, counts.unbound, seen.cpuid.unwrap().bound),
        (1, 0, 0)
    );
    assert_eq!(
        seen.files
            .iter()
            .map(|f| f.path.as_str())
            .collect::<Vec<_>>(),
        ["data", "data/a", "data/b"]
    );
    assert_eq!(seen.record("memory"), Some("67108864"));
    assert!(seen.symbols && !seen.program.pie);
    let json = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap(), seen);

    let plain = LinkOptions {
        bind: false,
        ..LinkOptions::default()
    };
    let plain = link(&Elf::program().bytes(), &Elf::libos().bytes(), &plain).unwrap();
    let seen = inspect(&plain.bytes).unwrap();
    assert_eq!(
        (seen.syscall, seen.symbols, seen.program.segments.len()),
        (None, false, 2)
    );
    assert!(plain.report.bind.is_none());
}

/// A small generator (splitmix64): the test does the same every time.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ z >> 31
}

/// Damages a few bytes, most of them where the headers and the ImageInfo are.
fn damage(bytes: &[u8], state: &mut u64) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..1 + random(state) % 6 {
        let len = damaged.len() as u64;
        let at = match random(state) % 4 {
            0 => random(state) % 64,
            1 => random(state) % 1024,
            2 => 0x5040 + random(state) % 800,
            _ => random(state) % len,
        };
        damaged[(at % len) as usize] = random(state) as u8;
    }
    if random(state).is_multiple_of(8) {
        damaged.truncate((random(state) % bytes.len() as u64) as usize);
    }
    damaged
}

#[test]
fn hostile_bytes_never_panic() {
    let (program, libos, linked) = (Elf::program().bytes(), Elf::libos().bytes(), image().bytes);
    let mut state = 42;
    for _ in 0..400 {
        unik_image::read_anything(&damage(&linked, &mut state));
        unik_image::read_anything(&damage(&program, &mut state));
        let _ = link(
            &damage(&program, &mut state),
            &libos,
            &LinkOptions::default(),
        );
        let _ = link(
            &program,
            &damage(&libos, &mut state),
            &LinkOptions::default(),
        );
    }
}
