//! `/proc` and `/sys`: text made when it is read ([`ProcFs`]). [`table`] holds the tree, [`process`] and [`machine`] write the
//! texts, [`source`] says what the kernel must tell.

pub mod machine;
pub mod process;
pub mod source;
pub mod table;

use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general as linux;

use crate::file::{FileLike, OpenFile, Seek};
use crate::inode::{
    DirEntry, FileType, Inode, Link, Metadata, Name, NewNode, Node, SetAttr, StatFs,
};
use crate::system::Time;
use crate::vfs::Vfs;
use crate::{Errno, Result};
pub use source::ProcSource;
use table::Entry;

/// One of the two trees and what their texts are made from.
pub struct ProcFs {
    vfs: Weak<Vfs>,
    source: Rc<dyn ProcSource>,
    dev: u64,
    magic: u64,
    born: Time,
    boot_id: String,
    oom_score_adj: Cell<i32>,
}

/// What a node stands for.
#[derive(Clone, Copy)]
enum What {
    Entry(&'static Entry),
    Fd(i32),
    FdInfo(i32),
}

/// An entry of the tree.
pub struct ProcNode {
    fs: Rc<ProcFs>,
    me: Weak<ProcNode>,
    ino: u64,
    what: What,
    /// The thread that the entry is about; 0 outside of process directories.
    tid: u32,
    parent: Option<(Rc<ProcNode>, Name)>,
}

impl ProcFs {
    /// The root of `/proc`.
    pub fn proc(vfs: &Rc<Vfs>, source: Rc<dyn ProcSource>) -> Node {
        Self::root(
            vfs,
            source,
            crate::tree::PROC_DEV,
            u64::from(linux::PROC_SUPER_MAGIC),
            &table::PROC,
        )
    }

    /// The root of `/sys`.
    pub fn sys(vfs: &Rc<Vfs>, source: Rc<dyn ProcSource>) -> Node {
        Self::root(
            vfs,
            source,
            crate::tree::SYS_DEV,
            u64::from(linux::SYSFS_MAGIC),
            &table::SYS,
        )
    }

    fn root(
        vfs: &Rc<Vfs>,
        source: Rc<dyn ProcSource>,
        dev: u64,
        magic: u64,
        entry: &'static Entry,
    ) -> Node {
        let system = vfs.system();
        let boot_id = uuid(&**system);
        let fs = Rc::new(Self {
            vfs: Rc::downgrade(vfs),
            source,
            dev,
            magic,
            born: system.now(),
            boot_id,
            oom_score_adj: Cell::new(0),
        });
        Rc::new_cyclic(|me| ProcNode {
            fs,
            me: me.clone(),
            ino: 1,
            what: What::Entry(entry),
            tid: 0,
            parent: None,
        })
    }

    /// The file systems; they outlive every use of `/proc`.
    fn vfs(&self) -> Result<Rc<Vfs>> {
        self.vfs.upgrade().ok_or(Errno::ENOENT)
    }
}

/// A random UUID (RFC 9562, version 4).
fn uuid(system: &dyn crate::system::System) -> String {
    let mut bytes = [0; 16];
    system.fill_random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

impl ProcNode {
    fn child(&self, name: &[u8], what: What, tid: u32) -> Result<Rc<Self>> {
        let parent = self.me.upgrade().ok_or(Errno::ENOENT)?;
        let ino = child_ino(self.ino, name);
        let parent = Some((parent, name.into()));
        Ok(Rc::new_cyclic(|me| Self {
            fs: self.fs.clone(),
            me: me.clone(),
            ino,
            what,
            tid,
            parent,
        }))
    }

    fn find(&self, name: &[u8]) -> Result<Rc<Self>> {
        let What::Entry(entry) = self.what else {
            return Err(Errno::ENOTDIR);
        };
        match entry {
            Entry::Dir(children) | Entry::Root(children) => {
                if let Some((_, child)) =
                    children.iter().find(|(known, _)| known.as_bytes() == name)
                {
                    return self.child(name, What::Entry(child), self.tid);
                }
                if !matches!(entry, Entry::Root(_)) {
                    return Err(Errno::ENOENT);
                }
                let tid = number(name).ok_or(Errno::ENOENT)?;
                self.thread_exists(tid)?;
                self.child(name, What::Entry(&table::PROCESS), tid)
            }
            Entry::Tasks => {
                let tid = number(name).ok_or(Errno::ENOENT)?;
                self.thread_exists(tid)?;
                self.child(name, What::Entry(&table::TASK), tid)
            }
            Entry::Fds | Entry::FdInfos => {
                let fd = number(name)
                    .and_then(|fd| i32::try_from(fd).ok())
                    .ok_or(Errno::ENOENT)?;
                self.fs.vfs()?.fds.get(fd).map_err(|_| Errno::ENOENT)?;
                let what = if matches!(entry, Entry::Fds) {
                    What::Fd(fd)
                } else {
                    What::FdInfo(fd)
                };
                self.child(name, what, self.tid)
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn thread_exists(&self, tid: u32) -> Result<()> {
        if tid == self.fs.source.pid()
            || self
                .fs
                .source
                .threads()
                .iter()
                .any(|thread| thread.tid == tid)
        {
            Ok(())
        } else {
            Err(Errno::ENOENT)
        }
    }

    /// Names of the children with their kinds.
    fn children(&self) -> Result<Vec<(String, FileType)>> {
        let What::Entry(entry) = self.what else {
            return Err(Errno::ENOTDIR);
        };
        let fixed = |children: &'static [(&'static str, Entry)]| {
            children
                .iter()
                .map(|(name, child)| ((*name).to_string(), child.kind()))
        };
        Ok(match entry {
            Entry::Dir(children) => fixed(children).collect(),
            Entry::Root(children) => fixed(children)
                .chain([(self.fs.source.pid().to_string(), FileType::Directory)])
                .collect(),
            Entry::Tasks => self
                .fs
                .source
                .threads()
                .iter()
                .map(|thread| (thread.tid.to_string(), FileType::Directory))
                .collect(),
            Entry::Fds => self
                .fs
                .vfs()?
                .fds
                .open_fds()
                .iter()
                .map(|fd| (fd.to_string(), FileType::Symlink))
                .collect(),
            Entry::FdInfos => self
                .fs
                .vfs()?
                .fds
                .open_fds()
                .iter()
                .map(|fd| (fd.to_string(), FileType::Regular))
                .collect(),
            _ => return Err(Errno::ENOTDIR),
        })
    }

    fn text(&self) -> Result<Vec<u8>> {
        match self.what {
            What::Entry(Entry::Text(_, make)) => make(&self.fs, self.tid),
            What::Entry(Entry::Setting(make, _)) => make(&self.fs, self.tid),
            What::FdInfo(fd) => process::fd_info(&self.fs, fd),
            _ => Err(Errno::EINVAL),
        }
    }

    fn set(&self, text: &[u8]) -> Result<()> {
        match self.what {
            What::Entry(Entry::Setting(_, set)) => set(&self.fs, self.tid, text),
            _ => Err(Errno::EINVAL),
        }
    }

    fn permissions(&self) -> u32 {
        match self.what {
            What::Entry(Entry::Text(mode, _)) => *mode,
            What::Entry(Entry::Setting(..)) => 0o644,
            What::Entry(Entry::Link(_)) => 0o777,
            What::Entry(Entry::Fds | Entry::FdInfos) => 0o500,
            What::Entry(_) => 0o555,
            What::Fd(fd) => self
                .fs
                .vfs()
                .and_then(|vfs| vfs.fds.get(fd))
                .map_or(0, |file| {
                    0o100
                        | if file.readable() { 0o400 } else { 0 }
                        | if file.writable() { 0o200 } else { 0 }
                }),
            What::FdInfo(_) => 0o444,
        }
    }
}

fn number(name: &[u8]) -> Option<u32> {
    let plain = name.len() == 1 || name.first() != Some(&b'0');
    core::str::from_utf8(name)
        .ok()
        .filter(|_| plain && name.iter().all(u8::is_ascii_digit))?
        .parse()
        .ok()
}

/// FNV-1a over the parent's number and the name, never 0 or 1.
fn child_ino(parent: u64, name: &[u8]) -> u64 {
    let seed = parent.wrapping_mul(0x100_0000_01b3) ^ 0xcbf2_9ce4_8422_2325;
    let hash = name.iter().fold(seed, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 20) | 2
}

impl Inode for ProcNode {
    fn dev(&self) -> u64 {
        self.fs.dev
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn kind(&self) -> FileType {
        match self.what {
            What::Entry(entry) => entry.kind(),
            What::Fd(_) => FileType::Symlink,
            What::FdInfo(_) => FileType::Regular,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn metadata(&self) -> Metadata {
        let kind = self.kind();
        let now = self.fs.born;
        let nlink = match self.what {
            What::Entry(Entry::Dir(children) | Entry::Root(children)) => {
                2 + children
                    .iter()
                    .filter(|(_, child)| child.kind() == FileType::Directory)
                    .count() as u64
            }
            What::Entry(Entry::Tasks | Entry::Fds | Entry::FdInfos) => 2,
            _ => 1,
        };
        let size = if matches!(self.what, What::Fd(_)) {
            64
        } else {
            0
        };
        let mode = kind.mode() | self.permissions();
        Metadata {
            dev: self.fs.dev,
            ino: self.ino,
            nlink,
            mode,
            size,
            blksize: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            ..Metadata::default()
        }
    }

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn statfs(&self) -> StatFs {
        StatFs {
            magic: self.fs.magic,
            block_size: 4096,
            ..StatFs::default()
        }
    }

    fn place(&self) -> Option<(Node, Name)> {
        let (parent, name) = self.parent.clone()?;
        Some((parent, name))
    }

    fn lookup(&self, name: &[u8]) -> Result<Node> {
        self.find(name).map(|node| node as Node)
    }

    fn readdir(&self, from: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        let children = self.children()?;
        for (at, (name, kind)) in (0u64..)
            .zip(&children)
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
        {
            let name = name.as_bytes();
            if !emit(DirEntry {
                ino: child_ino(self.ino, name),
                next: at + 1,
                kind: *kind,
                name,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match self.what {
            What::Fd(fd) => {
                let vfs = self.fs.vfs()?;
                let file = vfs.fds.get(fd).map_err(|_| Errno::ENOENT)?;
                Ok(vfs.describe(&file))
            }
            What::Entry(Entry::Link(target)) => match target(&self.fs)? {
                Link::Path(path) => Ok(path),
                Link::Node(node) => self.fs.vfs()?.path_of(&node).ok_or(Errno::ENOENT),
                Link::File(file) => Ok(self.fs.vfs()?.describe(&file)),
            },
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self) -> Result<Link> {
        match self.what {
            What::Fd(fd) => {
                let file = self.fs.vfs()?.fds.get(fd).map_err(|_| Errno::ENOENT)?;
                Ok(file
                    .node()
                    .map_or_else(|| Link::File(file.clone()), Link::Node))
            }
            What::Entry(Entry::Link(target)) => target(&self.fs),
            _ => Err(Errno::EINVAL),
        }
    }

    fn create(&self, _name: &[u8], _new: &NewNode) -> Result<Node> {
        Err(Errno::ENOENT)
    }

    fn symlink(&self, _name: &[u8], _target: &[u8], _owner: (u32, u32)) -> Result<Node> {
        Err(Errno::ENOENT)
    }

    fn truncate(&self, _size: u64) -> Result<()> {
        Ok(())
    }

    fn open(&self, _flags: u32) -> Result<Option<Rc<dyn FileLike>>> {
        if self.kind() != FileType::Regular {
            return Ok(None);
        }
        let node = self.me.upgrade().ok_or(Errno::ENOENT)?;
        Ok(Some(Rc::new(TextFile {
            node,
            text: RefCell::new(None),
        })))
    }
}

/// An open text: made at the first read, and again when reading starts over.
struct TextFile {
    node: Rc<ProcNode>,
    text: RefCell<Option<Vec<u8>>>,
}

impl FileLike for TextFile {
    fn metadata(&self) -> Metadata {
        self.node.metadata()
    }

    fn label(&self) -> Vec<u8> {
        Vec::new()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn node(&self) -> Option<Node> {
        Some(self.node.clone())
    }

    fn seek_kind(&self) -> Seek {
        Seek::Bytes
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<usize> {
        if at == 0 || self.text.borrow().is_none() {
            let text = self.node.text()?;
            *self.text.borrow_mut() = Some(text);
        }
        let text = self.text.borrow();
        let rest = text
            .as_deref()
            .and_then(|text| text.get(usize::try_from(at).ok()?..))
            .unwrap_or(&[]);
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        self.node.set(data)?;
        Ok(data.len())
    }
}

/// Mounts `/proc` and `/sys`.
pub fn mount(vfs: &Rc<Vfs>, source: &Rc<dyn ProcSource>) -> Result<()> {
    vfs.mounts.add(
        vfs.root(),
        b"proc",
        ProcFs::proc(vfs, source.clone()),
        "proc",
        false,
    )?;
    vfs.mounts.add(
        vfs.root(),
        b"sys",
        ProcFs::sys(vfs, source.clone()),
        "sysfs",
        true,
    )
}

/// Status flags of an open file as `fdinfo` shows them.
fn shown_flags(file: &OpenFile, close_on_exec: bool) -> u32 {
    file.flags() | if close_on_exec { linux::O_CLOEXEC } else { 0 }
}
