//! tmpfs: the writable file system in memory, optionally over a packed tree ([`TmpFs`]).
//!
//! There is one kind of object, [`node::TmpNode`]. A directory that stems from the packed tree makes a node of a child when the
//! child is first looked up; a file that stems from it shows the archive's bytes until its pages are written ([`data`]). So copy-up,
//! whiteouts and merged listings need no second layer of objects, and inode numbers never change.
//!
//! The packed tree is indexed, and a start function run, when somebody first looks into the root directory.

pub mod data;
mod dir;
mod make;
mod moves;
pub mod node;
pub mod space;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{Cell, OnceCell, RefCell};

use crate::inode::{NewNode, Node, StatFs};
use crate::packed::Packed;
use crate::system::{PAGE, System, Time};
use node::TmpNode;
use space::Space;

/// `f_type` of tmpfs.
pub const TMPFS_MAGIC: u64 = linux_raw_sys::general::TMPFS_MAGIC as u64;

/// Inode numbers below are those of packed objects (their index plus one).
const FIRST_NEW: u64 = 1 << 24;

/// What still has to happen before the root directory can be used.
struct Start {
    archive: &'static [u8],
    fill: Box<dyn FnOnce(&Node)>,
}

/// A file system in memory.
pub struct TmpFs {
    dev: u64,
    space: Rc<Space>,
    next_ino: Cell<u64>,
    nodes: Cell<u64>,
    start: RefCell<Option<Start>>,
    lower: OnceCell<Packed>,
    /// Nodes of packed files with several names, which must be one object.
    linked: RefCell<BTreeMap<u32, Rc<TmpNode>>>,
}

impl TmpFs {
    /// An empty file system of at most `pages` pages of file data; `mode` is that of its root. `dev` must be unique.
    pub fn root(system: &Rc<dyn System>, dev: u64, pages: u64, mode: u32) -> Rc<TmpNode> {
        Self::make(system, dev, pages, mode, None)
    }

    /// A file system that shows the packed files of `archive` and takes changes above them. `fill` is called with the root before
    /// anything is looked up there.
    pub fn over(
        system: &Rc<dyn System>,
        dev: u64,
        pages: u64,
        archive: &'static [u8],
        fill: Box<dyn FnOnce(&Node)>,
    ) -> Rc<TmpNode> {
        Self::make(system, dev, pages, 0o755, Some(Start { archive, fill }))
    }

    fn make(
        system: &Rc<dyn System>,
        dev: u64,
        pages: u64,
        mode: u32,
        start: Option<Start>,
    ) -> Rc<TmpNode> {
        let space = Rc::new(Space::new(system.clone(), pages));
        let (next_ino, nodes) = (Cell::new(FIRST_NEW), Cell::new(0));
        let (start, lower, linked) = (RefCell::new(start), OnceCell::new(), RefCell::default());
        let fs = Rc::new(Self {
            dev,
            space,
            next_ino,
            nodes,
            start,
            lower,
            linked,
        });
        TmpNode::root(&fs, mode)
    }

    /// Indexes the packed files and fills the tree, once.
    fn wake(&self, root: &Rc<TmpNode>) {
        let Some(Start { archive, fill }) = self.start.take() else {
            return;
        };
        let packed = self.lower.get_or_init(|| Packed::new(archive));
        self.nodes.set(self.nodes.get() + packed.len() as u64);
        root.show_packed_root(packed);
        fill(&(root.clone() as Node));
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
        if self.nodes.get() < self.inode_limit() {
            Ok(())
        } else {
            Err(crate::Errno::ENOSPC)
        }
    }

    fn inode_limit(&self) -> u64 {
        self.space.limit() + self.lower.get().map_or(0, |packed| packed.len() as u64)
    }

    fn statfs(&self) -> StatFs {
        let files = self.inode_limit();
        StatFs {
            magic: TMPFS_MAGIC,
            block_size: PAGE as u64,
            blocks: self.space.limit(),
            free: self.space.free_pages(),
            files,
            files_free: files.saturating_sub(self.nodes.get()),
        }
    }
}
