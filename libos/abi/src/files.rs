//! The index of an image's packed files: what the library OS reads to find one, so that a start costs the same whatever is packed.
//!
//! The linker writes it beside the archive: [`FileEntry`]s of [`ENTRY_LEN`] bytes, then the names one after the other. Entry 0 is
//! the root. The children of a directory are neighbours, in byte order of their names. The root's own name is empty and
//! stands right behind the entries, so its place says how many there are.

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 32;

/// A packed file, directory or symbolic link; all numbers little-endian, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileEntry {
    /// Where its bytes (of a link: its target) begin in the archive; of a directory: the index of its first child.
    pub start: u64,
    /// How many bytes; of a directory: how many children.
    pub len: u32,
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Time of the last change, seconds since 1970.
    pub mtime: u32,
    /// Where its name begins in the index.
    pub name: u32,
    /// Bytes of its name.
    pub name_len: u32,
    /// Of a directory: how many of its children are directories.
    pub directories: u32,
}

impl FileEntry {
    /// The entry as it stands in an image.
    pub fn to_bytes(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        let rest = [
            self.len,
            self.mode,
            self.mtime,
            self.name,
            self.name_len,
            self.directories,
        ];
        for (to, field) in bytes[8..].chunks_exact_mut(4).zip(rest) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Entry `number` of an index; `None` where the index is too short.
    pub fn read(index: &[u8], number: u32) -> Option<Self> {
        let at = (number as usize).checked_mul(ENTRY_LEN)?;
        let bytes = index.get(at..at.checked_add(ENTRY_LEN)?)?;
        let field = |n: usize| {
            let at = 8 + 4 * n;
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        Some(Self {
            start: u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
            len: field(0)?,
            mode: field(1)?,
            mtime: field(2)?,
            name: field(3)?,
            name_len: field(4)?,
            directories: field(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_went() {
        let entry = FileEntry {
            start: 1 << 40 | 7,
            len: 2,
            mode: 0o100_644,
            mtime: u32::MAX,
            name: 5,
            name_len: 255,
            directories: 6,
        };
        let index = [[0; ENTRY_LEN], entry.to_bytes()].concat();
        assert_eq!(FileEntry::read(&index, 1), Some(entry));
        assert_eq!(FileEntry::read(&index, 0), Some(FileEntry::default()));
        assert_eq!(FileEntry::read(&index[..63], 1), None);
        assert_eq!(FileEntry::read(&index, u32::MAX), None);
    }
}
