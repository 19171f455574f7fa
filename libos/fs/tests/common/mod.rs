//! A machine for the tests: pages in a vector, a clock that ticks, and a maker of packed trees.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::rc::Rc;

use unik_abi::files::{ENTRY_LEN, FileEntry};
use unik_fs::fdtable::FdTable;
use unik_fs::linux_raw_sys::general as linux;
use unik_fs::packed::Packed;
use unik_fs::system::{Frame, PAGE, PageSource, System, Time};
use unik_fs::tree::{self, Plan};
use unik_fs::vfs::{AT_FDCWD, OpenHow, Vfs};

/// Pages on the heap, counted.
#[derive(Default)]
pub struct Machine {
    pages: RefCell<Vec<Option<Box<[u8; PAGE]>>>>,
    free: RefCell<Vec<usize>>,
    references: RefCell<Vec<u32>>,
    pub live: Cell<usize>,
    pub limit: Cell<Option<usize>>,
    clock: Cell<u64>,
    pub unmapped: RefCell<Vec<Range<u64>>>,
}

impl PageSource for Machine {
    fn alloc(&self, _zeroed: bool) -> Option<Frame> {
        if self
            .limit
            .get()
            .is_some_and(|limit| self.live.get() >= limit)
        {
            return None;
        }
        self.live.set(self.live.get() + 1);
        let page = Some(Box::new([if _zeroed { 0 } else { 0xaa }; PAGE]));
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                self.pages.borrow_mut()[index] = page;
                index
            }
            None => {
                self.pages.borrow_mut().push(page);
                self.references.borrow_mut().push(0);
                self.pages.borrow().len() - 1
            }
        };
        self.references.borrow_mut()[index] = 1;
        Some(Frame(NonZeroU64::new(index as u64 + 1).unwrap()))
    }

    fn retain(&self, frame: Frame) {
        self.references.borrow_mut()[frame.0.get() as usize - 1] += 1;
    }

    fn release(&self, frame: Frame) {
        let index = frame.0.get() as usize - 1;
        let mut references = self.references.borrow_mut();
        references[index] -= 1;
        if references[index] == 0 {
            self.pages.borrow_mut()[index] = None;
            self.free.borrow_mut().push(index);
            self.live.set(self.live.get() - 1);
        }
    }

    fn read(&self, frame: Frame, offset: usize, out: &mut [u8]) {
        let pages = self.pages.borrow();
        out.copy_from_slice(
            &pages[frame.0.get() as usize - 1].as_ref().unwrap()[offset..offset + out.len()],
        );
    }

    fn write(&self, frame: Frame, offset: usize, data: &[u8]) {
        let mut pages = self.pages.borrow_mut();
        pages[frame.0.get() as usize - 1].as_mut().unwrap()[offset..offset + data.len()]
            .copy_from_slice(data);
    }

    fn zero(&self, frame: Frame, offset: usize, len: usize) {
        let mut pages = self.pages.borrow_mut();
        pages[frame.0.get() as usize - 1].as_mut().unwrap()[offset..offset + len].fill(0);
    }
}

impl System for Machine {
    fn now(&self) -> Time {
        self.clock.set(self.clock.get() + 1000);
        Time::from_ns(1_800_000_000_000_000_000 + self.clock.get())
    }

    fn unmap(&self, _dev: u64, _ino: u64, pages: Range<u64>) {
        self.unmapped.borrow_mut().push(pages);
    }

    fn fill_random(&self, out: &mut [u8]) {
        self.clock.set(self.clock.get() + 1);
        let mut state = self.clock.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for byte in out {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
    }
}

/// An object of a packed tree: path, type and permissions, data.
pub type Record<'a> = (&'a str, u32, &'a [u8]);

/// A packed tree as the image linker would make it, leaked so that it is `'static`, the archive and its data page-aligned.
pub fn packed(records: &[Record<'_>]) -> Packed {
    let mut tree: BTreeMap<&str, (u32, &[u8])> = BTreeMap::new();
    for &(path, mode, data) in records {
        for (at, _) in path.match_indices('/') {
            tree.entry(&path[..at]).or_insert((0o040_755, b""));
        }
        tree.insert(path, (mode, data));
    }
    let parent = |path: &str| {
        path.rsplit_once('/')
            .map_or("", |(parent, _)| parent)
            .to_owned()
    };
    let is_directory = |mode: u32| mode & 0o170_000 == 0o040_000;
    let (mut order, mut entries, mut data) =
        (vec![("", (0o040_755, &b""[..]))], Vec::new(), Vec::new());
    while let Some(&(path, (mode, bytes))) = order.get(entries.len()) {
        let mut entry = FileEntry {
            start: data.len() as u64,
            len: bytes.len() as u32,
            mode,
            mtime: 1_700_000_000,
            ..FileEntry::default()
        };
        if is_directory(mode) {
            let below: Vec<_> = tree
                .iter()
                .filter(|(p, _)| parent(p) == path)
                .map(|(p, o)| (*p, *o))
                .collect();
            (entry.start, entry.len) = (order.len() as u64, below.len() as u32);
            entry.directories = below
                .iter()
                .filter(|(_, (mode, _))| is_directory(*mode))
                .count() as u32;
            order.extend(below);
        }
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(PAGE), 0);
        entries.push(entry);
    }
    let (mut index, mut names) = (Vec::new(), Vec::new());
    for (mut entry, (path, _)) in entries.iter().copied().zip(&order) {
        let name = path.rsplit('/').next().unwrap();
        (entry.name, entry.name_len) = (
            (order.len() * ENTRY_LEN + names.len()) as u32,
            name.len() as u32,
        );
        names.extend_from_slice(name.as_bytes());
        index.extend_from_slice(&entry.to_bytes());
    }
    let room = Box::leak(vec![0; data.len() + PAGE].into_boxed_slice());
    let skip = room.as_ptr().align_offset(PAGE);
    room[skip..skip + data.len()].copy_from_slice(&data);
    Packed::new(
        [index, names].concat().leak(),
        &room[skip..skip + data.len()],
    )
}

/// A view of a tree over packed files.
pub fn vfs_over(packed: Packed) -> (Rc<Vfs>, Rc<Machine>) {
    vfs_with(packed, 1 << 20)
}

/// As [`vfs_over`], with room for `pages` pages of file data.
pub fn vfs_with(packed: Packed, pages: u64) -> (Rc<Vfs>, Rc<Machine>) {
    let machine = Rc::new(Machine::default());
    let plan = Plan {
        packed,
        pages,
        hostname: b"box".to_vec(),
        zone: b"CET-1CEST,M3.5.0,M10.5.0/3".to_vec(),
    };
    (
        tree::build(machine.clone(), Rc::new(FdTable::new(1024)), plan),
        machine,
    )
}

/// An empty tree.
pub fn vfs() -> Rc<Vfs> {
    vfs_over(Packed::default()).0
}

/// Opens and enters a descriptor.
pub fn open(vfs: &Vfs, path: &str, flags: u32) -> unik_fs::Result<i32> {
    let file = vfs.open(
        AT_FDCWD,
        path.as_bytes(),
        &OpenHow {
            flags,
            mode: 0o666,
            resolve: 0,
        },
    )?;
    vfs.fds.insert(file, flags & linux::O_CLOEXEC != 0)
}

/// Writes a whole file.
pub fn put(vfs: &Vfs, path: &str, data: &[u8]) {
    let fd = open(vfs, path, linux::O_WRONLY | linux::O_CREAT | linux::O_TRUNC).unwrap();
    assert_eq!(vfs.fds.get(fd).unwrap().write(data), Ok(data.len()));
    vfs.fds.close(fd).unwrap();
}

/// Reads a whole file.
pub fn get(vfs: &Vfs, path: &str) -> unik_fs::Result<Vec<u8>> {
    let fd = open(vfs, path, linux::O_RDONLY)?;
    let mut all = Vec::new();
    let mut part = [0; 1000];
    loop {
        let n = vfs.fds.get(fd)?.read(&mut part)?;
        if n == 0 {
            break;
        }
        all.extend_from_slice(&part[..n]);
    }
    vfs.fds.close(fd)?;
    Ok(all)
}

/// Names in a directory, sorted, without `.` and `..`.
pub fn names(vfs: &Vfs, path: &str) -> Vec<String> {
    let fd = open(vfs, path, linux::O_RDONLY | linux::O_DIRECTORY).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    let mut names = Vec::new();
    let mut buffer = [0; 200];
    loop {
        let used = file.read_directory(&mut buffer).unwrap();
        if used == 0 {
            break;
        }
        let mut at = 0;
        while at < used {
            let len = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
            let name = &buffer[at + 19..at + len];
            let end = name.iter().position(|&b| b == 0).unwrap();
            names.push(String::from_utf8(name[..end].to_vec()).unwrap());
            at += len;
        }
    }
    vfs.fds.close(fd).unwrap();
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}
