//! The index of the packed files ([`unik_abi::files`]): [`write`] makes it from the archive's sorted list.

use std::collections::BTreeMap;

use unik_abi::files::{ENTRY_LEN, FileEntry};

use crate::cpio::{S_IFDIR, S_IFMT};

/// One packed object, without its parent directories' names.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'a> {
    /// Path from the root, without a leading slash.
    pub path: &'a str,
    /// Where its data begins in the archive.
    pub start: u64,
    /// Bytes of data.
    pub len: u32,
    /// File type and permissions.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

impl Indexed<'_> {
    fn is_directory(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

/// The index of `objects`, which are sorted by path and include every directory but the root.
pub fn write(objects: &[Indexed<'_>]) -> Vec<u8> {
    let mut children: BTreeMap<&str, Vec<Indexed<'_>>> = BTreeMap::new();
    for object in objects {
        children.entry(object.parent()).or_default().push(*object);
    }
    let root = Indexed {
        path: "",
        start: 0,
        len: 0,
        mode: S_IFDIR | 0o755,
        mtime: objects.iter().map(|o| o.mtime).max().unwrap_or(0),
    };
    // Level by level, so that siblings become neighbours.
    let mut order = vec![root];
    let mut entries: Vec<FileEntry> = Vec::with_capacity(objects.len() + 1);
    while let Some(object) = order.get(entries.len()).copied() {
        let mut entry = FileEntry {
            start: object.start,
            len: object.len,
            mode: object.mode,
            mtime: object.mtime,
            ..FileEntry::default()
        };
        if object.is_directory() {
            let below = children.remove(object.path).unwrap_or_default();
            (entry.start, entry.len) = (order.len() as u64, below.len() as u32);
            entry.directories = below.iter().filter(|o| o.is_directory()).count() as u32;
            order.extend(below);
        }
        entries.push(entry);
    }
    let mut index = Vec::new();
    let mut name = (entries.len() * ENTRY_LEN) as u32;
    for (mut entry, object) in entries.into_iter().zip(&order) {
        (entry.name, entry.name_len) = (name, object.name().len() as u32);
        name += entry.name_len;
        index.extend_from_slice(&entry.to_bytes());
    }
    order
        .iter()
        .for_each(|o| index.extend_from_slice(o.name().as_bytes()));
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_neighbours_in_order() {
        let object = |path, mode, start| Indexed {
            path,
            start,
            len: 9,
            mode,
            mtime: start as u32,
        };
        let index = write(&[
            object("a", S_IFDIR | 0o700, 0),
            object("a.x", 0o100_644, 11),
            object("a/b", S_IFDIR | 0o755, 0),
            object("a/b/deep", 0o100_644, 12),
            object("a/c", 0o120_777, 13),
            object("z", 0o100_644, 14),
        ]);
        let entry = |n| FileEntry::read(&index, n).unwrap();
        let name = |n| {
            let e = entry(n);
            std::str::from_utf8(&index[e.name as usize..][..e.name_len as usize]).unwrap()
        };
        let names: Vec<_> = (0..7).map(name).collect();
        assert_eq!(names, ["", "a", "a.x", "z", "b", "c", "deep"]);
        let root = entry(0);
        assert_eq!((root.start, root.len, root.directories), (1, 3, 1));
        assert_eq!((root.name as usize, root.mtime), (7 * ENTRY_LEN, 14));
        assert_eq!(
            (entry(1).start, entry(1).len, entry(1).mode),
            (4, 2, 0o040_700)
        );
        assert_eq!((entry(4).start, entry(4).len), (6, 1));
        assert_eq!((entry(6).start, entry(6).len), (12, 9));
    }
}
