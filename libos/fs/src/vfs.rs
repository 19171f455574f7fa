//! [`Vfs`]: the process's view of all file systems: root, working directory, umask, identity, descriptors; and `open`.
//!
//! The other operations on names stand in [`crate::names`], those on attributes in [`crate::attributes`].

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general as linux;

use crate::console::Console;
use crate::cred::{self, Cred};
use crate::fdtable::FdTable;
use crate::file::{FileLike, OpenFile};
use crate::inode::{FileType, Inode, NewNode, Node};
use crate::inotify::Watchers;
use crate::lock::LockTable;
use crate::mount::Mounts;
use crate::plain::Plain;
use crate::system::System;
use crate::tmpfs::TmpFs;
use crate::tmpfs::node::TmpNode;
use crate::walk::{Last, Resolved, Rules, Target, Walker};
use crate::{Errno, Result, dev};

/// `O_TMPFILE` without the `O_DIRECTORY` that it includes.
const TMPFILE_BIT: u32 = 0o20_000_000;
/// `O_TMPFILE`.
pub const O_TMPFILE: u32 = TMPFILE_BIT | linux::O_DIRECTORY;
/// The working directory as a directory descriptor.
pub const AT_FDCWD: i32 = linux::AT_FDCWD;
/// Flags that `O_PATH` leaves in effect.
const PATH_FLAGS: u32 = linux::O_DIRECTORY | linux::O_NOFOLLOW | linux::O_PATH | linux::O_CLOEXEC;

/// What `openat2` asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: u32,
    /// Permission bits of a new file, before the umask.
    pub mode: u32,
    /// `RESOLVE_*`.
    pub resolve: u32,
}

/// The file systems as the process sees them.
pub struct Vfs {
    /// The mount table.
    pub mounts: Mounts,
    /// Descriptors.
    pub fds: Rc<FdTable>,
    /// File locks.
    pub locks: Rc<LockTable>,
    /// Who watches files.
    pub watchers: Rc<Watchers>,
    /// Identity for permission checks.
    pub cred: RefCell<Cred>,
    root: RefCell<Node>,
    cwd: RefCell<Node>,
    umask: Cell<u32>,
    system: Rc<dyn System>,
    console: RefCell<Option<Rc<Console>>>,
    /// Holds memfds.
    memory: Rc<TmpNode>,
}

impl Vfs {
    /// A view that starts at `root`, a directory called `name` in `/proc/mounts`. `pages` limits memfds.
    pub fn new(
        system: Rc<dyn System>,
        fds: Rc<FdTable>,
        root: Node,
        name: &'static str,
        pages: u64,
    ) -> Self {
        let memory = TmpFs::root(&system, crate::tree::MEMFD_DEV, pages, 0o777);
        Self {
            mounts: Mounts::new(root.clone(), name),
            fds,
            locks: Rc::default(),
            watchers: Rc::default(),
            cred: RefCell::default(),
            root: RefCell::new(root.clone()),
            cwd: RefCell::new(root),
            umask: Cell::new(0o022),
            system,
            console: RefCell::new(None),
            memory,
        }
    }

    /// The kernel.
    pub fn system(&self) -> &Rc<dyn System> {
        &self.system
    }

    /// What `/dev/tty` and `/dev/console` open.
    pub fn set_console(&self, console: Rc<Console>) {
        *self.console.borrow_mut() = Some(console);
    }

    /// The process's root directory.
    pub fn root(&self) -> Node {
        self.root.borrow().clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Node {
        self.cwd.borrow().clone()
    }

    /// Changes the working directory (permission and kind were checked).
    pub(crate) fn set_cwd(&self, node: Node) {
        *self.cwd.borrow_mut() = node;
    }

    pub(crate) fn set_root(&self, node: Node) {
        *self.root.borrow_mut() = node;
    }

    /// Sets the umask and answers the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.replace(mask & 0o777)
    }

    /// The umask.
    pub fn umask(&self) -> u32 {
        self.umask.get()
    }

    /// Checks permission bits of `node`.
    pub fn permit(&self, node: &dyn Inode, want: u32) -> Result<()> {
        let cred = self.cred.borrow();
        if cred.is_root() && (want & cred::EXECUTE == 0 || node.kind() == FileType::Directory) {
            return Ok(());
        }
        cred.check(&node.metadata(), want)
    }

    /// Runs `work` with a walker of this view.
    fn walk<T>(&self, work: impl FnOnce(&Walker<'_>) -> T) -> T {
        let may_search = |node: &dyn Inode| self.permit(node, cred::EXECUTE);
        work(&Walker {
            mounts: &self.mounts,
            root: self.root(),
            may_search: &may_search,
        })
    }

    /// The directory that a path given with `dirfd` starts from.
    fn start(&self, dirfd: i32, path: &[u8], rules: Rules) -> Result<Node> {
        if path.first() == Some(&b'/') && !rules.beneath && !rules.in_root {
            return Ok(self.root());
        }
        if dirfd == AT_FDCWD {
            return Ok(self.cwd());
        }
        let node = self.fds.get(dirfd)?.node().ok_or(Errno::ENOTDIR)?;
        if node.kind() == FileType::Directory {
            Ok(node)
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// Resolves `path` from `dirfd` (a descriptor or [`AT_FDCWD`]).
    pub fn resolve(&self, dirfd: i32, path: &[u8], rules: Rules) -> Result<Resolved> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let start = self.start(dirfd, path, rules)?;
        self.walk(|walker| walker.resolve(&start, path, rules))
    }

    /// The object at `path`; `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW` of `flags` count.
    pub fn find(&self, dirfd: i32, path: &[u8], flags: u32) -> Result<Target> {
        if path.is_empty() && flags & linux::AT_EMPTY_PATH != 0 {
            if dirfd == AT_FDCWD {
                return Ok(Target::Node(self.cwd()));
            }
            let file = self.fds.get(dirfd)?;
            return Ok(file
                .node()
                .map_or_else(|| Target::File(file.clone()), Target::Node));
        }
        let rules = Rules {
            follow: flags & linux::AT_SYMLINK_NOFOLLOW == 0,
            ..Rules::default()
        };
        self.resolve(dirfd, path, rules)?
            .target
            .ok_or(Errno::ENOENT)
    }

    /// The absolute path of a directory or file, when one leads to it.
    pub fn path_of(&self, node: &Node) -> Option<Vec<u8>> {
        self.walk(|walker| walker.path_of(node))
    }

    /// What `/proc/self/fd/N` shows for `file`.
    pub fn describe(&self, file: &OpenFile) -> Vec<u8> {
        let Some(node) = file.node() else {
            return file.object().label();
        };
        if let Some(path) = self.path_of(&node) {
            return path;
        }
        let label = file.object().label();
        if !label.is_empty() {
            return label;
        }
        let (parent, name) = match node.place() {
            Some((parent, name)) => (self.path_of(&parent).unwrap_or_default(), name.to_vec()),
            None => (Vec::new(), alloc::format!("#{}", node.ino()).into_bytes()),
        };
        let mut path = if parent == b"/" { Vec::new() } else { parent };
        path.push(b'/');
        path.extend_from_slice(&name);
        path.extend_from_slice(b" (deleted)");
        path
    }

    /// `open`, `openat`, `openat2` (without entering a descriptor). The answer may have to wait: [`FileLike::open_pending`].
    pub fn open(&self, dirfd: i32, path: &[u8], how: &OpenHow) -> Result<Rc<OpenFile>> {
        let flags = if how.flags & linux::O_PATH != 0 {
            how.flags & PATH_FLAGS
        } else {
            how.flags
        };
        check_flags(flags)?;
        if flags & TMPFILE_BIT != 0 {
            return self.open_unnamed(dirfd, path, flags, how);
        }
        let exclusive = flags & (linux::O_CREAT | linux::O_EXCL) == linux::O_CREAT | linux::O_EXCL;
        let follow = flags & linux::O_NOFOLLOW == 0 && !exclusive;
        let rules = Rules {
            follow,
            create: flags & linux::O_CREAT != 0,
            ..resolve_rules(how.resolve)?
        };
        let found = self.resolve(dirfd, path, rules)?;
        match found.target {
            Some(_) if exclusive => Err(Errno::EEXIST),
            Some(target) => self.open_target(target, flags),
            None if flags & linux::O_CREAT == 0 => Err(Errno::ENOENT),
            None => self.open_new(&found, flags, how.mode),
        }
    }

    fn open_new(&self, found: &Resolved, flags: u32, mode: u32) -> Result<Rc<OpenFile>> {
        let Last::Name(name) = &found.last else {
            return Err(Errno::EISDIR);
        };
        self.may_change(&found.directory)?;
        let node = found.directory.create(
            name,
            &self.new_node(&found.directory, FileType::Regular, mode),
        )?;
        self.watchers
            .tell_name(&found.directory, name, FileType::Regular, linux::IN_CREATE);
        self.describe_open(node, flags)
    }

    /// O_TMPFILE.
    fn open_unnamed(
        &self,
        dirfd: i32,
        path: &[u8],
        flags: u32,
        how: &OpenHow,
    ) -> Result<Rc<OpenFile>> {
        let rules = Rules {
            follow: flags & linux::O_NOFOLLOW == 0,
            ..resolve_rules(how.resolve)?
        };
        let directory = self
            .resolve(dirfd, path, rules)?
            .target
            .ok_or(Errno::ENOENT)?
            .into_node()?;
        if directory.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.may_change(&directory)?;
        let new = self.new_node(&directory, FileType::Regular, how.mode);
        let node = directory.create_unnamed(&new, flags & linux::O_EXCL == 0)?;
        self.describe_open(node, flags & !(linux::O_DIRECTORY | linux::O_TRUNC))
    }

    /// Opens what a path led to.
    fn open_target(&self, target: Target, flags: u32) -> Result<Rc<OpenFile>> {
        let node = match target {
            Target::Node(node) => node,
            Target::File(file) if flags & linux::O_PATH != 0 => {
                return Ok(OpenFile::new(file.object().clone(), flags));
            }
            Target::File(_) if flags & linux::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
            Target::File(file) => return Ok(OpenFile::new(file.object().reopen(flags)?, flags)),
        };
        let kind = node.kind();
        if flags & linux::O_DIRECTORY != 0 && kind != FileType::Directory {
            let refused = kind == FileType::Symlink
                && flags & linux::O_PATH == 0
                && flags & linux::O_NOFOLLOW == 0;
            return Err(if refused {
                Errno::ELOOP
            } else {
                Errno::ENOTDIR
            });
        }
        if flags & linux::O_PATH != 0 {
            return self.describe_open(node, flags);
        }
        let writes = flags & linux::O_ACCMODE != linux::O_RDONLY;
        match kind {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory if writes || flags & (linux::O_CREAT | linux::O_TRUNC) != 0 => {
                return Err(Errno::EISDIR);
            }
            FileType::Regular
                if (writes || flags & linux::O_TRUNC != 0) && self.mounts.read_only(&*node) =>
            {
                return Err(Errno::EROFS);
            }
            _ => {}
        }
        self.permit(&*node, wanted(flags))?;
        if flags & linux::O_NOATIME != 0 && !self.cred.borrow().owns(&node.metadata()) {
            return Err(Errno::EPERM);
        }
        if flags & linux::O_TRUNC != 0 && kind == FileType::Regular {
            node.truncate(0)?;
            let file = self.describe_open(node.clone(), flags);
            self.watchers.tell(&node, linux::IN_MODIFY);
            return file;
        }
        self.describe_open(node, flags)
    }

    /// The description of an opened inode.
    fn describe_open(&self, node: Node, flags: u32) -> Result<Rc<OpenFile>> {
        let object = match self.special(&node, flags)? {
            Some(object) => object,
            None => Plain::new(node, Vec::new()),
        };
        Ok(OpenFile::of_inode(
            object,
            flags,
            &self.locks,
            &self.watchers,
        ))
    }

    fn special(&self, node: &Node, flags: u32) -> Result<Option<Rc<dyn FileLike>>> {
        if flags & linux::O_PATH != 0 {
            return Ok(None);
        }
        if node.kind() == FileType::CharDevice
            && matches!(node.metadata().rdev, dev::TTY | dev::CONSOLE)
        {
            let console = self
                .console
                .borrow()
                .clone()
                .filter(|console| console.is_tty())
                .ok_or(Errno::ENXIO)?;
            return Ok(Some(console));
        }
        node.open(flags)
    }

    /// `memfd_create`: a file in memory that takes seals when `sealable`.
    pub fn memfd(&self, name: &[u8], sealable: bool) -> Result<Rc<OpenFile>> {
        let new = NewNode {
            kind: FileType::Regular,
            mode: 0o777,
            uid: self.cred.borrow().uid,
            gid: self.cred.borrow().gid,
            rdev: 0,
        };
        let node = self.memory.create_unnamed(&new, false)?;
        if sealable && let Some(node) = node.as_any().downcast_ref::<TmpNode>() {
            node.allow_seals(0);
        }
        let label = [b"/memfd:", name, b" (deleted)"].concat();
        Ok(OpenFile::of_inode(
            Plain::new(node, label),
            linux::O_RDWR,
            &self.locks,
            &self.watchers,
        ))
    }

    /// Whether names in `directory` may be added or removed.
    pub(crate) fn may_change(&self, directory: &Node) -> Result<()> {
        if self.mounts.read_only(&**directory) {
            return Err(Errno::EROFS);
        }
        self.permit(&**directory, cred::WRITE | cred::EXECUTE)
    }

    /// A new object in `directory`: umask and set-group-id inheritance applied.
    pub(crate) fn new_node(&self, directory: &Node, kind: FileType, mode: u32) -> NewNode {
        let parent = directory.metadata();
        let cred = self.cred.borrow();
        let mut mode = mode & 0o7777 & !self.umask.get();
        let mut gid = cred.gid;
        if parent.mode & linux::S_ISGID != 0 {
            gid = parent.gid;
            if kind == FileType::Directory {
                mode |= linux::S_ISGID;
            }
        }
        NewNode {
            kind,
            mode,
            uid: cred.uid,
            gid,
            rdev: 0,
        }
    }
}

/// Permission bits that an open needs.
fn wanted(flags: u32) -> u32 {
    let access = match flags & linux::O_ACCMODE {
        linux::O_RDONLY => cred::READ,
        linux::O_WRONLY => cred::WRITE,
        _ => cred::READ | cred::WRITE,
    };
    access
        | if flags & linux::O_TRUNC != 0 {
            cred::WRITE
        } else {
            0
        }
}

fn check_flags(flags: u32) -> Result<()> {
    if flags & TMPFILE_BIT != 0
        && (flags & linux::O_DIRECTORY == 0
            || flags & linux::O_ACCMODE == linux::O_RDONLY
            || flags & linux::O_CREAT != 0)
    {
        return Err(Errno::EINVAL);
    }
    if flags & (linux::O_CREAT | linux::O_DIRECTORY) == linux::O_CREAT | linux::O_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// `RESOLVE_*` as rules.
fn resolve_rules(resolve: u32) -> Result<Rules> {
    let known = linux::RESOLVE_NO_XDEV
        | linux::RESOLVE_NO_MAGICLINKS
        | linux::RESOLVE_NO_SYMLINKS
        | linux::RESOLVE_BENEATH
        | linux::RESOLVE_IN_ROOT
        | linux::RESOLVE_CACHED;
    let has = |bit: u32| resolve & bit != 0;
    if resolve & !known != 0 || has(linux::RESOLVE_BENEATH) && has(linux::RESOLVE_IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    Ok(Rules {
        follow: false,
        no_symlinks: has(linux::RESOLVE_NO_SYMLINKS),
        no_magic: has(linux::RESOLVE_NO_MAGICLINKS) || has(linux::RESOLVE_NO_SYMLINKS),
        beneath: has(linux::RESOLVE_BENEATH),
        in_root: has(linux::RESOLVE_IN_ROOT),
        no_xdev: has(linux::RESOLVE_NO_XDEV),
        parent: false,
        create: false,
    })
}
