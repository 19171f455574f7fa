//! The records of `getdents64` (`struct linux_dirent64`): [`list`].
//!
//! Positions of an open directory: 0 before `.`, 1 before `..`, 2 + the file system's own position after that.

use crate::inode::{DirEntry, FileType, Node};
use crate::{Errno, Result};

const HEADER: usize = 19;

/// Fills `out` from `position` on; answers bytes used and the new position.
pub fn list(node: &Node, position: u64, out: &mut [u8]) -> Result<(usize, u64)> {
    let mut writer = Writer {
        out,
        used: 0,
        position,
        full: false,
    };
    if writer.position == 0 {
        writer.put(&DirEntry {
            ino: node.ino(),
            next: 1,
            kind: FileType::Directory,
            name: b".",
        });
    }
    if writer.position == 1 && !writer.full {
        let parent = node.place().map_or(node.ino(), |(parent, _)| parent.ino());
        writer.put(&DirEntry {
            ino: parent,
            next: 2,
            kind: FileType::Directory,
            name: b"..",
        });
    }
    if writer.position >= 2 && !writer.full {
        node.readdir(writer.position - 2, &mut |entry| {
            writer.put(&DirEntry {
                next: entry.next + 2,
                ..entry
            })
        })?;
    }
    if writer.used == 0 && writer.full {
        return Err(Errno::EINVAL);
    }
    Ok((writer.used, writer.position))
}

struct Writer<'a> {
    out: &'a mut [u8],
    used: usize,
    position: u64,
    full: bool,
}

impl Writer<'_> {
    /// Appends a record; false when it does not fit.
    fn put(&mut self, entry: &DirEntry<'_>) -> bool {
        let len = (HEADER + entry.name.len() + 1).next_multiple_of(8);
        let Some(record) = self.out.get_mut(self.used..self.used + len) else {
            self.full = true;
            return false;
        };
        record[..8].copy_from_slice(&entry.ino.to_le_bytes());
        record[8..16].copy_from_slice(&entry.next.to_le_bytes());
        record[16..18].copy_from_slice(&(len as u16).to_le_bytes());
        record[18] = entry.kind.dirent();
        record[HEADER..HEADER + entry.name.len()].copy_from_slice(entry.name);
        record[HEADER + entry.name.len()..].fill(0);
        self.used += len;
        self.position = entry.next;
        true
    }
}
