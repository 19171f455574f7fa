//! Compresses and expands with zlib and zstd (both C): the argument is how many megabytes.

use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let size: usize = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(2)
        << 20;
    let data = text(size);
    for level in [1, 6, 9] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(&data)?;
        let packed = encoder.finish()?;
        println!(
            "gzip {level}: {} bytes, same {}",
            packed.len(),
            read(GzDecoder::new(&packed[..]))? == data
        );
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&data)?;
    println!(
        "deflate same {}",
        read(DeflateDecoder::new(&encoder.finish()?[..]))? == data
    );
    for level in [1, 3, 12] {
        let packed = zstd::encode_all(&data[..], level)?;
        println!(
            "zstd {level}: {} bytes, same {}",
            packed.len(),
            zstd::decode_all(&packed[..])? == data
        );
    }
    println!(
        "damaged {}",
        zstd::decode_all(&[0x28, 0xb5, 0x2f, 0xfd, 9, 9][..]).is_err()
    );
    Ok(())
}

fn read(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.read_to_end(&mut out)?;
    Ok(out)
}

/// Words in an order that repeats only now and then.
fn text(size: usize) -> Vec<u8> {
    let words = [
        "unik", "kernel", "page", "the", "of", "ring", "thread", "a", "memory", "and",
    ];
    let mut state = 1u64;
    let mut out = Vec::with_capacity(size + 16);
    while out.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
        out.push(if state >> 60 == 0 { b'\n' } else { b' ' });
    }
    out
}
