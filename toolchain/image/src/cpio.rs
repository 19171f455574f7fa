//! Packs files into a cpio archive in the "newc" format (the format of an initramfs), and reads such archives.
//!
//! The archive is sorted by path, holds every parent directory, and depends on nothing but its inputs. The data of each file starts at
//! a page boundary (relative to the archive's start), so that the library OS can map it: the name is padded with NULs until it does.
//! Source: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unik_abi::PAGE_SIZE;

use crate::files_index::{self, Indexed};

const MAGIC: &[u8; 6] = b"070701";
const HEADER_LEN: usize = 110;
const TRAILER: &str = "TRAILER!!!";
pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
/// Linux's PATH_MAX and NAME_MAX.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// Something to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFile {
    /// Path inside the guest, absolute or relative to `/`.
    pub path: String,
    /// What it is, with its content.
    pub kind: PackedKind,
    /// Permission bits (`0o644`, ...).
    pub mode: u32,
    /// Modification time, seconds since 1970; later than 2106 is cut.
    pub mtime: u64,
}

/// What a packed file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackedKind {
    /// A regular file.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(String),
}

/// Why files cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the paths in the sentences")]
pub enum PackError {
    /// Empty, with `..`, NUL or too long.
    #[error(
        "cannot pack {path:?}: a path in an image has no empty name, no `..`, no NUL, and at most 4095 bytes"
    )]
    Path { path: String },
    /// Two entries for one path.
    #[error("two files want to be {path} in the image: leave one out")]
    Twice { path: String },
    /// A file is used as a directory.
    #[error("{path} is a file or link, but other files lie below it: leave one out")]
    NotDirectory { path: String },
    /// 4 GiB or more.
    #[error("{path} has {len} bytes: a packed file has less than 4 GiB; give it by `-v` instead")]
    TooLarge { path: String, len: usize },
    /// A link to nothing or too far.
    #[error("the link {path} has no usable target: at most 4095 bytes without NUL")]
    Link { path: String },
}

/// Packed files; both parts are empty when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its index, in the format of `unik_abi::files`.
    pub index: Vec<u8>,
}

/// Writes the archive and its index.
pub fn write(files: &[PackedFile]) -> Result<Archive, PackError> {
    let entries = entries(files)?;
    if entries.is_empty() {
        return Ok(Archive::default());
    }
    let size: usize = entries
        .values()
        .map(|e| e.data.len() + 2 * PAGE_SIZE as usize)
        .sum();
    let mut out = Vec::with_capacity(size);
    let mut indexed = Vec::with_capacity(entries.len());
    for (inode, (path, entry)) in entries.iter().enumerate() {
        let start = put(&mut out, path, entry, inode as u32 + 1);
        indexed.push(Indexed {
            path,
            start: start as u64,
            len: entry.data.len() as u32,
            mode: entry.mode,
            mtime: seconds(entry.mtime),
        });
    }
    put(
        &mut out,
        TRAILER,
        &Entry {
            mode: 0,
            mtime: 0,
            data: &[],
        },
        0,
    );
    Ok(Archive {
        bytes: out,
        index: files_index::write(&indexed),
    })
}

struct Entry<'a> {
    mode: u32,
    mtime: u64,
    data: &'a [u8],
}

fn entries(files: &[PackedFile]) -> Result<BTreeMap<String, Entry<'_>>, PackError> {
    let mut entries = BTreeMap::new();
    for file in files {
        let path = normal(&file.path)?;
        let entry = entry(file, &path)?;
        if entries.contains_key(&path) {
            return Err(PackError::Twice { path });
        }
        entries.insert(path, entry);
    }
    // Parents that nobody gave: as new as the newest file below.
    let mut parents: BTreeMap<String, u64> = BTreeMap::new();
    for (path, entry) in &entries {
        for (at, _) in path.match_indices('/') {
            let time = parents.entry(path[..at].to_owned()).or_default();
            *time = (*time).max(entry.mtime);
        }
    }
    for (path, mtime) in parents {
        let made = Entry {
            mode: S_IFDIR | 0o755,
            mtime,
            data: &[],
        };
        if entries.entry(path.clone()).or_insert(made).mode & S_IFMT != S_IFDIR {
            return Err(PackError::NotDirectory { path });
        }
    }
    Ok(entries)
}

fn entry<'a>(file: &'a PackedFile, path: &str) -> Result<Entry<'a>, PackError> {
    let (kind, data) = match &file.kind {
        PackedKind::File(data) => (S_IFREG, data.as_slice()),
        PackedKind::Directory => (S_IFDIR, &[][..]),
        PackedKind::Symlink(target)
            if target.is_empty() || target.len() > MAX_PATH || target.contains('\0') =>
        {
            return Err(PackError::Link {
                path: path.to_owned(),
            });
        }
        PackedKind::Symlink(target) => (S_IFLNK, target.as_bytes()),
    };
    if u32::try_from(data.len()).is_err() {
        return Err(PackError::TooLarge {
            path: path.to_owned(),
            len: data.len(),
        });
    }
    Ok(Entry {
        mode: kind | file.mode & 0o7777,
        mtime: file.mtime,
        data,
    })
}

/// The path without leading slash, `.` and doubled slashes.
fn normal(path: &str) -> Result<String, PackError> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|n| !n.is_empty() && *n != ".")
        .collect();
    let wrong = |n: &&str| *n == ".." || n.contains('\0') || n.len() > MAX_NAME;
    let normal = names.join("/");
    if names.is_empty() || names.iter().any(wrong) || normal.len() > MAX_PATH || normal == TRAILER {
        return Err(PackError::Path {
            path: path.to_owned(),
        });
    }
    Ok(normal)
}

/// Appends a record; returns where its data begins.
fn put(out: &mut Vec<u8>, path: &str, entry: &Entry<'_>, inode: u32) -> usize {
    let name_at = out.len() + HEADER_LEN;
    let name_end = name_at + path.len() + 1;
    let map = entry.mode & S_IFMT == S_IFREG && !entry.data.is_empty();
    let data_at = name_end.next_multiple_of(if map { PAGE_SIZE as usize } else { 4 });
    // Other entries keep the usual name length: their padding up to 4 bytes is not part of the name.
    let name_len = if map {
        data_at - name_at
    } else {
        path.len() + 1
    };
    let links = if entry.mode & S_IFMT == S_IFDIR { 2 } else { 1 };
    let fields = [
        inode,
        entry.mode,
        0,
        0,
        links,
        seconds(entry.mtime),
        entry.data.len() as u32,
        0,
        0,
        0,
        0,
        name_len as u32,
        0,
    ];
    out.extend_from_slice(MAGIC);
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.resize(data_at, 0);
    out.extend_from_slice(entry.data);
    out.resize(out.len().next_multiple_of(4), 0);
    data_at
}

fn seconds(mtime: u64) -> u32 {
    u32::try_from(mtime).unwrap_or(u32::MAX)
}

/// What an archive says about one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path from the root, without a leading slash.
    pub path: String,
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Bytes.
    pub size: u32,
    /// Target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
}

/// Lists an archive up to its trailer; `None` when it is damaged.
pub fn list(archive: &[u8]) -> Option<Vec<ListedFile>> {
    let mut files = Vec::new();
    let mut at = 0usize;
    if archive.is_empty() {
        return Some(files);
    }
    loop {
        let header = archive.get(at..at.checked_add(HEADER_LEN)?)?;
        if &header[..6] != MAGIC {
            return None;
        }
        let field = |i: usize| {
            u32::from_str_radix(
                std::str::from_utf8(&header[6 + 8 * i..14 + 8 * i]).ok()?,
                16,
            )
            .ok()
        };
        let (mode, mtime, size, name_len) = (field(1)?, field(5)?, field(6)?, field(11)? as usize);
        let name_at = at + HEADER_LEN;
        let name = archive.get(name_at..name_at.checked_add(name_len)?)?;
        let path = String::from_utf8_lossy(name.split(|&b| b == 0).next()?).into_owned();
        if path == TRAILER {
            return Some(files);
        }
        let data_at = (name_at + name_len).next_multiple_of(4);
        let data = archive.get(data_at..data_at.checked_add(size as usize)?)?;
        let target = (mode & S_IFMT == S_IFLNK).then(|| String::from_utf8_lossy(data).into_owned());
        files.push(ListedFile {
            path,
            mode,
            mtime,
            size,
            target,
        });
        at = (data_at + data.len()).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, data: &[u8], mtime: u64) -> PackedFile {
        PackedFile {
            path: path.into(),
            kind: PackedKind::File(data.into()),
            mode: 0o644,
            mtime,
        }
    }

    #[test]
    fn data_is_aligned_sorted_and_has_parents() {
        let link = PackedFile {
            path: "etc/link".into(),
            kind: PackedKind::Symlink("a".into()),
            mode: 0o777,
            mtime: 5,
        };
        let files = [
            file("/usr/share/b", &[7; 5000], 3),
            file("etc//./a", b"hello", 9),
            link,
            file("etc/empty", b"", 1),
        ];
        let written = write(&files).unwrap();
        let mut turned = files.clone();
        turned.reverse();
        assert_eq!(written, write(&turned).unwrap());
        let archive = written.bytes;
        let listed = list(&archive).unwrap();
        let lines: Vec<_> = listed
            .iter()
            .map(|f| format!("{} {:o} {} {}", f.path, f.mode, f.mtime, f.size))
            .collect();
        assert_eq!(
            lines,
            [
                "etc 40755 9 0",
                "etc/a 100644 9 5",
                "etc/empty 100644 1 0",
                "etc/link 120777 5 1",
                "usr 40755 3 0",
                "usr/share 40755 3 0",
                "usr/share/b 100644 3 5000"
            ]
        );
        assert_eq!(listed[3].target.as_deref(), Some("a"));
        let hello = memchr::memmem::find(&archive, b"hello").unwrap();
        let sevens = memchr::memmem::find(&archive, &[7; 5000]).unwrap();
        assert_eq!((hello % 4096, sevens % 4096), (0, 0));
    }

    #[test]
    fn odd_paths_are_refused() {
        for path in ["", "/", "a/../b", "a\0b", "TRAILER!!!", &"x".repeat(256)] {
            assert!(
                matches!(write(&[file(path, b"", 0)]), Err(PackError::Path { .. })),
                "{path:?}"
            );
        }
        assert!(matches!(
            write(&[file("a", b"", 0), file("/a", b"", 0)]),
            Err(PackError::Twice { .. })
        ));
        assert!(matches!(
            write(&[file("a", b"", 0), file("a/b", b"", 0)]),
            Err(PackError::NotDirectory { .. })
        ));
    }

    #[test]
    fn a_cut_archive_is_none_not_a_panic() {
        let archive = write(&[file("a/b", &[1; 100], 0)]).unwrap().bytes;
        for len in 1..archive.len() {
            let listed = list(&archive[..len]);
            assert!(listed.is_none() || len > archive.len() - 8, "{len}");
        }
    }
}
