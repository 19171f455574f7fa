//! ELF notes of an image: the Xen PVH entry note and the Unik note, written and read.
//!
//! Source of the format: System V ABI, chapter 5 "Note Section", with 4-byte fields and alignment.

use unik_abi::image::{NOTE_OWNER, NOTE_VERSION};
use unik_abi::pvh::XEN_ELFNOTE_PHYS32_ENTRY;

/// Owner of the PVH entry note.
pub const XEN_OWNER: &[u8; 4] = b"Xen\0";
const ALIGN: usize = 4;

/// The notes of an image; also says where the manifest is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notes {
    /// Content of the note segment.
    pub bytes: Vec<u8>,
    /// Offset of the manifest in it.
    pub manifest_at: usize,
}

/// Writes both notes.
pub fn write(entry_paddr: u64, manifest: &[u8]) -> Notes {
    let mut bytes = Vec::new();
    put(
        &mut bytes,
        XEN_OWNER,
        XEN_ELFNOTE_PHYS32_ENTRY,
        &entry_paddr.to_le_bytes(),
    );
    let mut description = unik_abi::ABI_VERSION.to_le_bytes().to_vec();
    description.extend_from_slice(manifest);
    let at = put(&mut bytes, NOTE_OWNER, NOTE_VERSION, &description);
    Notes {
        bytes,
        manifest_at: at + 4,
    }
}

/// Appends one note and returns where its description is.
fn put(bytes: &mut Vec<u8>, owner: &[u8], kind: u32, description: &[u8]) -> usize {
    bytes.extend_from_slice(&(owner.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(description.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(owner);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    let at = bytes.len();
    bytes.extend_from_slice(description);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    at
}

/// The description of the first note of this owner and type; `None` when there is none or the notes make no sense.
pub fn find<'a>(mut bytes: &'a [u8], owner: &[u8], kind: u32) -> Option<&'a [u8]> {
    loop {
        let (head, rest) = bytes.split_first_chunk::<12>()?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (owner_len, len) = (word(0) as usize, word(4) as usize);
        let name = rest.get(..owner_len)?;
        let rest = rest.get(owner_len.next_multiple_of(ALIGN)..)?;
        let description = rest.get(..len)?;
        if name == owner && word(8) == kind {
            return Some(description);
        }
        bytes = rest.get(len.next_multiple_of(ALIGN)..)?;
    }
}
