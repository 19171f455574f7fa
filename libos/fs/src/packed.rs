//! The packed file tree ([`Packed`]): an archive and its index, both in the image, both read in place.
//!
//! Costs nothing until somebody looks: the image linker made the index (format in [`unik_abi::files`]). Damaged entries show as
//! empty files, never as anything outside the archive.

use core::ops::Range;

use unik_abi::files::{ENTRY_LEN, FileEntry};

use crate::inode::FileType;

/// Index of the root directory.
pub const ROOT: u32 = 0;

/// Packed files; the default is an empty tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    index: &'static [u8],
    archive: &'static [u8],
}

/// Attributes of a packed object.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Kind.
    pub kind: FileType,
    /// Permissions.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// File bytes or link text.
    pub data: &'static [u8],
}

impl Packed {
    /// The files of `archive` as `index` names them.
    pub fn new(index: &'static [u8], archive: &'static [u8]) -> Self {
        Self { index, archive }
    }

    /// Number of objects, the root among them.
    pub fn count(&self) -> u32 {
        // The root's name stands right behind the entries.
        let end = FileEntry::read(self.index, ROOT).map_or(0, |root| root.name as usize);
        (end.min(self.index.len()) / ENTRY_LEN).max(1) as u32
    }

    fn entry(&self, index: u32) -> FileEntry {
        let nothing = || FileEntry {
            mode: if index == ROOT { 0o040_755 } else { 0o100_000 },
            ..FileEntry::default()
        };
        FileEntry::read(self.index, index).unwrap_or_else(nothing)
    }

    /// Attributes and data of object `index`.
    pub fn info(&self, index: u32) -> Info {
        let entry = self.entry(index);
        let kind = kind(&entry);
        let data = match kind {
            FileType::Directory => &[],
            _ => piece(self.archive, entry.start, entry.len),
        };
        Info {
            kind,
            mode: entry.mode & 0o7777,
            mtime: i64::from(entry.mtime),
            data,
        }
    }

    /// Kind of object `index`.
    pub fn kind(&self, index: u32) -> FileType {
        kind(&self.entry(index))
    }

    /// Name of object `index` in its directory.
    pub fn name(&self, index: u32) -> &'static [u8] {
        let entry = self.entry(index);
        piece(self.index, entry.name.into(), entry.name_len)
    }

    /// Children of directory `index`, in order of their names.
    pub fn children(&self, index: u32) -> Range<u32> {
        let (entry, count) = (self.entry(index), self.count());
        if kind(&entry) != FileType::Directory {
            return 0..0;
        }
        let first = entry.start.min(count.into()) as u32;
        first..first.saturating_add(entry.len).min(count)
    }

    /// How many children of directory `index` are directories.
    pub fn subdirectories(&self, index: u32) -> u32 {
        self.entry(index).directories
    }

    /// The child `name` of directory `index`.
    pub fn find(&self, index: u32, name: &[u8]) -> Option<u32> {
        let Range { mut start, mut end } = self.children(index);
        while start < end {
            let middle = start + (end - start) / 2;
            match self.name(middle).cmp(name) {
                core::cmp::Ordering::Equal => return Some(middle),
                core::cmp::Ordering::Less => start = middle + 1,
                core::cmp::Ordering::Greater => end = middle,
            }
        }
        None
    }
}

/// What an entry is: a file unless it is a directory or a link.
fn kind(entry: &FileEntry) -> FileType {
    match FileType::from_mode(entry.mode) {
        Some(kind @ (FileType::Directory | FileType::Symlink)) => kind,
        _ => FileType::Regular,
    }
}

fn piece(bytes: &'static [u8], start: u64, len: u32) -> &'static [u8] {
    usize::try_from(start)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(len as usize)?))
        .unwrap_or(&[])
}
