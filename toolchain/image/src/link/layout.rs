//! The growing file: page-aligned parts one after the other, each remembered for the program headers.

use unik_abi::PAGE_SIZE;
use unik_abi::image::SEG_R;
use unik_abi::layout::IMAGE_PADDR;

/// A loadable part: whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub len: u64,
    /// `PF_*`.
    pub flags: u32,
}

/// The loaded part of the file.
pub struct Out {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl Out {
    /// A file with its header page.
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.resize(PAGE_SIZE as usize, 0);
        Self {
            bytes,
            parts: vec![Part {
                offset: 0,
                len: PAGE_SIZE,
                flags: SEG_R,
            }],
        }
    }

    /// Bytes so far, a multiple of the page size.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Physical address of the next part.
    pub fn paddr(&self) -> u64 {
        IMAGE_PADDR + self.len()
    }

    /// Zero pages up to `offset`, belonging to the last part.
    pub fn pad_to(&mut self, offset: u64) {
        if offset > self.len() {
            self.bytes.resize(offset as usize, 0);
        }
        if let Some(last) = self.parts.last_mut() {
            last.len = self.bytes.len() as u64 - last.offset;
        }
    }

    /// Appends a part, padded to whole pages; returns its physical address and true length, zeros for an empty one.
    pub fn put(&mut self, bytes: &[u8], flags: u32) -> (u64, u64) {
        if bytes.is_empty() {
            return (0, 0);
        }
        let offset = self.len();
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(PAGE_SIZE as usize), 0);
        let len = self.len() - offset;
        match self.parts.last_mut() {
            Some(last) if last.flags == flags => last.len += len,
            _ => self.parts.push(Part { offset, len, flags }),
        }
        (IMAGE_PADDR + offset, bytes.len() as u64)
    }

    /// The bytes and the parts, which tile them.
    pub fn finish(self) -> (Vec<u8>, Vec<Part>) {
        (self.bytes, self.parts)
    }
}
