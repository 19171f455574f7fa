//! Writes the first inputs: a program, a library OS, the image linked from both, and archives. Run in this folder:
//! `cargo run --example seeds`.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::io;

use common::Elf;
use unik_image::{LinkOptions, PackedFile, PackedKind, Symbols, cpio, link};

fn main() -> io::Result<()> {
    let (program, libos) = (Elf::program().bytes(), Elf::libos().bytes());
    save("elf", "program", &program)?;
    save("elf", "libos", &libos)?;
    let options = LinkOptions {
        files: files(),
        symbols: Symbols::Functions,
        ..LinkOptions::default()
    };
    let linked = link(&program, &libos, &options).map_err(io::Error::other)?;
    save("elf", "image", &linked.bytes)?;
    let made = cpio::write(&files()).map_err(io::Error::other)?;
    save("archive", "tree", &made.bytes)?;
    let len = (made.index.len() as u16).to_be_bytes();
    let text = &made.bytes[..made.bytes.len().min(300)];
    save("archive", "index", &[&len, &made.index[..], text].concat())?;
    save(
        "archive",
        "lines",
        b"a/b hello\na/link>b\na.x\n/usr//share/./x\nz two words",
    )
}

fn files() -> Vec<PackedFile> {
    let entry = |path: &str, kind| PackedFile {
        path: path.into(),
        kind,
        mode: 0o644,
        mtime: 1,
    };
    vec![
        entry("a/b", PackedKind::File(b"hello".to_vec())),
        entry("a/link", PackedKind::Symlink("b".into())),
        entry("a.x", PackedKind::Directory),
    ]
}

fn save(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = format!("corpus/{target}");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(format!("{folder}/{name}"), bytes)
}
