//! tmpfs: the writable file system in memory, optionally over a packed tree ([`TmpFs`]).
//!
//! There is one kind of object, [`node::TmpNode`]. A directory that stems from the packed tree makes a node of a child when the
//! child is first looked up; a file that stems from it shows the archive's bytes until its pages are written ([`data`]). So copy-up,
//! whiteouts and merged listings need no second layer of objects, and inode numbers never change.
//!
//! A start function fills the tree when somebody first looks into the root directory.

pub mod data;
mod dir;
mod extended;
mod make;
mod moves;
pub mod node;
pub mod space;

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use crate::inode::{NewNode, Node, StatFs};
use crate::packed::Packed;
use crate::system::{PAGE, System, Time};
use extended::Room;
use node::TmpNode;
use space::Space;

/// `f_type` of tmpfs.
pub const TMPFS_MAGIC: u64 = linux_raw_sys::general::TMPFS_MAGIC as u64;

/// Inode numbers below are those of packed objects (their index plus one).
const FIRST_NEW: u64 = 1 << 24;

/// What still has to happen before the root directory can be used.
type Fill = Box<dyn FnOnce(&Node)>;

/// A file system in memory.
pub struct TmpFs {
    dev: u64,
    space: Rc<Space>,
    next_ino: Cell<u64>,
    nodes: Cell<u64>,
    attributes: Room,
    fill: RefCell<Option<Fill>>,
    packed: Packed,
}

impl TmpFs {
    /// An empty file system of at most `pages` pages of file data; `mode` is that of its root. `dev` must be unique.
    pub fn root(system: &Rc<dyn System>, dev: u64, pages: u64, mode: u32) -> Rc<TmpNode> {
        Self::make(system, dev, pages, Packed::default(), mode, None)
    }

    /// A file system that shows `packed` and takes changes above it. `fill` is called with the root before
    /// anything is looked up there.
    pub fn over(
        system: &Rc<dyn System>,
        dev: u64,
        pages: u64,
        packed: Packed,
        fill: Fill,
    ) -> Rc<TmpNode> {
        Self::make(system, dev, pages, packed, 0o755, Some(fill))
    }

    fn make(
        system: &Rc<dyn System>,
        dev: u64,
        pages: u64,
        packed: Packed,
        mode: u32,
        fill: Option<Fill>,
    ) -> Rc<TmpNode> {
        let space = Rc::new(Space::new(system.clone(), pages));
        let (next_ino, nodes) = (Cell::new(FIRST_NEW), Cell::new(packed.count().into()));
        let fs = Rc::new(Self {
            dev,
            space,
            next_ino,
            nodes,
            attributes: Room::default(),
            fill: RefCell::new(fill),
            packed,
        });
        TmpNode::root(&fs, mode)
    }

    /// Fills the tree, once.
    fn wake(&self, root: &Rc<TmpNode>) {
        if let Some(fill) = self.fill.take() {
            fill(&(root.clone() as Node));
        }
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

    /// As many objects as pages, as Linux's tmpfs has it: `ENOSPC` beyond.
    fn check_inodes(&self) -> crate::Result<()> {
        if self.free_inodes() > 0 {
            Ok(())
        } else {
            Err(crate::Errno::ENOSPC)
        }
    }

    fn inode_limit(&self) -> u64 {
        self.space.limit() + u64::from(self.packed.count())
    }

    fn free_inodes(&self) -> u64 {
        self.inode_limit().saturating_sub(self.nodes.get())
    }

    fn statfs(&self) -> StatFs {
        StatFs {
            magic: TMPFS_MAGIC,
            block_size: PAGE as u64,
            blocks: self.space.limit(),
            free: self.space.free_pages(),
            files: self.inode_limit(),
            files_free: self.free_inodes(),
        }
    }
}
