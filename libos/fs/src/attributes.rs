//! Operations on attributes: stat, access, chmod, chown, utimens, truncate, statfs.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use crate::cred::{self, Cred};
use crate::inode::{FileType, Metadata, Node, SetAttr, StatFs};
use crate::system::Time;
use crate::vfs::Vfs;
use crate::walk::Target;
use crate::{Errno, Result, anon};

/// One time of `utimensat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// UTIME_OMIT.
    Keep,
    /// UTIME_NOW.
    Now,
    /// This one.
    To(Time),
}

impl Vfs {
    /// `newfstatat`; `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW` of `flags` count.
    pub fn stat(&self, dirfd: i32, path: &[u8], flags: u32) -> Result<Metadata> {
        if path.is_empty() && flags & linux::AT_EMPTY_PATH != 0 && dirfd != crate::vfs::AT_FDCWD {
            return Ok(self.fds.get(dirfd)?.metadata());
        }
        Ok(match self.find(dirfd, path, flags)? {
            Target::Node(node) => node.metadata(),
            Target::File(file) => file.metadata(),
        })
    }

    /// `faccessat2`: `want` is a mask of R_OK, W_OK, X_OK.
    pub fn access(&self, dirfd: i32, path: &[u8], want: u32, flags: u32) -> Result<()> {
        let known = linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
        if want & !7 != 0 || flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let target = self.find(dirfd, path, flags)?;
        if want == 0 {
            return Ok(());
        }
        match target {
            Target::Node(node) => {
                self.permit(&*node, want)?;
                let stored = matches!(
                    node.kind(),
                    FileType::Regular | FileType::Directory | FileType::Symlink
                );
                if want & cred::WRITE != 0 && stored && self.mounts.read_only(&*node) {
                    return Err(Errno::EROFS);
                }
                Ok(())
            }
            Target::File(file) => self.cred.borrow().check(&file.metadata(), want),
        }
    }

    /// `fchmodat2`.
    pub fn chmod(&self, dirfd: i32, path: &[u8], mode: u32, flags: u32) -> Result<()> {
        match self.find(dirfd, path, flags)? {
            Target::Node(node) => self.chmod_node(&node, mode),
            Target::File(_) => Ok(()),
        }
    }

    /// `fchmod`.
    pub fn fchmod(&self, fd: i32, mode: u32) -> Result<()> {
        let file = self.usable(fd)?;
        if let Some(node) = file.node() {
            return self.chmod_node(&node, mode);
        }
        file.object().set_mode(mode & 0o7777);
        Ok(())
    }

    fn chmod_node(&self, node: &Node, mode: u32) -> Result<()> {
        if node.kind() == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        self.check_writable_mount(node)?;
        let meta = node.metadata();
        let cred = self.cred.borrow();
        if !cred.owns(&meta) {
            return Err(Errno::EPERM);
        }
        let keeps_group = cred.is_root() || cred.in_group(meta.gid);
        let mode = if keeps_group {
            mode
        } else {
            mode & !linux::S_ISGID
        };
        node.set_attr(&SetAttr {
            mode: Some(mode & 0o7777),
            ..SetAttr::default()
        })?;
        self.watchers.tell(node, linux::IN_ATTRIB);
        Ok(())
    }

    /// `fchownat`; `None` (the system call's -1) keeps.
    pub fn chown(
        &self,
        dirfd: i32,
        path: &[u8],
        owner: (Option<u32>, Option<u32>),
        flags: u32,
    ) -> Result<()> {
        if flags & !(linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        match self.find(dirfd, path, flags)? {
            Target::Node(node) => self.chown_node(&node, owner),
            Target::File(_) => Ok(()),
        }
    }

    /// `fchown`.
    pub fn fchown(&self, fd: i32, owner: (Option<u32>, Option<u32>)) -> Result<()> {
        let file = self.usable(fd)?;
        file.node()
            .map_or(Ok(()), |node| self.chown_node(&node, owner))
    }

    fn chown_node(&self, node: &Node, (uid, gid): (Option<u32>, Option<u32>)) -> Result<()> {
        self.check_writable_mount(node)?;
        let meta = node.metadata();
        let cred = self.cred.borrow();
        check_chown(&cred, &meta, uid, gid)?;
        let mut change = SetAttr {
            uid,
            gid,
            ..SetAttr::default()
        };
        if meta.kind() != FileType::Directory {
            let group_run = if meta.mode & 0o010 != 0 {
                linux::S_ISGID
            } else {
                0
            };
            change.mode = Some(meta.mode & 0o7777 & !(linux::S_ISUID | group_run));
        }
        node.set_attr(&change)?;
        self.watchers.tell(node, linux::IN_ATTRIB);
        Ok(())
    }

    /// `utimensat` on a path.
    pub fn utimens(
        &self,
        dirfd: i32,
        path: &[u8],
        times: (SetTime, SetTime),
        flags: u32,
    ) -> Result<()> {
        if flags & !(linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        match self.find(dirfd, path, flags)? {
            Target::Node(node) => self.utimens_node(&node, times),
            Target::File(_) => Ok(()),
        }
    }

    /// `utimensat` on a descriptor (no path given).
    pub fn futimens(&self, fd: i32, times: (SetTime, SetTime)) -> Result<()> {
        let file = self.usable(fd)?;
        file.node()
            .map_or(Ok(()), |node| self.utimens_node(&node, times))
    }

    fn utimens_node(&self, node: &Node, (atime, mtime): (SetTime, SetTime)) -> Result<()> {
        if atime == SetTime::Keep && mtime == SetTime::Keep {
            return Ok(());
        }
        self.check_writable_mount(node)?;
        if !self.cred.borrow().owns(&node.metadata()) {
            let both_now = atime == SetTime::Now && mtime == SetTime::Now;
            if !both_now {
                return Err(Errno::EPERM);
            }
            self.permit(&**node, cred::WRITE)?;
        }
        let now = self.system().now();
        let time = |set| match set {
            SetTime::Keep => None,
            SetTime::Now => Some(now),
            SetTime::To(time) => Some(time),
        };
        node.set_attr(&SetAttr {
            atime: time(atime),
            mtime: time(mtime),
            ..SetAttr::default()
        })?;
        let what = match (atime, mtime) {
            (SetTime::Keep, _) => linux::IN_MODIFY,
            (_, SetTime::Keep) => linux::IN_ACCESS,
            _ => linux::IN_ATTRIB,
        };
        self.watchers.tell(node, what);
        Ok(())
    }

    /// `truncate`.
    pub fn truncate(&self, path: &[u8], size: i64) -> Result<()> {
        let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
        let node = self.find(crate::vfs::AT_FDCWD, path, 0)?.into_node()?;
        match node.kind() {
            FileType::Directory => return Err(Errno::EISDIR),
            FileType::Regular => {}
            _ => return Err(Errno::EINVAL),
        }
        self.permit(&*node, cred::WRITE)?;
        self.check_writable_mount(&node)?;
        self.cut(&node, size)
    }

    fn cut(&self, node: &Node, size: u64) -> Result<()> {
        node.truncate(size)?;
        self.watchers.tell(node, linux::IN_MODIFY);
        Ok(())
    }

    /// `ftruncate`.
    pub fn ftruncate(&self, fd: i32, size: i64) -> Result<()> {
        let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
        let file = self.usable(fd)?;
        let node = file
            .node()
            .filter(|node| node.kind() == FileType::Regular && file.writable())
            .ok_or(Errno::EINVAL)?;
        self.cut(&node, size)
    }

    /// `statfs`.
    pub fn statfs(&self, path: &[u8]) -> Result<StatFs> {
        Ok(self
            .find(crate::vfs::AT_FDCWD, path, 0)?
            .into_node()?
            .statfs())
    }

    /// `fstatfs`.
    pub fn fstatfs(&self, fd: i32) -> Result<StatFs> {
        let file = self.fds.get(fd)?;
        Ok(file
            .node()
            .map_or_else(|| anon::statfs(file.metadata().dev), |node| node.statfs()))
    }

    /// The file of `fd`, unless it was opened with `O_PATH`.
    fn usable(&self, fd: i32) -> Result<alloc::rc::Rc<crate::file::OpenFile>> {
        self.fds
            .get(fd)
            .ok()
            .filter(|file| !file.path_only())
            .ok_or(Errno::EBADF)
    }

    fn check_writable_mount(&self, node: &Node) -> Result<()> {
        if self.mounts.read_only(&**node) {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// Reads an extended attribute of `node` (`getxattr`).
    pub fn get_xattr(&self, node: &Node, name: &[u8]) -> Result<Vec<u8>> {
        self.permit_xattr(node, name, cred::READ)?;
        node.get_xattr(name)
    }

    /// Sets one (`setxattr`; `XATTR_CREATE`, `XATTR_REPLACE` in `flags`).
    pub fn set_xattr(&self, node: &Node, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.check_writable_mount(node)?;
        self.permit_xattr(node, name, cred::WRITE)?;
        node.set_xattr(name, value, flags)?;
        self.watchers.tell(node, linux::IN_ATTRIB);
        Ok(())
    }

    /// Names of the extended attributes of `node`, each ended by NUL (`listxattr`).
    pub fn list_xattr(&self, node: &Node) -> Vec<u8> {
        node.list_xattr(self.cred.borrow().is_root())
    }

    /// Removes one (`removexattr`).
    pub fn remove_xattr(&self, node: &Node, name: &[u8]) -> Result<()> {
        self.check_writable_mount(node)?;
        self.permit_xattr(node, name, cred::WRITE)?;
        node.remove_xattr(name)?;
        self.watchers.tell(node, linux::IN_ATTRIB);
        Ok(())
    }

    /// Who may read or write an extended attribute, by the class of its name (xattr_permission() and cap_inode_setxattr() of Linux).
    fn permit_xattr(&self, node: &Node, name: &[u8], want: u32) -> Result<()> {
        let write = want == cred::WRITE;
        let root = self.cred.borrow().is_root();
        let refused = if write { Errno::EPERM } else { Errno::ENODATA };
        if name.starts_with(b"trusted.") {
            return if root { Ok(()) } else { Err(refused) };
        }
        if name.starts_with(b"security.") {
            return if root || !write { Ok(()) } else { Err(refused) };
        }
        if name.starts_with(b"user.") {
            let meta = node.metadata();
            let directory = node.kind() == FileType::Directory;
            if !directory && node.kind() != FileType::Regular {
                return Err(refused);
            }
            let sticky = directory && meta.mode & linux::S_ISVTX != 0;
            if sticky && write && !self.cred.borrow().owns(&meta) {
                return Err(refused);
            }
        }
        self.permit(&**node, want)
    }

    /// Where extended attributes of a path are asked; what has no inode has none.
    pub fn xattr_node(&self, dirfd: i32, path: &[u8], flags: u32) -> Result<Node> {
        match self.find(dirfd, path, flags)? {
            Target::Node(node) => Ok(node),
            Target::File(_) => Err(Errno::EOPNOTSUPP),
        }
    }
}

fn check_chown(cred: &Cred, meta: &Metadata, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    if cred.is_root() {
        return Ok(());
    }
    let keeps_user = uid.is_none_or(|uid| uid == meta.uid && cred.uid == meta.uid);
    let own_group =
        gid.is_none_or(|gid| cred.uid == meta.uid && (gid == meta.gid || cred.in_group(gid)));
    if keeps_user && own_group {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
