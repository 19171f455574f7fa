//! tmpfs: the writable file system in memory, optionally over a packed tree ([`TmpFs`]).
//!
//! There is one kind of object, [`node::TmpNode`]. A directory that stems from the packed tree makes a node of a child when the
//! child is first looked up; a file that stems from it shows the archive's bytes until its pages are written ([`data`]). So copy-up,
//! whiteouts and merged listings need no second layer of objects, and inode numbers never change.

pub mod data;
mod dir;
pub mod node;
pub mod space;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use crate::inode::{NewNode, StatFs};
use crate::packed::{self, Packed};
use crate::system::{PAGE, System, Time};
use node::TmpNode;
use space::Space;

/// `f_type` of tmpfs.
pub const TMPFS_MAGIC: u64 = linux_raw_sys::general::TMPFS_MAGIC as u64;

/// A file system in memory.
pub struct TmpFs {
    dev: u64,
    space: Rc<Space>,
    next_ino: Cell<u64>,
    nodes: Cell<u64>,
    lower: Option<Packed>,
    /// Nodes of packed files with several names, which must be one object.
    linked: RefCell<BTreeMap<u32, Rc<TmpNode>>>,
    magic: u64,
}

impl TmpFs {
    /// An empty file system of at most `pages` pages of file data; `mode` is that of its root. `dev` must be unique.
    pub fn root(system: &Rc<dyn System>, dev: u64, pages: u64, mode: u32) -> Rc<TmpNode> {
        let fs = Self::new(system, dev, pages, None);
        let new = NewNode { kind: crate::FileType::Directory, mode, uid: 0, gid: 0, rdev: 0 };
        fs.node(&new).unwrap_or_else(|_| unreachable!("a directory needs no page"))
    }

    /// A file system that shows `packed` and takes changes above it.
    pub fn over(system: &Rc<dyn System>, dev: u64, pages: u64, packed: Packed) -> Rc<TmpNode> {
        let fs = Self::new(system, dev, pages, Some(packed));
        TmpNode::from_packed(&fs, packed::ROOT)
    }

    fn new(system: &Rc<dyn System>, dev: u64, pages: u64, lower: Option<Packed>) -> Rc<Self> {
        let first = lower.as_ref().map_or(1, |packed| packed.len() as u64 + 1);
        let space = Rc::new(Space::new(system.clone(), pages));
        let linked = RefCell::default();
        Rc::new(Self { dev, space, next_ino: Cell::new(first), nodes: Cell::new(first), lower, linked, magic: TMPFS_MAGIC })
    }

    fn now(&self) -> Time {
        self.space.system().now()
    }

    fn take_ino(&self) -> u64 {
        let ino = self.next_ino.get();
        self.next_ino.set(ino + 1);
        ino
    }

    /// A node without a name.
    fn node(self: &Rc<Self>, new: &NewNode) -> crate::Result<Rc<TmpNode>> {
        TmpNode::fresh(self, new)
    }

    fn statfs(&self) -> StatFs {
        let files = self.space.limit();
        StatFs {
            magic: self.magic,
            block_size: PAGE as u64,
            blocks: self.space.limit(),
            free: self.space.free_pages(),
            files,
            files_free: files.saturating_sub(self.nodes.get()),
        }
    }
}
