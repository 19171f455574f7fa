//! The [`Inode`] trait: what every file system object (tmpfs, packed file, `/proc` entry, device node) can be asked.
//!
//! Every operation has a default that answers as Linux does for an object of another kind (`ENOTDIR` for a look-up in a
//! file, `EPERM` for creating in `/proc`, ...), so an implementation writes only what it supports.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;

use crate::file::{FileLike, OpenFile};
use crate::system::{Frame, Time};
use crate::{Errno, Result};

/// A shared file system object.
pub type Node = Rc<dyn Inode>;

/// The name of a directory entry: no slash, no NUL, 1 to 255 bytes.
pub type Name = Rc<[u8]>;

/// Kinds of object (`S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Bytes.
    Regular,
    /// Names.
    Directory,
    /// A path.
    Symlink,
    /// A device of the [`crate::dev`] table.
    CharDevice,
    /// Never openable here.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// The name of a Unix socket.
    Socket,
}

impl FileType {
    /// The `S_IFMT` bits.
    pub const fn mode(self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// From the `S_IFMT` bits of `mode`; `None` for a kind that Linux does not know.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The `d_type` of a directory entry (`DT_*`).
    pub const fn dirent(self) -> u8 {
        (self.mode() >> 12) as u8
    }
}

/// Everything `statx` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Device number of the file system, in the kernel's `st_dev` encoding.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Hard links.
    pub nlink: u64,
    /// Kind and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Preferred I/O size, bytes.
    pub blksize: u32,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the data.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

impl Metadata {
    /// The kind in `mode`.
    pub fn kind(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
}

/// Changes of attributes; `None` leaves as it is. Permission was checked by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (`0o7777`).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<Time>,
    /// Modification time.
    pub mtime: Option<Time>,
}

/// What to create with [`Inode::create`].
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// Kind; not a symbolic link ([`Inode::symlink`]).
    pub kind: FileType,
    /// Permission bits, umask already applied.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number for device nodes.
    pub rdev: u64,
}

/// One entry of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Position after this entry: the cookie to continue from (`d_off`).
    pub next: u64,
    /// Kind.
    pub kind: FileType,
    /// Name.
    pub name: &'a [u8],
}

/// Where a symbolic link leads.
pub enum Link {
    /// To a path, relative to the link's directory.
    Path(Vec<u8>),
    /// Straight to an object, without a walk (`/proc/self/exe`, `/proc/self/fd/N` of a file with an inode).
    Node(Node),
    /// Straight to an open file that has no inode (`/proc/self/fd/N` of a socket).
    File(Rc<OpenFile>),
}

/// What lies under one page of a file, for a memory mapping.
#[derive(Clone, Copy, Debug)]
pub enum PageRef {
    /// This frame; the caller calls `retain` for as long as it maps it.
    Frame(Frame),
    /// These 4096 bytes of the packed archive, page-aligned, never to be written.
    Packed(&'static [u8]),
    /// Nothing yet: reads as zeros.
    Hole,
}

/// How a file can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Not at all (`ENODEV`).
    None,
    /// Like anonymous memory (`/dev/zero`).
    Anonymous,
    /// Page by page through [`Inode::map_page`].
    Pages,
}

/// Figures of a file system (`statfs`).
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// `f_type`, for instance `TMPFS_MAGIC`.
    pub magic: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// How [`Inode::fallocate`] changes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Reserve, growing the file unless `keep_size`.
    Reserve {
        /// FALLOC_FL_KEEP_SIZE.
        keep_size: bool,
    },
    /// FALLOC_FL_PUNCH_HOLE (which implies keep-size).
    PunchHole,
}

/// Where data or a hole begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// Flags of [`Inode::rename`] (`RENAME_*` of `linux/fs.h`).
pub const RENAME_NOREPLACE: u32 = 1;
/// Swap the two names.
pub const RENAME_EXCHANGE: u32 = 2;

/// A file system object. See the module text for the defaults.
pub trait Inode: Any {
    /// `st_dev`.
    fn dev(&self) -> u64;
    /// `st_ino`.
    fn ino(&self) -> u64;
    /// Kind; never changes.
    fn kind(&self) -> FileType;
    /// All attributes.
    fn metadata(&self) -> Metadata;
    /// Changes attributes and the change time.
    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// File system figures.
    fn statfs(&self) -> StatFs;
    /// For downcasts inside one file system.
    fn as_any(&self) -> &dyn Any;

    /// The directory that holds this object and its name there; `None` for a root, or when it is not (or no longer) known.
    fn place(&self) -> Option<(Node, Name)> {
        None
    }
    /// Finds `name` (never `.` or `..`) in this directory.
    fn lookup(&self, _name: &[u8]) -> Result<Node> {
        Err(Errno::ENOTDIR)
    }
    /// Makes a new object. `EEXIST` when the name is taken.
    fn create(&self, _name: &[u8], _new: &NewNode) -> Result<Node> {
        Err(self.not_a_writable_directory())
    }
    /// Makes an object without a name (`O_TMPFILE`, memfd); `linkable`: [`Self::link`] may give it one later.
    fn create_unnamed(&self, _new: &NewNode, _linkable: bool) -> Result<Node> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Makes a symbolic link.
    fn symlink(&self, _name: &[u8], _target: &[u8], _owner: (u32, u32)) -> Result<Node> {
        Err(self.not_a_writable_directory())
    }
    /// Gives `node`, of the same file system, another name.
    fn link(&self, _name: &[u8], _node: &Node) -> Result<()> {
        Err(self.not_a_writable_directory())
    }
    /// Removes a name of anything but a directory.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(self.not_a_writable_directory())
    }
    /// Removes an empty directory.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(self.not_a_writable_directory())
    }
    /// Moves `old` of this directory to `new` of `to`, a directory of the same file system.
    fn rename(&self, _old: &[u8], _to: &Node, _new: &[u8], _flags: u32) -> Result<()> {
        Err(self.not_a_writable_directory())
    }
    /// Emits the entries after position `from` (0: the first), without `.` and `..`, until `emit` answers false.
    /// Positions are stable: entries made or removed meanwhile neither repeat nor hide others.
    fn readdir(&self, _from: u64, _emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        Err(Errno::ENOTDIR)
    }
    /// The error for changing this directory, or this object as if it were one.
    #[doc(hidden)]
    fn not_a_writable_directory(&self) -> Errno {
        if self.kind() == FileType::Directory {
            Errno::EPERM
        } else {
            Errno::ENOTDIR
        }
    }

    /// The text of a symbolic link.
    fn readlink(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }
    /// Where a symbolic link leads.
    fn follow(&self) -> Result<Link> {
        self.readlink().map(Link::Path)
    }

    /// Reads at `offset`; 0 at the end.
    fn read_at(&self, _offset: u64, _out: &mut [u8]) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// The next bytes at `offset`, at most `len`, that lie in the packed archive, which never changes; `None` where they do not.
    fn packed(&self, _offset: u64, _len: usize) -> Option<&'static [u8]> {
        None
    }
    /// Writes at `offset`; may write less than asked when space ends.
    fn write_at(&self, _offset: u64, _data: &[u8]) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Sets the size.
    fn truncate(&self, _size: u64) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Reserves or frees space. `ZERO_RANGE` is not among the choices: tmpfs does not support it.
    fn fallocate(&self, _how: Allocate, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Start of the next data or hole at or after `offset`; `ENXIO` past the end.
    fn seek(&self, what: Extent, offset: u64) -> Result<u64> {
        let size = self.metadata().size;
        match what {
            _ if offset >= size => Err(Errno::ENXIO),
            Extent::Data => Ok(offset),
            Extent::Hole => Ok(size),
        }
    }
    /// Size of a regular file, without the rest of [`Self::metadata`].
    fn size(&self) -> u64 {
        self.metadata().size
    }
    /// How a mapping of this file works.
    fn mapping(&self) -> Mapping {
        Mapping::None
    }
    /// The memory under page `index`. With `write` the answer is a frame of the file itself, made when missing
    /// (`ENOSPC` when space ends); `EINVAL` past the end of the file (the program gets SIGBUS).
    fn map_page(&self, _index: u64, _write: bool) -> Result<PageRef> {
        Err(Errno::ENODEV)
    }

    /// Opens an object that is more than its inode (device, FIFO, `/proc` text). `None`: an ordinary file or directory.
    fn open(&self, _flags: u32) -> Result<Option<Rc<dyn FileLike>>> {
        Ok(None)
    }
    /// The seals of a memfd (`F_GET_SEALS`); `EINVAL` for any other file.
    fn seals(&self) -> Result<u32> {
        Err(Errno::EINVAL)
    }
    /// Adds seals.
    fn add_seals(&self, _seals: u32) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// Reads an extended attribute: `ENODATA` when there is none, `EOPNOTSUPP` for an unknown class of names. [`crate::vfs::Vfs`] checks
    /// who may.
    fn get_xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Sets an extended attribute (`XATTR_CREATE`, `XATTR_REPLACE` in `flags`).
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Names of the extended attributes, each ended by NUL; with `trusted`, those too that only root sees.
    fn list_xattr(&self, _trusted: bool) -> Vec<u8> {
        Vec::new()
    }
    /// Removes an extended attribute.
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// Whether two handles name the same object.
pub fn same(a: &dyn Inode, b: &dyn Inode) -> bool {
    a.ino() == b.ino() && a.dev() == b.dev()
}
