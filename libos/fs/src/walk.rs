//! Path resolution (`path_resolution(7)`): [`Walker`] turns a path into an object, or into a directory and a last name.

use alloc::borrow::Cow;
use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::file::OpenFile;
use crate::inode::{self, FileType, Inode, Link, Node};
use crate::mount::Mounts;
use crate::{Errno, Result};

/// Longest path, its NUL included (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Longest name (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Symbolic links followed in one resolution (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// What a path leads to.
#[derive(Clone)]
pub enum Target {
    /// An object of a file system.
    Node(Node),
    /// An open file without an inode, through `/proc/self/fd`.
    File(Rc<OpenFile>),
}

impl Target {
    /// The inode; an object without one is like a file that cannot be found as a path.
    pub fn into_node(self) -> Result<Node> {
        match self {
            Self::Node(node) => Ok(node),
            Self::File(file) => file.node().ok_or(Errno::ENOENT),
        }
    }
}

/// The last part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name in the directory.
    Name(Vec<u8>),
    /// `.`.
    Dot,
    /// `..`.
    DotDot,
    /// The path was `/` (or an empty path that was allowed).
    Root,
}

/// A resolved path.
pub struct Resolved {
    /// The directory that holds, or could hold, the last name.
    pub directory: Node,
    /// The last part.
    pub last: Last,
    /// What is there, if anything.
    pub target: Option<Target>,
    /// The path ended with a slash: only a directory will do.
    pub slash: bool,
}

/// Restrictions of `openat2` and of the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Follow a symbolic link at the end.
    pub follow: bool,
    /// RESOLVE_NO_SYMLINKS.
    pub no_symlinks: bool,
    /// RESOLVE_NO_MAGICLINKS.
    pub no_magic: bool,
    /// RESOLVE_BENEATH.
    pub beneath: bool,
    /// RESOLVE_IN_ROOT: the starting directory is the root.
    pub in_root: bool,
    /// RESOLVE_NO_XDEV.
    pub no_xdev: bool,
    /// The last name is to be looked up as it is, even with a slash behind it (mkdir, rename, ...).
    pub parent: bool,
    /// O_CREAT: a slash behind the last name is refused with `EISDIR`.
    pub create: bool,
}

/// Resolves paths.
pub struct Walker<'a> {
    /// The mount table.
    pub mounts: &'a Mounts,
    /// The process's root directory.
    pub root: Node,
    /// Whether the caller may search a directory.
    pub may_search: &'a dyn Fn(&dyn Inode) -> Result<()>,
}

struct State {
    at: Node,
    links: u32,
}

impl Walker<'_> {
    /// Resolves `path` from `start`.
    pub fn resolve(&self, start: &Node, path: &[u8], rules: Rules) -> Result<Resolved> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let root = if rules.in_root {
            start.clone()
        } else {
            self.root.clone()
        };
        let top = if rules.beneath {
            start.clone()
        } else {
            root.clone()
        };
        let mut rest: Cow<'_, [u8]> = Cow::Borrowed(path);
        let mut state = State {
            at: start.clone(),
            links: 0,
        };
        self.rewind(&mut state, &rest, &root, rules)?;
        loop {
            let (name, after) = split(&rest);
            if name.is_empty() {
                let node = state.at;
                return Ok(Resolved {
                    directory: node.clone(),
                    last: Last::Root,
                    target: Some(Target::Node(node)),
                    slash: false,
                });
            }
            let slash = after.first() == Some(&b'/');
            let tail = trim(after);
            let final_part = tail.is_empty();
            if state.at.kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            (self.may_search)(&*state.at)?;
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let last = match name {
                b"." => Last::Dot,
                b".." => Last::DotDot,
                name => Last::Name(name.to_vec()),
            };
            if rules.create && final_part && slash && matches!(last, Last::Name(_)) {
                return Err(Errno::EISDIR);
            }
            let found = self.step(&state.at, &last, &top, rules);
            let node = match found {
                Err(Errno::ENOENT) if final_part => {
                    return Ok(Resolved {
                        directory: state.at,
                        last,
                        target: None,
                        slash,
                    });
                }
                Err(error) => return Err(error),
                Ok(node) => node,
            };
            let follows = !final_part || (slash && !rules.parent) || rules.follow;
            if node.kind() != FileType::Symlink || !follows {
                if final_part {
                    if slash && node.kind() != FileType::Directory && !rules.parent {
                        return Err(Errno::ENOTDIR);
                    }
                    return Ok(Resolved {
                        directory: state.at,
                        last,
                        target: Some(Target::Node(node)),
                        slash,
                    });
                }
                let tail = tail.len();
                let skip = rest.len() - tail;
                state.at = node;
                advance(&mut rest, skip);
                continue;
            }
            state.links += 1;
            if rules.no_symlinks || state.links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            match node.follow()? {
                Link::Path(target) => {
                    if target.is_empty() {
                        return Err(Errno::ENOENT);
                    }
                    let mut joined = target;
                    joined.extend_from_slice(after);
                    rest = Cow::Owned(joined);
                    self.rewind(&mut state, &rest, &root, rules)?;
                }
                Link::Node(_) | Link::File(_)
                    if rules.no_magic || rules.beneath || rules.in_root =>
                {
                    return Err(if rules.no_magic {
                        Errno::ELOOP
                    } else {
                        Errno::EXDEV
                    });
                }
                Link::Node(node) if !final_part => {
                    state.at = node;
                    let skip = rest.len() - tail.len();
                    advance(&mut rest, skip);
                }
                Link::Node(node) => {
                    if slash && node.kind() != FileType::Directory {
                        return Err(Errno::ENOTDIR);
                    }
                    return Ok(Resolved {
                        directory: state.at,
                        last,
                        target: Some(Target::Node(node)),
                        slash,
                    });
                }
                Link::File(_) if !final_part || slash => return Err(Errno::ENOTDIR),
                Link::File(file) => {
                    return Ok(Resolved {
                        directory: state.at,
                        last,
                        target: Some(Target::File(file)),
                        slash,
                    });
                }
            }
        }
    }

    /// An absolute path starts at the root.
    fn rewind(&self, state: &mut State, rest: &[u8], root: &Node, rules: Rules) -> Result<()> {
        if rest.first() != Some(&b'/') {
            return Ok(());
        }
        if rules.beneath {
            return Err(Errno::EXDEV);
        }
        if rules.no_xdev && root.dev() != state.at.dev() {
            return Err(Errno::EXDEV);
        }
        state.at = root.clone();
        Ok(())
    }

    fn step(&self, at: &Node, part: &Last, top: &Node, rules: Rules) -> Result<Node> {
        let next = match part {
            Last::Dot | Last::Root => return Ok(at.clone()),
            Last::DotDot if inode::same(&**at, &**top) => {
                return if rules.beneath {
                    Err(Errno::EXDEV)
                } else {
                    Ok(at.clone())
                };
            }
            Last::DotDot if inode::same(&**at, &*self.root) => return Ok(at.clone()),
            Last::DotDot => self.mounts.parent(at),
            Last::Name(name) => match self.mounts.at(&**at, name) {
                Some(root) => root,
                None => at.lookup(name)?,
            },
        };
        if rules.no_xdev && next.dev() != at.dev() {
            return Err(Errno::EXDEV);
        }
        Ok(next)
    }

    /// Where `node` is, if it is still there.
    fn checked_place(&self, node: &Node) -> Option<(Node, inode::Name)> {
        let (parent, name) = node.place()?;
        parent
            .lookup(&name)
            .is_ok_and(|found| inode::same(&*found, &**node))
            .then_some((parent, name))
    }

    /// The absolute path of `node`, `None` when no path leads to it any more.
    pub fn path_of(&self, node: &Node) -> Option<Vec<u8>> {
        let mut parts: Vec<inode::Name> = Vec::new();
        let mut at = node.clone();
        while !inode::same(&*at, &*self.root) {
            let (parent, name) = match self.mounts.place(&*at) {
                Some(place) => place,
                None => self.checked_place(&at)?,
            };
            parts.push(name);
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}

/// First component (leading slashes skipped) and what follows it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = trim(path);
    path.split_at(path.iter().position(|&b| b == b'/').unwrap_or(path.len()))
}

fn trim(path: &[u8]) -> &[u8] {
    &path[path.iter().position(|&b| b != b'/').unwrap_or(path.len())..]
}

fn advance(rest: &mut Cow<'_, [u8]>, skip: usize) {
    match rest {
        Cow::Borrowed(path) => *path = &path[skip..],
        Cow::Owned(path) => drop(path.drain(..skip)),
    }
}
