//! Operations on names: mkdir, mknod, symlink, link, unlink, rmdir, rename, readlink, chdir, chroot, getcwd.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use crate::cred;
use crate::inode::{FileType, Node, RENAME_EXCHANGE, RENAME_NOREPLACE, same};
use crate::vfs::Vfs;
use crate::walk::{Last, Resolved, Rules, Target};
use crate::{Errno, Result};

/// Resolution of a name that is about to be made, removed or moved.
const PARENT: Rules = Rules {
    follow: false,
    no_symlinks: false,
    no_magic: false,
    beneath: false,
    in_root: false,
    no_xdev: false,
    parent: true,
    create: false,
};

impl Vfs {
    /// `mkdirat`.
    pub fn mkdir(&self, dirfd: i32, path: &[u8], mode: u32) -> Result<()> {
        let found = self.resolve(dirfd, path, PARENT)?;
        let name = vacant(&found, true)?;
        self.may_change(&found.directory)?;
        found.directory.create(
            name,
            &self.new_node(&found.directory, FileType::Directory, mode & 0o1777),
        )?;
        self.tell_created(&found, name, FileType::Directory);
        Ok(())
    }

    /// `mknodat`: regular files, FIFOs, socket names and (root only) device nodes.
    pub fn mknod(&self, dirfd: i32, path: &[u8], mode: u32, rdev: u64) -> Result<()> {
        let kind = match mode & linux::S_IFMT {
            0 => FileType::Regular,
            linux::S_IFDIR => return Err(Errno::EPERM),
            _ => FileType::from_mode(mode)
                .filter(|&kind| kind != FileType::Symlink)
                .ok_or(Errno::EINVAL)?,
        };
        let found = self.resolve(dirfd, path, PARENT)?;
        let name = vacant(&found, false)?;
        if matches!(kind, FileType::CharDevice | FileType::BlockDevice)
            && !self.cred.borrow().is_root()
        {
            return Err(Errno::EPERM);
        }
        self.may_change(&found.directory)?;
        let mut new = self.new_node(&found.directory, kind, mode);
        new.rdev = rdev;
        found.directory.create(name, &new)?;
        self.tell_created(&found, name, kind);
        Ok(())
    }

    /// `symlinkat`.
    pub fn symlink(&self, target: &[u8], dirfd: i32, path: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let found = self.resolve(dirfd, path, PARENT)?;
        let name = vacant(&found, false)?;
        self.may_change(&found.directory)?;
        let new = self.new_node(&found.directory, FileType::Symlink, 0o777);
        found.directory.symlink(name, target, (new.uid, new.gid))?;
        self.tell_created(&found, name, FileType::Symlink);
        Ok(())
    }

    /// `linkat`; `AT_SYMLINK_FOLLOW` and `AT_EMPTY_PATH` of `flags` count.
    pub fn link(&self, old: (i32, &[u8]), new: (i32, &[u8]), flags: u32) -> Result<()> {
        if flags & !(linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        let follow = if flags & linux::AT_SYMLINK_FOLLOW == 0 {
            linux::AT_SYMLINK_NOFOLLOW
        } else {
            0
        };
        let node = self
            .find(old.0, old.1, flags & linux::AT_EMPTY_PATH | follow)?
            .into_node()?;
        let found = self.resolve(new.0, new.1, PARENT)?;
        let name = vacant(&found, false)?;
        if node.dev() != found.directory.dev() {
            return Err(Errno::EXDEV);
        }
        self.may_change(&found.directory)?;
        found.directory.link(name, &node)?;
        self.watchers.tell_links(&node);
        self.tell_created(&found, name, node.kind());
        Ok(())
    }

    fn tell_created(&self, found: &Resolved, name: &[u8], kind: FileType) {
        self.watchers
            .tell_name(&found.directory, name, kind, linux::IN_CREATE);
    }

    fn tell_removed(&self, found: &Resolved, name: &[u8], node: &Node) {
        self.watchers.tell_links(node);
        self.watchers
            .tell_name(&found.directory, name, node.kind(), linux::IN_DELETE);
    }

    /// `unlink`, or `rmdir` with `AT_REMOVEDIR`.
    pub fn unlink(&self, dirfd: i32, path: &[u8], flags: u32) -> Result<()> {
        match flags {
            0 => self.remove_file(dirfd, path),
            linux::AT_REMOVEDIR => self.remove_directory(dirfd, path),
            _ => Err(Errno::EINVAL),
        }
    }

    fn remove_file(&self, dirfd: i32, path: &[u8]) -> Result<()> {
        let found = self.resolve(dirfd, path, PARENT)?;
        let Last::Name(name) = &found.last else {
            return Err(Errno::EISDIR);
        };
        let node = found.target.clone().ok_or(Errno::ENOENT)?.into_node()?;
        if found.slash {
            return Err(if node.kind() == FileType::Directory {
                Errno::EISDIR
            } else {
                Errno::ENOTDIR
            });
        }
        self.may_remove(&found.directory, &node)?;
        found.directory.unlink(name)?;
        self.tell_removed(&found, name, &node);
        Ok(())
    }

    fn remove_directory(&self, dirfd: i32, path: &[u8]) -> Result<()> {
        let found = self.resolve(dirfd, path, PARENT)?;
        let name = match &found.last {
            Last::Name(name) => name,
            Last::Dot => return Err(Errno::EINVAL),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Root => return Err(Errno::EBUSY),
        };
        let node = found.target.clone().ok_or(Errno::ENOENT)?.into_node()?;
        if node.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.mounts.is_root(&*node) || same(&*node, &*self.root()) {
            return Err(Errno::EBUSY);
        }
        self.may_remove(&found.directory, &node)?;
        found.directory.rmdir(name)?;
        self.tell_removed(&found, name, &node);
        Ok(())
    }

    /// `renameat2`.
    pub fn rename(&self, old: (i32, &[u8]), new: (i32, &[u8]), flags: u32) -> Result<()> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0
            || flags == RENAME_NOREPLACE | RENAME_EXCHANGE
        {
            return Err(Errno::EINVAL);
        }
        let from = self.resolve(old.0, old.1, PARENT)?;
        let to = self.resolve(new.0, new.1, PARENT)?;
        if from.directory.dev() != to.directory.dev() {
            return Err(Errno::EXDEV);
        }
        let Last::Name(from_name) = &from.last else {
            return Err(Errno::EBUSY);
        };
        let Last::Name(to_name) = &to.last else {
            return Err(if flags & RENAME_NOREPLACE != 0 {
                Errno::EEXIST
            } else {
                Errno::EBUSY
            });
        };
        let source = from.target.clone().ok_or(Errno::ENOENT)?.into_node()?;
        let target = to.target.clone().map(Target::into_node).transpose()?;
        self.check_rename(&from, &to, &source, target.as_ref(), flags)?;
        from.directory
            .rename(from_name, &to.directory, to_name, flags)?;
        let (old, new) = ((&from.directory, &**from_name), (&to.directory, &**to_name));
        if target
            .as_ref()
            .is_some_and(|target| same(&**target, &*source))
        {
            return Ok(()); // two names of one file: nothing happened
        }
        self.watchers.tell_moved(&source, old, new);
        match &target {
            Some(target) if flags & RENAME_EXCHANGE != 0 => {
                self.watchers.tell_moved(target, new, old);
            }
            Some(target) => self.watchers.tell_links(target),
            None => {}
        }
        Ok(())
    }

    fn check_rename(
        &self,
        from: &Resolved,
        to: &Resolved,
        source: &Node,
        target: Option<&Node>,
        flags: u32,
    ) -> Result<()> {
        if flags & RENAME_NOREPLACE != 0 && target.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & RENAME_EXCHANGE != 0 && target.is_none() {
            return Err(Errno::ENOENT);
        }
        if flags & RENAME_EXCHANGE != 0
            && to.slash
            && target.is_some_and(|node| node.kind() != FileType::Directory)
        {
            return Err(Errno::ENOTDIR);
        }
        let source_is_dir = source.kind() == FileType::Directory;
        if !source_is_dir && (from.slash || (flags & RENAME_EXCHANGE == 0 && to.slash)) {
            return Err(Errno::ENOTDIR);
        }
        if self.mounts.is_root(&**source) || target.is_some_and(|node| self.mounts.is_root(&**node))
        {
            return Err(Errno::EBUSY);
        }
        self.may_remove(&from.directory, source)?;
        match target {
            Some(target) => self.may_remove(&to.directory, target),
            None => self.may_change(&to.directory),
        }
    }

    /// Whether `node` may be removed from `directory` (the sticky bit counts).
    fn may_remove(&self, directory: &Node, node: &Node) -> Result<()> {
        self.may_change(directory)?;
        let cred = self.cred.borrow();
        let parent = directory.metadata();
        if parent.mode & linux::S_ISVTX != 0 && !cred.owns(&parent) && !cred.owns(&node.metadata())
        {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// `readlinkat`: the text (the caller cuts it to its buffer).
    pub fn readlink(&self, dirfd: i32, path: &[u8]) -> Result<Vec<u8>> {
        let empty = path.is_empty();
        let target = self.find(
            dirfd,
            path,
            linux::AT_EMPTY_PATH | linux::AT_SYMLINK_NOFOLLOW,
        );
        let node = match target {
            Ok(Target::Node(node)) => node,
            Ok(Target::File(_)) => return Err(if empty { Errno::ENOENT } else { Errno::EINVAL }),
            Err(error) => return Err(error),
        };
        if node.kind() != FileType::Symlink {
            return Err(if empty { Errno::ENOENT } else { Errno::EINVAL });
        }
        node.readlink()
    }

    /// `chdir`.
    pub fn chdir(&self, path: &[u8]) -> Result<()> {
        let node = self.find(crate::vfs::AT_FDCWD, path, 0)?.into_node()?;
        self.change_to(node)
    }

    /// `fchdir`.
    pub fn fchdir(&self, fd: i32) -> Result<()> {
        let node = self.fds.get(fd)?.node().ok_or(Errno::ENOTDIR)?;
        self.change_to(node)
    }

    fn change_to(&self, node: Node) -> Result<()> {
        if node.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.permit(&*node, cred::EXECUTE)?;
        self.set_cwd(node);
        Ok(())
    }

    /// `chroot`.
    pub fn chroot(&self, path: &[u8]) -> Result<()> {
        let node = self.find(crate::vfs::AT_FDCWD, path, 0)?.into_node()?;
        if node.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !self.cred.borrow().is_root() {
            return Err(Errno::EPERM);
        }
        self.set_root(node);
        Ok(())
    }

    /// `getcwd`, without the final NUL. `ENOENT` when the directory was removed.
    pub fn getcwd(&self) -> Result<Vec<u8>> {
        self.path_of(&self.cwd()).ok_or(Errno::ENOENT)
    }
}

/// The name to make, when it is free. Only a directory may be asked for with a slash at the end.
fn vacant(found: &Resolved, directory: bool) -> Result<&[u8]> {
    match &found.last {
        Last::Name(_) if found.target.is_some() => Err(Errno::EEXIST),
        Last::Name(_) if found.slash && !directory => Err(Errno::ENOENT),
        Last::Name(name) => Ok(name),
        _ => Err(Errno::EEXIST),
    }
}
