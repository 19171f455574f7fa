//! The mount table: [`Mounts`] says which directories show the root of another file system.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::inode::{FileType, Node, same};
use crate::{Errno, Result};

/// One mounted file system.
#[derive(Clone)]
pub struct Mount {
    /// The directory that it covers; `None` for the root file system.
    pub point: Option<Node>,
    /// Its root directory.
    pub root: Node,
    /// What `/proc/mounts` calls it (`tmpfs`, `proc`).
    pub name: &'static str,
    /// Read only.
    pub read_only: bool,
}

/// All mounts, the root first. Shared by the walker and `/proc`.
#[derive(Clone, Default)]
pub struct Mounts(Rc<RefCell<Vec<Mount>>>);

impl Mounts {
    /// A table with a root file system.
    pub fn new(root: Node, name: &'static str) -> Self {
        Self(Rc::new(RefCell::new(alloc::vec![Mount { point: None, root, name, read_only: false }])))
    }

    /// Mounts `root` over the directory `point`.
    pub fn add(&self, point: Node, root: Node, name: &'static str, read_only: bool) -> Result<()> {
        if point.kind() != FileType::Directory || root.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.0.borrow_mut().push(Mount { point: Some(point), root, name, read_only });
        Ok(())
    }

    /// The root of what is mounted on `node`, or `node`.
    pub fn enter(&self, node: Node) -> Node {
        if node.kind() != FileType::Directory {
            return node;
        }
        let mounts = self.0.borrow();
        let mut node = node;
        while let Some(mount) = mounts.iter().rev().find(|mount| mount.point.as_ref().is_some_and(|point| same(&**point, &*node))) {
            node = mount.root.clone();
        }
        node
    }

    /// The directory that `node` covers, when it is the root of a mount.
    pub fn mount_point(&self, node: &Node) -> Option<Node> {
        let mounts = self.0.borrow();
        mounts.iter().find(|mount| same(&*mount.root, &**node)).and_then(|mount| mount.point.clone())
    }

    /// Whether `node` is the root of a mount.
    pub fn is_root(&self, node: &Node) -> bool {
        self.0.borrow().iter().any(|mount| same(&*mount.root, &**node))
    }

    /// Whether something is mounted on `node` (which then can neither be removed nor renamed).
    pub fn is_point(&self, node: &Node) -> bool {
        let mounts = self.0.borrow();
        mounts.iter().any(|mount| mount.point.as_ref().is_some_and(|point| same(&**point, &**node)))
    }

    /// `..` of a directory.
    pub fn parent(&self, node: &Node) -> Node {
        let below = self.mount_point(node).unwrap_or_else(|| node.clone());
        below.place().map_or(below, |(parent, _)| parent)
    }

    /// Whether `node` lies on a mount that takes no changes.
    pub fn read_only(&self, node: &Node) -> bool {
        self.0.borrow().iter().any(|mount| mount.read_only && mount.root.dev() == node.dev())
    }

    /// A copy of the table.
    pub fn list(&self) -> Vec<Mount> {
        self.0.borrow().clone()
    }
}
