//! Packed files. Any bytes as an archive and its index are read without harm; and what the linker packs, the library OS finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_fs::packed::{Packed, ROOT};
use unik_image::{PackedFile, PackedKind, cpio};

fuzz_target!(|bytes: &[u8]| {
    let _ = cpio::list(bytes);
    let (len, rest) = bytes.split_at(bytes.len().min(2));
    let len = len
        .iter()
        .fold(0, |sum, &byte| sum * 256 + usize::from(byte));
    let (index, archive) = rest.split_at(len.min(rest.len()));
    visit(&packed(index, archive));
    if let Ok(text) = std::str::from_utf8(bytes) {
        round_trip(text);
    }
});

fn packed(index: &[u8], archive: &[u8]) -> Packed {
    // SAFETY: the tree wants its bytes for the life of a machine; here neither it nor anything that it gives outlives its caller's.
    let forever = |bytes: &[u8]| unsafe { std::mem::transmute::<&[u8], &'static [u8]>(bytes) };
    Packed::new(forever(index), forever(archive))
}

/// Asks everything about every object.
fn visit(tree: &Packed) {
    assert!(tree.count() >= 1);
    for index in (0..tree.count()).chain([u32::MAX]) {
        let _ = (
            tree.info(index),
            tree.kind(index),
            tree.subdirectories(index),
        );
        let children = tree.children(index);
        assert!(children.end <= tree.count());
        for child in children.take(8) {
            let _ = tree.find(index, tree.name(child));
        }
    }
}

/// Packs a file for every line (path, space, content; or path, `>`, target) and looks for each.
fn round_trip(text: &str) {
    let file = |line: &str| {
        let (path, kind) = match (line.split_once(' '), line.split_once('>')) {
            (Some((path, data)), _) => (path, PackedKind::File(data.into())),
            (_, Some((path, target))) => (path, PackedKind::Symlink(target.into())),
            _ => (line, PackedKind::Directory),
        };
        PackedFile {
            path: path.into(),
            kind,
            mode: 0o644,
            mtime: 1,
        }
    };
    let files: Vec<_> = text.lines().map(file).collect();
    let Ok(made) = cpio::write(&files) else {
        return;
    };
    let listed = cpio::list(&made.bytes).expect("what was packed can be listed");
    assert!(listed.len() >= files.len());
    let tree = packed(&made.index, &made.bytes);
    visit(&tree);
    for file in &files {
        let names = file.path.split('/').filter(|n| !n.is_empty() && *n != ".");
        let found = names.fold(ROOT, |at, name| {
            tree.find(at, name.as_bytes())
                .expect("what was packed is found")
        });
        match &file.kind {
            PackedKind::File(data) => assert_eq!(tree.info(found).data, data),
            PackedKind::Symlink(target) => assert_eq!(tree.info(found).data, target.as_bytes()),
            PackedKind::Directory => assert!(tree.info(found).data.is_empty()),
        }
    }
}
