//! Programs, library OSes and images that nobody vouches for: read, rewritten, linked, inspected.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::Elf;
use libfuzzer_sys::fuzz_target;
use unik_image::{LinkOptions, link};

static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| Elf::program().bytes());
static LIBOS: LazyLock<Vec<u8>> = LazyLock::new(|| Elf::libos().bytes());

fuzz_target!(|bytes: &[u8]| {
    unik_image::read_anything(bytes);
    let _ = unik_image::manifest_bytes(bytes);
    let _ = link(bytes, &LIBOS, &LinkOptions::default());
    let _ = link(&PROGRAM, bytes, &LinkOptions::default());
});
