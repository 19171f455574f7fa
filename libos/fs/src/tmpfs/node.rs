//! [`TmpNode`]: a file, directory, link, device node or FIFO of a tmpfs. Nodes are made in `make.rs` and moved in `moves.rs`.

use alloc::boxed::Box;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use super::TmpFs;
use super::data::FileData;
use super::dir::{Dir, Found};
use super::extended::Extended;
use crate::file::FileLike;
use crate::inode::{
    Allocate, DirEntry, Extent, FileType, Inode, Link, Mapping, Metadata, Name, NewNode, Node,
    PageRef, SetAttr, StatFs,
};
use crate::memfd::Seals;
use crate::packed;
use crate::pipe::Fifo;
use crate::system::{PAGE, Time};
use crate::{Errno, Result};

/// Bytes a directory entry counts for in `st_size` of a directory (as Linux's tmpfs does).
const ENTRY_SIZE: u64 = 20;

/// Inode number of a root directory (which is the first object of a packed tree, too).
pub(super) const ROOT_INO: u64 = 1;

/// An object of a [`TmpFs`].
pub struct TmpNode {
    pub(super) fs: Rc<TmpFs>,
    pub(super) me: Weak<TmpNode>,
    pub(super) ino: u64,
    pub(super) kind: FileType,
    pub(super) attr: RefCell<Attr>,
    pub(super) place: RefCell<Option<(Weak<TmpNode>, Name)>>,
    pub(super) body: Body,
    pub(super) seals: Seals,
    pub(super) extended: Extended,
    /// Made without a name, and may be given one.
    pub(super) linkable: Cell<bool>,
}

/// What chmod, chown and the clock change.
pub(super) struct Attr {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u64,
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) btime: Time,
}

/// What a node is.
pub(super) enum Body {
    File(RefCell<FileData>),
    Dir(RefCell<Dir>),
    Symlink(Box<[u8]>),
    Special(u64),
    Fifo(Rc<Fifo>),
    Socket,
}

impl TmpNode {
    /// Makes this file a memfd: it takes seals from now on, and starts with `seals`.
    pub fn allow_seals(&self, seals: u32) {
        self.seals.allow(seals);
    }

    pub(super) fn dir(&self) -> Result<&RefCell<Dir>> {
        let Body::Dir(dir) = &self.body else {
            return Err(Errno::ENOTDIR);
        };
        if self.ino == ROOT_INO
            && let Some(me) = self.me.upgrade()
        {
            self.fs.wake(&me);
        }
        Ok(dir)
    }

    fn file(&self) -> Result<&RefCell<FileData>> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn packed(&self) -> &packed::Packed {
        &self.fs.packed
    }

    /// Looks up a child, making its node when it is still packed.
    pub(super) fn child(&self, name: &[u8]) -> Result<Rc<Self>> {
        let dir = self.dir()?;
        let found = dir
            .borrow()
            .find(self.packed(), name)
            .ok_or(Errno::ENOENT)?;
        match found {
            Found::Node(node) => Ok(node),
            Found::Packed(index, position) => {
                let node = Self::from_packed(&self.fs, index);
                let name: Name = name.into();
                *node.place.borrow_mut() = Some((self.me.clone(), name.clone()));
                dir.borrow_mut().adopt(name, position, node.clone());
                Ok(node)
            }
        }
    }

    /// Refuses a name in a directory that was removed.
    pub(super) fn check_alive(&self) -> Result<()> {
        if self.attr.borrow().nlink == 0 {
            Err(Errno::ENOENT)
        } else {
            Ok(())
        }
    }

    /// Enters `node` under a free `name`.
    fn enter(&self, name: &[u8], node: &Rc<Self>) -> Result<()> {
        let dir = self.dir()?;
        self.check_alive()?;
        if dir.borrow().find(self.packed(), name).is_some() {
            return Err(Errno::EEXIST);
        }
        let name: Name = name.into();
        *node.place.borrow_mut() = Some((self.me.clone(), name.clone()));
        dir.borrow_mut().insert(name, node.clone());
        if node.kind != FileType::Directory {
            node.attr.borrow_mut().nlink += 1;
        }
        self.touch_data();
        Ok(())
    }

    pub(super) fn touch_data(&self) {
        let now = self.fs.now();
        let mut attr = self.attr.borrow_mut();
        attr.mtime = now;
        attr.ctime = now;
    }

    pub(super) fn touch_attr(&self) {
        self.attr.borrow_mut().ctime = self.fs.now();
    }

    /// Takes one link away (a directory loses all).
    pub(super) fn drop_link(&self) {
        let mut attr = self.attr.borrow_mut();
        attr.nlink = if self.kind == FileType::Directory {
            0
        } else {
            attr.nlink.saturating_sub(1)
        };
        attr.ctime = self.fs.now();
    }

    /// A write by anyone strips set-user-id and, where it means that, set-group-id. Root keeps them (CAP_FSETID).
    fn written(&self) {
        self.touch_data();
    }

    /// Tells the kernel that the pages of bytes `from..to` show something else now.
    fn unmap(&self, from: u64, to: u64) {
        let page = PAGE as u64;
        if from < to {
            self.fs
                .space
                .system()
                .unmap(self.fs.dev, self.ino, from / page..to.div_ceil(page));
        }
    }

    fn relatime(&self) {
        let now = self.fs.now();
        let mut attr = self.attr.borrow_mut();
        if attr.atime <= attr.mtime
            || attr.atime <= attr.ctime
            || now.sec - attr.atime.sec >= 86_400
        {
            attr.atime = now;
        }
    }
}

/// Inode number of a packed object.
pub(super) fn packed_ino(index: u32) -> u64 {
    u64::from(index) + ROOT_INO
}

impl Drop for TmpNode {
    fn drop(&mut self) {
        self.fs.nodes.set(self.fs.nodes.get().saturating_sub(1));
        self.extended.end(&self.fs.attributes);
    }
}

impl Inode for TmpNode {
    fn dev(&self) -> u64 {
        self.fs.dev
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn statfs(&self) -> StatFs {
        self.fs.statfs()
    }

    fn metadata(&self) -> Metadata {
        let _ = self.dir();
        let attr = self.attr.borrow();
        let mut nlink = attr.nlink;
        let (size, blocks) = match &self.body {
            Body::File(data) => (data.borrow().size(), data.borrow().blocks()),
            Body::Dir(dir) => {
                let dir = dir.borrow();
                nlink += if nlink > 0 { dir.subdirs() } else { 0 };
                (dir.len() * ENTRY_SIZE + 2 * ENTRY_SIZE, 0)
            }
            Body::Symlink(text) => (text.len() as u64, 0),
            _ => (0, 0),
        };
        let rdev = if let Body::Special(rdev) = self.body {
            rdev
        } else {
            0
        };
        Metadata {
            dev: self.fs.dev,
            ino: self.ino,
            nlink,
            mode: self.kind.mode() | attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            rdev,
            size,
            blksize: PAGE as u32,
            blocks,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.btime,
        }
    }

    fn size(&self) -> u64 {
        match &self.body {
            Body::File(data) => data.borrow().size(),
            _ => self.metadata().size,
        }
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let now = self.fs.now();
        let mut attr = self.attr.borrow_mut();
        attr.mode = change.mode.map_or(attr.mode, |mode| mode & 0o7777);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        attr.ctime = now;
        Ok(())
    }

    fn place(&self) -> Option<(Node, Name)> {
        let place = self.place.borrow();
        let (parent, name) = place.as_ref()?;
        Some((parent.upgrade()? as Node, name.clone()))
    }

    fn lookup(&self, name: &[u8]) -> Result<Node> {
        self.child(name).map(|node| node as Node)
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<Node> {
        self.dir()?;
        self.fs.check_inodes()?;
        let node = self.fs.node(new)?;
        self.enter(name, &node)?;
        Ok(node)
    }

    fn create_unnamed(&self, new: &NewNode, linkable: bool) -> Result<Node> {
        self.dir()?;
        self.check_alive()?;
        let node = self.fs.node(new)?;
        node.linkable.set(linkable);
        Ok(node)
    }

    fn symlink(&self, name: &[u8], target: &[u8], (uid, gid): (u32, u32)) -> Result<Node> {
        let now = self.fs.now();
        let attr = Attr {
            mode: 0o777,
            uid,
            gid,
            nlink: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        let node = Self::make(
            &self.fs,
            self.fs.take_ino(),
            FileType::Symlink,
            attr,
            Body::Symlink(target.into()),
        );
        self.enter(name, &node)?;
        Ok(node)
    }

    fn link(&self, name: &[u8], node: &Node) -> Result<()> {
        let node = node
            .as_any()
            .downcast_ref::<Self>()
            .and_then(|node| node.me.upgrade())
            .ok_or(Errno::EXDEV)?;
        if !Rc::ptr_eq(&node.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        if node.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        if node.attr.borrow().nlink == 0 && !node.linkable.get() {
            return Err(Errno::ENOENT);
        }
        self.enter(name, &node)?;
        node.touch_attr();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let node = self.child(name)?;
        if node.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        self.dir()?.borrow_mut().remove(self.packed(), name)?;
        node.drop_link();
        self.touch_data();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let node = self.child(name)?;
        if !node.dir()?.borrow().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.dir()?.borrow_mut().remove(self.packed(), name)?;
        node.drop_link();
        self.touch_data();
        Ok(())
    }

    fn rename(&self, old: &[u8], to: &Node, new: &[u8], flags: u32) -> Result<()> {
        let to = to
            .as_any()
            .downcast_ref::<Self>()
            .and_then(|to| to.me.upgrade())
            .ok_or(Errno::EXDEV)?;
        self.move_name(old, &to, new, flags)
    }

    fn readdir(&self, from: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        let dir = self.dir()?.borrow();
        self.relatime();
        dir.list(self.packed(), from, emit);
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(text) => Ok(text.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self) -> Result<Link> {
        self.readlink().map(Link::Path)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let done = self.file()?.borrow().read(offset, out);
        self.relatime();
        Ok(done)
    }

    fn packed(&self, offset: u64, len: usize) -> Option<&'static [u8]> {
        self.file().ok()?.borrow().packed(offset, len)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<usize> {
        let file = self.file()?;
        self.seals
            .check_write(offset, data.len() as u64, || file.borrow().size())?;
        let done = file.borrow_mut().write(offset, data)?;
        let replaced = file.borrow_mut().take_replaced();
        if replaced {
            self.unmap(offset, offset + done as u64);
        }
        self.written();
        Ok(done)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let file = self.file()?;
        self.seals.check_resize(file.borrow().size(), size)?;
        let before = file.borrow().size();
        file.borrow_mut().truncate(size)?;
        if size < before {
            self.unmap(size.next_multiple_of(PAGE as u64), before);
        }
        self.written();
        Ok(())
    }

    fn fallocate(&self, how: Allocate, offset: u64, len: u64) -> Result<()> {
        let mut file = self.file()?.borrow_mut();
        match how {
            Allocate::Reserve { keep_size } => {
                if !keep_size {
                    self.seals
                        .check_resize(file.size(), file.size().max(offset.saturating_add(len)))?;
                }
                file.reserve(offset, len, keep_size)?;
            }
            Allocate::PunchHole => {
                self.seals.check_write(offset, 0, || 0)?;
                file.punch(offset, len)?;
            }
        }
        drop(file);
        if how == Allocate::PunchHole {
            self.unmap(offset, offset.saturating_add(len));
        }
        self.written();
        Ok(())
    }

    fn seek(&self, what: Extent, offset: u64) -> Result<u64> {
        self.file()?.borrow().seek(what, offset)
    }

    fn mapping(&self) -> Mapping {
        match self.body {
            Body::File(_) => Mapping::Pages,
            Body::Special(rdev) if rdev == crate::dev::ZERO => Mapping::Anonymous,
            _ => Mapping::None,
        }
    }

    fn map_page(&self, index: u64, write: bool) -> Result<PageRef> {
        self.file()
            .map_err(|_| Errno::ENODEV)?
            .borrow_mut()
            .map_page(index, write)
    }

    fn open(&self, flags: u32) -> Result<Option<Rc<dyn FileLike>>> {
        match &self.body {
            Body::Special(rdev) if self.kind == FileType::CharDevice => {
                let node: Node = self.me.upgrade().ok_or(Errno::ENXIO)?;
                crate::dev::open(*rdev, node, self.fs.space.system(), flags).map(Some)
            }
            Body::Special(_) | Body::Socket => Err(Errno::ENXIO),
            Body::Fifo(fifo) => {
                let node: Node = self.me.upgrade().ok_or(Errno::ENXIO)?;
                fifo.open(node, flags).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn seals(&self) -> Result<u32> {
        if self.kind == FileType::Regular {
            self.seals.get()
        } else {
            Err(Errno::EINVAL)
        }
    }

    fn add_seals(&self, seals: u32) -> Result<()> {
        self.seals.add(seals)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.extended.get(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let (room, free) = (&self.fs.attributes, self.fs.free_inodes());
        self.extended.set(name, value, flags, room, free)?;
        self.touch_attr();
        Ok(())
    }

    fn list_xattr(&self, trusted: bool) -> Vec<u8> {
        self.extended.list(trusted)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.extended.remove(name, &self.fs.attributes)?;
        self.touch_attr();
        Ok(())
    }
}
