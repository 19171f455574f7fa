//! How tmpfs nodes come to be: fresh ones, the root directory, and those of packed objects.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::TmpFs;
use super::data::FileData;
use super::dir::Dir;
use super::node::{Attr, Body, ROOT_INO, TmpNode, packed_ino};
use crate::inode::{FileType, NewNode};
use crate::memfd::Seals;
use crate::packed;
use crate::pipe::Fifo;
use crate::system::Time;
use crate::{Errno, Result};

impl TmpNode {
    /// A new object without a name (its link count is 0, a directory's 2).
    pub(super) fn fresh(fs: &Rc<TmpFs>, new: &NewNode) -> Result<Rc<Self>> {
        let body = match new.kind {
            FileType::Regular => Body::File(RefCell::new(FileData::new(fs.space.clone(), &[]))),
            FileType::Directory => Body::Dir(RefCell::new(Dir::new())),
            FileType::CharDevice | FileType::BlockDevice => Body::Special(new.rdev),
            FileType::Fifo => Body::Fifo(Fifo::new(fs.space.system())),
            FileType::Socket => Body::Socket,
            FileType::Symlink => return Err(Errno::EINVAL),
        };
        let now = fs.now();
        let nlink = if new.kind == FileType::Directory {
            2
        } else {
            0
        };
        let attr = Attr {
            mode: new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            nlink,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        Ok(Self::make(fs, fs.take_ino(), new.kind, attr, body))
    }

    pub(super) fn make(
        fs: &Rc<TmpFs>,
        ino: u64,
        kind: FileType,
        attr: Attr,
        body: Body,
    ) -> Rc<Self> {
        fs.nodes.set(fs.nodes.get() + 1);
        let (attr, place, seals) = (RefCell::new(attr), RefCell::new(None), Seals::none());
        Rc::new_cyclic(|me| Self {
            fs: fs.clone(),
            me: me.clone(),
            ino,
            kind,
            attr,
            place,
            body,
            seals,
            linkable: Cell::new(false),
        })
    }

    /// The root directory, empty.
    pub(super) fn root(fs: &Rc<TmpFs>, mode: u32) -> Rc<Self> {
        let now = fs.now();
        let attr = Attr {
            mode,
            uid: 0,
            gid: 0,
            nlink: 2,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        };
        Self::make(
            fs,
            ROOT_INO,
            FileType::Directory,
            attr,
            Body::Dir(RefCell::new(Dir::new())),
        )
    }

    /// Makes the root directory show the packed one.
    pub(super) fn show_packed_root(&self, packed: &packed::Packed) {
        let info = packed.info(packed::ROOT);
        if let Body::Dir(dir) = &self.body {
            *dir.borrow_mut() = Dir::over(packed, packed::ROOT);
        }
        let mut attr = self.attr.borrow_mut();
        attr.mode = info.mode & 0o7777;
        if info.mtime != 0 {
            attr.mtime = Time {
                sec: info.mtime,
                nsec: 0,
            };
        }
    }

    /// The object at `index` of the packed tree.
    pub(super) fn from_packed(fs: &Rc<TmpFs>, index: u32) -> Rc<Self> {
        let Some(packed) = fs.lower.get() else {
            unreachable!("only a tree with a packed part names packed objects")
        };
        let info = packed.info(index);
        let kind = packed.kind(index);
        let shared = packed.link_group(index);
        if let Some(node) = shared.and_then(|group| fs.linked.borrow().get(&group.first).cloned()) {
            return node;
        }
        let body = match kind {
            FileType::Directory => Body::Dir(RefCell::new(Dir::over(packed, index))),
            FileType::Regular => {
                Body::File(RefCell::new(FileData::new(fs.space.clone(), info.data)))
            }
            FileType::Symlink => Body::Symlink(info.data.into()),
            FileType::CharDevice | FileType::BlockDevice => Body::Special(info.rdev),
            FileType::Fifo => Body::Fifo(Fifo::new(fs.space.system())),
            FileType::Socket => Body::Socket,
        };
        let time = Time {
            sec: info.mtime,
            nsec: 0,
        };
        let nlink = match kind {
            FileType::Directory => 2,
            _ => shared.map_or(1, |group| group.names),
        };
        let attr = Attr {
            mode: info.mode & 0o7777,
            uid: info.uid,
            gid: info.gid,
            nlink,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        let node = Self::make(fs, packed_ino(packed, index), kind, attr, body);
        if let Some(group) = shared {
            fs.linked.borrow_mut().insert(group.first, node.clone());
        }
        node
    }
}
