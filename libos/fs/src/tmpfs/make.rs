//! How tmpfs nodes come to be: fresh ones, the root directory, and those of packed objects.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::TmpFs;
use super::data::FileData;
use super::dir::Dir;
use super::extended::Extended;
use super::node::{Attr, Body, TmpNode, packed_ino};
use crate::inode::{FileType, NewNode};
use crate::memfd::Seals;
use crate::packed::ROOT;
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
            extended: Extended::default(),
            linkable: Cell::new(false),
        })
    }

    /// The root directory.
    pub(super) fn root(fs: &Rc<TmpFs>, mode: u32) -> Rc<Self> {
        let node = Self::from_packed(fs, ROOT);
        let now = fs.now();
        let mut attr = node.attr.borrow_mut();
        attr.mode = mode;
        (attr.atime, attr.ctime, attr.btime) = (now, now, now);
        if attr.mtime.sec == 0 {
            attr.mtime = now;
        }
        drop(attr);
        node
    }

    /// The object at `index` of the packed tree.
    pub(super) fn from_packed(fs: &Rc<TmpFs>, index: u32) -> Rc<Self> {
        let info = fs.packed.info(index);
        let (body, nlink) = match info.kind {
            FileType::Directory => (Body::Dir(RefCell::new(Dir::over(&fs.packed, index))), 2),
            FileType::Symlink => (Body::Symlink(info.data.into()), 1),
            _ => {
                let data = FileData::new(fs.space.clone(), info.data);
                (Body::File(RefCell::new(data)), 1)
            }
        };
        let time = Time {
            sec: info.mtime,
            nsec: 0,
        };
        let attr = Attr {
            mode: info.mode,
            uid: 0,
            gid: 0,
            nlink,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        Self::make(fs, packed_ino(index), info.kind, attr, body)
    }
}
