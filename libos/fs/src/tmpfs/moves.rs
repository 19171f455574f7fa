//! Renaming in a tmpfs: moving, replacing and exchanging names.

use alloc::rc::Rc;

use super::node::{Body, TmpNode};
use crate::inode::{FileType, RENAME_EXCHANGE, RENAME_NOREPLACE};
use crate::{Errno, Result};

impl TmpNode {
    /// Moves the name `old` to `new` of `to`.
    pub(super) fn move_name(
        &self,
        old: &[u8],
        to: &Rc<Self>,
        new: &[u8],
        flags: u32,
    ) -> Result<()> {
        if !Rc::ptr_eq(&to.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        let node = self.child(old)?;
        let target = match to.child(new) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        if flags & RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        to.check_alive()?;
        if flags & RENAME_EXCHANGE != 0 {
            return self.exchange(old, to, new, (node, target.ok_or(Errno::ENOENT)?));
        }
        if node.kind == FileType::Directory && node.is_ancestor_of(to) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = target {
            if Rc::ptr_eq(&target, &node) {
                return Ok(());
            }
            if self.is_below(&target) {
                return Err(Errno::ENOTEMPTY); // it holds what is moved, whatever that is
            }
            Self::check_replace(&node, &target)?;
            to.dir()?.borrow_mut().remove(to.packed(), new)?;
            target.drop_link();
        }
        self.dir()?.borrow_mut().remove(self.packed(), old)?;
        to.dir()?.borrow_mut().insert(new.into(), node.clone());
        node.moved_to(to, new);
        self.touch_data();
        to.touch_data();
        Ok(())
    }

    fn is_ancestor_of(&self, node: &Rc<Self>) -> bool {
        let mut at = Some(node.clone());
        while let Some(node) = at {
            if core::ptr::eq(&*node, self) {
                return true;
            }
            at = node
                .place
                .borrow()
                .as_ref()
                .and_then(|(parent, _)| parent.upgrade());
        }
        false
    }

    fn is_below(&self, node: &Self) -> bool {
        node.kind == FileType::Directory
            && self.me.upgrade().is_some_and(|me| node.is_ancestor_of(&me))
    }

    /// Checks that `moved` may take the place of `target`.
    fn check_replace(moved: &Rc<Self>, target: &Rc<Self>) -> Result<()> {
        match (&moved.body, &target.body) {
            (Body::Dir(_), Body::Dir(dir)) if dir.borrow().is_empty() => Ok(()),
            (Body::Dir(_), Body::Dir(_)) => Err(Errno::ENOTEMPTY),
            (Body::Dir(_), _) => Err(Errno::ENOTDIR),
            (_, Body::Dir(_)) => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    fn moved_to(self: &Rc<Self>, dir: &Rc<Self>, name: &[u8]) {
        *self.place.borrow_mut() = Some((Rc::downgrade(dir), name.into()));
        self.touch_attr();
    }

    fn exchange(
        &self,
        old: &[u8],
        to: &Rc<Self>,
        new: &[u8],
        nodes: (Rc<Self>, Rc<Self>),
    ) -> Result<()> {
        let (a, b) = nodes;
        if a.is_ancestor_of(to) || self.is_below(&b) {
            return Err(Errno::EINVAL);
        }
        self.dir()?.borrow_mut().replace(old, b.clone())?;
        to.dir()?.borrow_mut().replace(new, a.clone())?;
        a.moved_to(to, new);
        if let Some(me) = self.me.upgrade() {
            b.moved_to(&me, old);
        }
        Ok(())
    }
}
