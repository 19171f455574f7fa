//! The names in a tmpfs directory: [`Dir`], with stable listing positions, over an optional packed directory.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;

use super::node::{TmpNode, packed_ino};
use crate::inode::{DirEntry, FileType, Name};
use crate::packed::Packed;
use crate::{Errno, Inode, Result};

/// A name above the packed directory. Without a node it hides the packed entry of that name (a whiteout).
struct Slot {
    position: u64,
    node: Option<Rc<TmpNode>>,
}

/// Entries of one directory. Positions below `packed` belong to the packed children in their order; names made later count on.
pub struct Dir {
    /// The packed directory below; its number of children.
    lower: Option<u32>,
    packed: u64,
    slots: BTreeMap<Name, Slot>,
    order: BTreeMap<u64, Name>,
    next: u64,
    live: u64,
    subdirs: u64,
}

/// What a look-up finds.
pub enum Found {
    /// A node.
    Node(Rc<TmpNode>),
    /// An untouched packed object and its position.
    Packed(u32, u64),
}

impl Dir {
    /// An empty directory.
    pub fn new() -> Self {
        Self {
            lower: None,
            packed: 0,
            slots: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            live: 0,
            subdirs: 0,
        }
    }

    /// The packed directory `index`.
    pub fn over(packed: &Packed, index: u32) -> Self {
        let count = packed.children(index).len() as u64;
        Self {
            lower: Some(index),
            packed: count,
            next: count,
            live: count,
            subdirs: packed.subdirectories(index).into(),
            ..Self::new()
        }
    }

    /// True when no name is left.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Names.
    pub fn len(&self) -> u64 {
        self.live
    }

    /// Directories among the names.
    pub fn subdirs(&self) -> u64 {
        self.subdirs
    }

    /// Looks for `name`; `packed` is that of this file system.
    pub fn find(&self, packed: &Packed, name: &[u8]) -> Option<Found> {
        if let Some(slot) = self.slots.get(name) {
            return slot.node.clone().map(Found::Node);
        }
        let lower = self.lower?;
        let child = packed.find(lower, name)?;
        let position = child - packed.children(lower).start;
        Some(Found::Packed(child, position.into()))
    }

    /// Puts the node made for a packed object in its place.
    pub fn adopt(&mut self, name: Name, position: u64, node: Rc<TmpNode>) {
        self.slots.insert(
            name,
            Slot {
                position,
                node: Some(node),
            },
        );
    }

    /// Adds a name, which must be free.
    pub fn insert(&mut self, name: Name, node: Rc<TmpNode>) {
        let position = self.next;
        self.next += 1;
        self.live += 1;
        self.subdirs += u64::from(node.kind() == FileType::Directory);
        self.order.insert(position, name.clone());
        self.slots.insert(
            name,
            Slot {
                position,
                node: Some(node),
            },
        );
    }

    /// Removes a name that stands for a node (look it up first).
    pub fn remove(&mut self, packed: &Packed, name: &[u8]) -> Result<Rc<TmpNode>> {
        let slot = self.slots.get_mut(name).ok_or(Errno::ENOENT)?;
        let node = slot.node.take().ok_or(Errno::ENOENT)?;
        self.order.remove(&slot.position);
        let hides = self
            .lower
            .is_some_and(|lower| packed.find(lower, name).is_some());
        if hides {
            slot.position = u64::MAX;
        } else {
            self.slots.remove(name);
        }
        self.live -= 1;
        self.subdirs -= u64::from(node.kind() == FileType::Directory);
        Ok(node)
    }

    /// Replaces the node of a name in its place (rename over it, exchange).
    pub fn replace(&mut self, name: &[u8], node: Rc<TmpNode>) -> Result<Rc<TmpNode>> {
        let is_dir = u64::from(node.kind() == FileType::Directory);
        let slot = self
            .slots
            .get_mut(name)
            .and_then(|slot| slot.node.as_mut())
            .ok_or(Errno::ENOENT)?;
        let old = core::mem::replace(slot, node);
        self.subdirs = self.subdirs + is_dir - u64::from(old.kind() == FileType::Directory);
        Ok(old)
    }

    /// Lists from position `from`.
    pub fn list(&self, packed: &Packed, from: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) {
        if let Some(lower) = self.lower {
            for (position, child) in (0u64..)
                .zip(packed.children(lower))
                .skip(from.min(self.packed) as usize)
            {
                let name = packed.name(child);
                let shown = match self.slots.get(name) {
                    None => Some((packed_ino(child), packed.kind(child))),
                    Some(slot) if slot.position == position => {
                        slot.node.as_ref().map(|node| (node.ino(), node.kind()))
                    }
                    Some(_) => None,
                };
                if let Some((ino, kind)) = shown
                    && !emit(DirEntry {
                        ino,
                        next: position + 1,
                        kind,
                        name,
                    })
                {
                    return;
                }
            }
        }
        for (&position, name) in self.order.range(from.max(self.packed)..) {
            let Some(node) = self.slots.get(name).and_then(|slot| slot.node.as_ref()) else {
                continue;
            };
            if !emit(DirEntry {
                ino: node.ino(),
                next: position + 1,
                kind: node.kind(),
                name,
            }) {
                return;
            }
        }
    }
}
