//! The mount table: [`Mounts`] says under which names the roots of other file systems appear.
//!
//! A mount is known by its place (directory and name), so passing it needs no look-up in the directory below, which may not even be
//! there yet (see [`crate::tree`]).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::inode::{FileType, Inode, Name, Node, same};
use crate::{Errno, Result};

/// One mounted file system.
#[derive(Clone)]
pub struct Mount {
    /// The directory and the name in it that show this file system; `None` for the root file system.
    pub place: Option<(Node, Name)>,
    /// Its root directory.
    pub root: Node,
    /// What `/proc/mounts` calls it (`tmpfs`, `proc`).
    pub name: &'static str,
    /// Read only.
    pub read_only: bool,
}

impl Mount {
    fn is_at(&self, directory: &dyn Inode, name: &[u8]) -> bool {
        self.place
            .as_ref()
            .is_some_and(|place| *place.1 == *name && same(&*place.0, directory))
    }
}

/// All mounts, the root first. Shared by the walker and `/proc`.
#[derive(Clone, Default)]
pub struct Mounts(Rc<RefCell<Vec<Mount>>>);

impl Mounts {
    /// A table with a root file system.
    pub fn new(root: Node, name: &'static str) -> Self {
        Self(Rc::new(RefCell::new(alloc::vec![Mount {
            place: None,
            root,
            name,
            read_only: false
        }])))
    }

    /// Mounts `root` as `name` of `directory`.
    pub fn add(
        &self,
        directory: Node,
        name: &[u8],
        root: Node,
        kind: &'static str,
        read_only: bool,
    ) -> Result<()> {
        if directory.kind() != FileType::Directory || root.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.0.borrow_mut().push(Mount {
            place: Some((directory, name.into())),
            root,
            name: kind,
            read_only,
        });
        Ok(())
    }

    /// The root of what is mounted as `name` of `directory`; the latest mount covers earlier ones.
    pub fn at(&self, directory: &dyn Inode, name: &[u8]) -> Option<Node> {
        let mounts = self.0.borrow();
        mounts
            .iter()
            .rev()
            .find(|mount| mount.is_at(directory, name))
            .map(|mount| mount.root.clone())
    }

    /// Where `node` is mounted, when it is the root of a mount.
    pub fn place(&self, node: &dyn Inode) -> Option<(Node, Name)> {
        let mounts = self.0.borrow();
        mounts
            .iter()
            .find(|mount| same(&*mount.root, node))
            .and_then(|mount| mount.place.clone())
    }

    /// Whether `node` is the root of a mount.
    pub fn is_root(&self, node: &dyn Inode) -> bool {
        self.0.borrow().iter().any(|mount| same(&*mount.root, node))
    }

    /// `..` of a directory.
    pub fn parent(&self, node: &Node) -> Node {
        let place = self.place(&**node).or_else(|| node.place());
        place.map_or_else(|| node.clone(), |(parent, _)| parent)
    }

    /// Whether `node` lies on a mount that takes no changes.
    pub fn read_only(&self, node: &dyn Inode) -> bool {
        self.0
            .borrow()
            .iter()
            .any(|mount| mount.read_only && mount.root.dev() == node.dev())
    }

    /// A copy of the table.
    pub fn list(&self) -> Vec<Mount> {
        self.0.borrow().clone()
    }
}
