//! The packed file tree: a cpio archive in the "newc" format (as an initramfs), read in place ([`Packed`]).
//!
//! Building the index reads the headers alone, never file data: 24 bytes of memory an entry. Directories that the archive does not
//! name are made up (mode 755). Names may be given as `a/b`, `/a/b` or `./a/b`; a later entry replaces an earlier one of the same name.
//! Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::inode::FileType;

const HEADER: usize = 110;
/// Index of the root directory.
pub const ROOT: u32 = 0;
const NO_HEADER: u64 = u64::MAX;

/// An archive and its index.
pub struct Packed {
    archive: &'static [u8],
    entries: Vec<Entry>,
    /// Children of all directories, grouped by directory, sorted by name.
    children: Vec<u32>,
    complete: bool,
    groups: Groups,
}

/// Files with several names: (offset of the header all of them show) -> group.
type Groups = BTreeMap<u64, LinkGroup>;

/// The names of one packed file.
#[derive(Clone, Copy, Debug)]
pub struct LinkGroup {
    /// The first of the objects: stands for all.
    pub first: u32,
    /// How many there are.
    pub names: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Offset of the header that describes it.
    header: u64,
    /// Offset and length of its last path component.
    name: u64,
    name_len: u16,
    mode: u16,
    first_child: u32,
    child_count: u32,
    /// The archive says that its file has several names.
    linked: bool,
}

/// Attributes of a packed object.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Kind and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Device number of a device node, in `st_rdev` encoding.
    pub rdev: u64,
    /// File bytes or link text.
    pub data: &'static [u8],
}

/// One parsed header.
struct Record {
    header: u64,
    name: (u64, usize),
    data: (u64, usize),
    next: u64,
}

impl Packed {
    /// Indexes `archive`. A damaged archive shows what stands before the damage ([`Self::is_complete`] tells).
    pub fn new(archive: &'static [u8]) -> Self {
        let (paths, complete) = sorted_paths(archive);
        let mut builder = Builder::new(archive, paths.len());
        for &(path, header) in &paths {
            builder.add(path, header);
        }
        builder.finish(complete)
    }

    /// Whether the archive was empty or ended with its trailer record.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Number of objects, the root among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Attributes and data of object `index`.
    pub fn info(&self, index: u32) -> Info {
        let entry = &self.entries[index as usize];
        let mut info = Info {
            mode: u32::from(entry.mode),
            uid: 0,
            gid: 0,
            mtime: 0,
            rdev: 0,
            data: &[],
        };
        if let Some(record) = Record::parse(self.archive, entry.header) {
            let field = |n| record.field(self.archive, n);
            info.uid = field(2);
            info.gid = field(3);
            info.mtime = i64::from(field(5));
            info.rdev = crate::dev::makedev(field(9), field(10));
            info.data = &self.archive[record.data.0 as usize..][..record.data.1];
        }
        info
    }

    /// The group that object `index` belongs to, when its file has several names.
    pub fn link_group(&self, index: u32) -> Option<LinkGroup> {
        if self.groups.is_empty() {
            return None;
        }
        self.groups
            .get(&self.entries[index as usize].header)
            .copied()
    }

    /// Kind of object `index`, from the index alone.
    pub fn kind(&self, index: u32) -> FileType {
        FileType::from_mode(u32::from(self.entries[index as usize].mode))
            .unwrap_or(FileType::Regular)
    }

    /// Name of object `index` in its directory.
    pub fn name(&self, index: u32) -> &'static [u8] {
        let entry = &self.entries[index as usize];
        &self.archive[entry.name as usize..][..usize::from(entry.name_len)]
    }

    /// Children of directory `index`, sorted by name.
    pub fn children(&self, index: u32) -> &[u32] {
        let entry = &self.entries[index as usize];
        &self.children[entry.first_child as usize..][..entry.child_count as usize]
    }

    /// Position of `name` among the children of directory `index`.
    pub fn find(&self, index: u32, name: &[u8]) -> Option<usize> {
        self.children(index)
            .binary_search_by(|&child| self.name(child).cmp(name))
            .ok()
    }
}

impl Record {
    fn parse(archive: &'static [u8], at: u64) -> Option<Self> {
        let start = usize::try_from(at).ok()?;
        let header = archive.get(start..start.checked_add(HEADER)?)?;
        if &header[..6] != b"070701" && &header[..6] != b"070702" {
            return None;
        }
        let (name_size, data_size) = (
            hex(&header[94..102])? as usize,
            hex(&header[54..62])? as usize,
        );
        let name = start + HEADER;
        let data = (name.checked_add(name_size)?).checked_next_multiple_of(4)?;
        let end = data.checked_add(data_size)?;
        if end > archive.len() {
            return None;
        }
        Some(Self {
            header: at,
            name: (name as u64, name_size),
            data: (data as u64, data_size),
            next: end.next_multiple_of(4) as u64,
        })
    }

    /// Header field `n` (0: ino, 1: mode, 2: uid, 3: gid, 4: nlink, 5: mtime, 6: filesize, 7, 8: dev, 9, 10: rdev).
    fn field(&self, archive: &[u8], n: usize) -> u32 {
        let start = self.header as usize + 6 + n * 8;
        hex(&archive[start..start + 8]).unwrap_or(0)
    }

    /// The name up to its first NUL (further NULs align the data).
    fn path(&self, archive: &'static [u8]) -> &'static [u8] {
        let name = &archive[self.name.0 as usize..][..self.name.1];
        &name[..name.iter().position(|&b| b == 0).unwrap_or(name.len())]
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| {
        Some(value << 4 | (digit as char).to_digit(16)?)
    })
}

/// All paths with their header offsets, sorted so that a directory stands before its contents; of equal paths the last of the archive.
fn sorted_paths(archive: &'static [u8]) -> (Vec<(&'static [u8], u64)>, bool) {
    let mut paths = Vec::new();
    let mut complete = archive.is_empty();
    let mut links: Vec<((u32, u32, u32), u64)> = Vec::new();
    let mut at = 0;
    while let Some(record) = Record::parse(archive, at) {
        at = record.next;
        let path = record.path(archive);
        if path == b"TRAILER!!!" {
            complete = true;
            break;
        }
        if record.field(archive, 4) > 1 && record.field(archive, 1) & 0o170_000 == 0o100_000 {
            links.push((
                (
                    record.field(archive, 0),
                    record.field(archive, 7),
                    record.field(archive, 8),
                ),
                record.header,
            ));
        }
        if let Some(path) = clean(path) {
            paths.push((path, record.header));
        }
    }
    share_link_data(archive, &mut paths, links);
    paths.sort_by(|a, b| compare(a.0, b.0));
    let mut unique: Vec<(&'static [u8], u64)> = Vec::with_capacity(paths.len());
    for entry in paths {
        match unique.last_mut() {
            Some(last) if last.0 == entry.0 => *last = entry,
            _ => unique.push(entry),
        }
    }
    (unique, complete)
}

/// Of files with several names only one record carries the data: all the others show that record.
fn share_link_data(
    archive: &'static [u8],
    paths: &mut [(&'static [u8], u64)],
    mut links: Vec<((u32, u32, u32), u64)>,
) {
    if links.is_empty() {
        return;
    }
    links.sort_unstable();
    for entry in paths {
        let Some(&(id, _)) = links.iter().find(|link| link.1 == entry.1) else {
            continue;
        };
        let group = links.iter().filter(|link| link.0 == id);
        let size = |header| Record::parse(archive, header).map_or(0, |record| record.data.1);
        entry.1 = group
            .map(|link| link.1)
            .max_by_key(|&header| size(header))
            .unwrap_or(entry.1);
    }
}

/// Without leading `/` and `./` and without trailing slashes; `None` for a path with `..`, empty or over-long components.
fn clean(path: &'static [u8]) -> Option<&'static [u8]> {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    if path == b"." || path.is_empty() {
        return Some(b"");
    }
    let good = path
        .split(|&b| b == b'/')
        .all(|part| !matches!(part, b"" | b"." | b"..") && part.len() <= 255);
    good.then_some(path)
}

/// Order of components, so that `a/b` comes before `a.x`.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let mut pairs = a.iter().zip(b);
    match pairs.find(|(x, y)| x != y) {
        None => a.len().cmp(&b.len()),
        Some((b'/', _)) => Ordering::Less,
        Some((_, b'/')) => Ordering::Greater,
        Some((x, y)) => x.cmp(y),
    }
}

/// The headers that several entries show.
fn groups(entries: &[Entry]) -> Groups {
    let mut headers: Vec<(u64, u32)> = (0u32..)
        .zip(entries)
        .filter(|(_, entry)| entry.linked)
        .map(|(index, entry)| (entry.header, index))
        .collect();
    headers.sort_unstable();
    let mut groups = Groups::new();
    for (header, first) in headers {
        groups
            .entry(header)
            .or_insert(LinkGroup { first, names: 0 })
            .names += 1;
    }
    groups
}

/// Builds the index from paths in directory-first order.
struct Builder {
    archive: &'static [u8],
    entries: Vec<Entry>,
    parents: Vec<u32>,
    /// The chain of open directories: (length of path, index).
    open: Vec<(usize, u32)>,
    path: &'static [u8],
}

impl Builder {
    fn new(archive: &'static [u8], count: usize) -> Self {
        let mut entries = Vec::with_capacity(count + 1);
        entries.push(Entry {
            header: NO_HEADER,
            name: 0,
            name_len: 0,
            mode: 0o040_755,
            first_child: 0,
            child_count: 0,
            linked: false,
        });
        Self {
            archive,
            entries,
            parents: alloc::vec![ROOT],
            open: alloc::vec![(0, ROOT)],
            path: b"",
        }
    }

    fn add(&mut self, path: &'static [u8], header: u64) {
        if path.is_empty() {
            self.entries[0].header = header;
            self.entries[0].mode = 0o040_000 | (self.mode(header) & 0o7777);
            return;
        }
        while let Some(&(len, _)) = self.open.last()
            && len > 0
            && !(path.len() > len && path[len] == b'/' && path[..len] == self.path[..len])
        {
            self.open.pop();
        }
        let start = self
            .open
            .last()
            .map_or(0, |&(len, _)| if len == 0 { 0 } else { len + 1 });
        for (offset, _) in path[start..]
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
        {
            self.push(path, start + offset, NO_HEADER, 0o040_755);
        }
        let mode = self.mode(header);
        self.push(path, path.len(), header, mode);
    }

    fn mode(&self, header: u64) -> u16 {
        Record::parse(self.archive, header).map_or(0, |record| record.field(self.archive, 1) as u16)
    }

    fn is_linked(&self, header: u64) -> bool {
        Record::parse(self.archive, header).is_some_and(|record| {
            record.field(self.archive, 4) > 1
                && record.field(self.archive, 1) & 0o170_000 == 0o100_000
        })
    }

    /// Adds `path[..end]` below the innermost open directory; nothing is added below a file.
    fn push(&mut self, path: &'static [u8], end: usize, header: u64, mode: u16) {
        let Some(&(parent_len, parent)) = self.open.last() else {
            return;
        };
        let start = if parent_len == 0 { 0 } else { parent_len + 1 };
        if path[start..end].contains(&b'/')
            || self.entries[parent as usize].mode & 0o170_000 != 0o040_000
        {
            return;
        }
        let name = path.as_ptr() as usize + start - self.archive.as_ptr() as usize;
        let index = self.entries.len() as u32;
        let name_len = (end - start) as u16;
        self.entries.push(Entry {
            header,
            name: name as u64,
            name_len,
            mode,
            first_child: 0,
            child_count: 0,
            linked: self.is_linked(header),
        });
        self.parents.push(parent);
        self.entries[parent as usize].child_count += 1;
        self.open.push((end, index));
        self.path = path;
    }

    /// Groups the children: entries stand in order of path, so each directory meets its own in order of name.
    fn finish(mut self, complete: bool) -> Packed {
        let mut next = 0;
        for entry in &mut self.entries {
            entry.first_child = next;
            next += entry.child_count;
            entry.child_count = 0;
        }
        let mut children = alloc::vec![0; next as usize];
        for (index, &parent) in self.parents.iter().enumerate().skip(1) {
            let directory = &mut self.entries[parent as usize];
            children[(directory.first_child + directory.child_count) as usize] = index as u32;
            directory.child_count += 1;
        }
        let groups = groups(&self.entries);
        Packed {
            archive: self.archive,
            entries: self.entries,
            children,
            complete,
            groups,
        }
    }
}
