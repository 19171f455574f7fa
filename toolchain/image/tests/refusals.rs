//! What cannot become an image is refused with one sentence that says what it is and what to do.

mod common;

use common::{Elf, Segment};
use unik_image::{ElfError, LinkError, LinkOptions, PackedFile, PackedKind, link};

fn refusal(program: &[u8]) -> ElfError {
    match link(program, &Elf::libos().bytes(), &LinkOptions::default()) {
        Err(LinkError::Program(error)) => error,
        other => panic!("{:?}", other.map(|l| l.report)),
    }
}

fn changed(change: impl FnOnce(&mut Elf)) -> ElfError {
    let mut elf = Elf::program();
    change(&mut elf);
    refusal(&elf.bytes())
}

#[test]
fn a_good_program_is_taken() {
    link(
        &Elf::program().bytes(),
        &Elf::libos().bytes(),
        &LinkOptions::default(),
    )
    .unwrap();
}

#[test]
fn other_kinds_of_files() {
    assert_eq!(refusal(b"#!/bin/sh\n"), ElfError::NotElf);
    assert_eq!(refusal(b""), ElfError::NotElf);
    assert_eq!(changed(|e| e.class = 1), ElfError::Class32);
    assert_eq!(changed(|e| e.data = 2), ElfError::BigEndian);
    assert!(changed(|e| e.machine = 183).to_string().contains("aarch64"));
    assert!(changed(|e| e.machine = 4711).to_string().contains("4711"));
    assert_eq!(changed(|e| e.abi = 9), ElfError::System(9));
    assert_eq!(changed(|e| e.kind = 1), ElfError::Object);
    assert_eq!(changed(|e| e.kind = 4), ElfError::Core);
    assert_eq!(changed(|e| e.kind = 0xfe00), ElfError::Type(0xfe00));
}

#[test]
fn dynamic_programs_and_libraries() {
    let interp = Segment {
        kind: 3,
        ..Segment::load(4, 0x40_0000, b"/lib64/ld-linux-x86-64.so.2\0")
    };
    let error = changed(|e| e.segments.push(interp));
    assert_eq!(
        error,
        ElfError::Dynamic {
            interpreter: "/lib64/ld-linux-x86-64.so.2".into()
        }
    );
    assert!(
        error.to_string().contains("crt-static") && error.to_string().contains("cargo unik build")
    );

    let dynamic = |tags: &[(u64, u64)]| {
        let data: Vec<u8> = tags
            .iter()
            .flat_map(|(t, v)| [t.to_le_bytes(), v.to_le_bytes()].concat())
            .collect();
        Segment {
            kind: 2,
            ..Segment::load(6, 0x70_0000, &data)
        }
    };
    let library = |tags: &'static [(u64, u64)]| {
        changed(|e| {
            e.kind = 3;
            e.segments.push(dynamic(tags));
        })
    };
    assert_eq!(library(&[(1, 1), (0, 0)]), ElfError::SharedLibrary); // DT_NEEDED
    assert_eq!(library(&[(14, 1), (0, 0)]), ElfError::SharedLibrary); // DT_SONAME
    assert_eq!(library(&[(22, 0), (0, 0)]), ElfError::TextRelocations);
    let no_entry = changed(|e| (e.kind, e.entry) = (3, 0));
    assert_eq!(no_entry, ElfError::SharedLibrary);
}

#[test]
fn damaged_files() {
    let whole = Elf::program().bytes();
    for len in [4, 10, 30, 63, 64, 100, 5000, whole.len() - 1] {
        assert!(
            matches!(refusal(&whole[..len]), ElfError::Truncated { .. }),
            "{len}: {}",
            refusal(&whole[..len])
        );
    }
    assert_eq!(changed(|e| e.segments.clear()), ElfError::NoSegments);
    assert_eq!(
        changed(|e| e.segments[1].mem_len = 1),
        ElfError::Segment { vaddr: 0x60_2ff0 }
    );
    assert_eq!(
        changed(|e| e.segments[1].mem_len = u64::MAX - 0x60_0000),
        ElfError::Segment { vaddr: 0x60_2ff0 }
    );
    assert_eq!(
        changed(|e| e.segments[1].align = 3000),
        ElfError::Alignment {
            vaddr: 0x60_2ff0,
            align: 3000
        }
    );
    assert_eq!(
        changed(|e| e.entry = 0x60_2ff0),
        ElfError::Entry { entry: 0x60_2ff0 }
    );
}

#[test]
fn addresses_and_permissions() {
    assert_eq!(
        changed(|e| e.segments[1].flags = 7),
        ElfError::WritableCode { vaddr: 0x60_2ff0 }
    );
    let low = Segment::load(4, 0x100, b"page 0");
    assert!(matches!(
        changed(|e| e.segments.push(low)),
        ElfError::Address { vaddr: 0x100, .. }
    ));
    let high = Segment::load(4, 0x7bff_ffff_f000, b"high");
    assert!(matches!(
        changed(|e| e.segments.push(high)),
        ElfError::Address { .. }
    ));
    let same_page = Segment::load(4, 0x40_1800, b"shares a page");
    assert_eq!(
        changed(|e| e.segments.push(same_page)),
        ElfError::Overlap {
            first: 0x40_1000,
            second: 0x40_1800
        }
    );
    let many = |e: &mut Elf| {
        e.segments
            .extend((0..14).map(|i| Segment::load(4, 0x80_0000 + i * 0x1000, b"x")))
    };
    assert_eq!(
        changed(many),
        ElfError::TooManySegments {
            count: 16,
            most: 15
        }
    );
}

#[test]
fn library_os_and_manifest() {
    let mut libos = Elf::libos();
    libos.symbols.remove(0);
    let program = Elf::program().bytes();
    let error = link(&program, &libos.bytes(), &LinkOptions::default()).unwrap_err();
    assert!(error.to_string().contains("pvh_entry"), "{error}");
    let error = link(&program, &program, &LinkOptions::default()).unwrap_err();
    assert!(matches!(error, LinkError::LibOs(_)));
    let options = LinkOptions {
        manifest: vec![("a=b".into(), "c".into())],
        ..LinkOptions::default()
    };
    assert!(matches!(
        link(&program, &Elf::libos().bytes(), &options),
        Err(LinkError::Manifest { .. })
    ));
    let file = PackedFile {
        path: "..".into(),
        kind: PackedKind::Directory,
        mode: 0o755,
        mtime: 0,
    };
    let options = LinkOptions {
        files: vec![file],
        ..LinkOptions::default()
    };
    assert!(matches!(
        link(&program, &Elf::libos().bytes(), &options),
        Err(LinkError::Pack(_))
    ));
}
