//! Files to pack: `SRC[:GUESTPATH]` becomes a sorted list of guest paths with what lies there.
//!
//! Nothing is read here but directories; [`Entry`] names the host file whose bytes the image takes.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// What lies at one guest path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file: its bytes are read from the host path when the image is written.
    File(PathBuf),
    /// A symbolic link and its target.
    Link(PathBuf),
}

/// One packed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Size in bytes and time of the last change (nanoseconds): to see cheaply that nothing changed.
    pub stamp: (u64, i128),
}

/// All packed paths: absolute guest path -> entry, in byte order of the paths.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Why files could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The source is not there or cannot be read.
    #[error("cannot pack `{path}`: {source}")]
    Io {
        /// The host path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A guest path that is not absolute, or leaves the root.
    #[error("cannot pack `{spec}`: {reason}")]
    Spec {
        /// `SRC[:GUESTPATH]` as given.
        spec: String,
        /// What to write instead.
        reason: &'static str,
    },
}

/// Adds what `spec` names to `tree`; a relative source lies below `base`.
pub fn add(tree: &mut Tree, spec: &str, base: &Path) -> Result<(), FilesError> {
    let (source, guest) = split(spec)?;
    add_tree(tree, &base.join(&source), &guest, |_| true)
}

/// Adds the file or directory `source` as `guest`, leaving out what `keep` refuses.
pub fn add_tree(
    tree: &mut Tree,
    source: &Path,
    guest: &Path,
    keep: impl Fn(&DirEntry) -> bool,
) -> Result<(), FilesError> {
    let walk = WalkDir::new(source)
        .follow_root_links(true)
        .sort_by_file_name();
    for found in walk.into_iter().filter_entry(|e| e.depth() == 0 || keep(e)) {
        let found = found.map_err(|error| walk_error(error, source))?;
        let relative = found.path().strip_prefix(source).unwrap_or(Path::new(""));
        let path = if relative.as_os_str().is_empty() {
            guest.to_owned()
        } else {
            guest.join(relative)
        };
        if let Some(entry) = entry(found.path(), found.depth() == 0)? {
            add_parents(tree, &path);
            tree.insert(path, entry);
        }
    }
    tree.remove(Path::new("/"));
    Ok(())
}

/// Looks at one path; sockets, pipes and devices are `None`. A link given by name (`root`) is followed.
fn entry(path: &Path, root: bool) -> Result<Option<Entry>, FilesError> {
    let io = |source| FilesError::Io {
        path: path.to_owned(),
        source,
    };
    let meta = if root {
        path.metadata()
    } else {
        path.symlink_metadata()
    }
    .map_err(io)?;
    let kind = if meta.is_dir() {
        Kind::Directory
    } else if meta.is_file() {
        Kind::File(path.to_owned())
    } else if meta.is_symlink() {
        Kind::Link(path.read_link().map_err(io)?)
    } else {
        return Ok(None);
    };
    Ok(Some(Entry {
        kind,
        mode: meta.permissions().mode() & 0o7777,
        stamp: stamp(&meta),
    }))
}

fn stamp(meta: &Metadata) -> (u64, i128) {
    use std::os::unix::fs::MetadataExt;
    (
        meta.len(),
        i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
    )
}

/// Directories above a packed path that nobody packed themselves.
fn add_parents(tree: &mut Tree, path: &Path) {
    for parent in path.ancestors().skip(1).filter(|p| *p != Path::new("/")) {
        let directory = Entry {
            kind: Kind::Directory,
            mode: 0o755,
            stamp: (0, 0),
        };
        tree.entry(parent.to_owned()).or_insert(directory);
    }
}

fn walk_error(error: walkdir::Error, source: &Path) -> FilesError {
    let path = error.path().unwrap_or(source).to_owned();
    let source = error
        .into_io_error()
        .unwrap_or_else(|| io::Error::other("a loop of symbolic links"));
    FilesError::Io { path, source }
}

/// `SRC[:GUESTPATH]` -> source and absolute, normal guest path. Without a guest path a relative source keeps its
/// place below `/` (the program's working directory), an absolute one stays where it is.
fn split(spec: &str) -> Result<(PathBuf, PathBuf), FilesError> {
    let wrong = |reason| FilesError::Spec {
        spec: spec.to_owned(),
        reason,
    };
    match spec.rsplit_once(':') {
        Some((source, guest)) if !source.is_empty() => {
            let guest =
                normal(Path::new(guest)).ok_or(wrong("the guest path must not leave the root"))?;
            if !guest.has_root() {
                return Err(wrong("the guest path must be absolute; write SRC:/PATH"));
            }
            Ok((source.into(), guest))
        }
        _ if spec.is_empty() => Err(wrong("the source is empty; write SRC or SRC:/PATH")),
        _ => {
            let guest = normal(Path::new(spec)).ok_or(wrong(
                "it lies outside of the package; say where it goes: SRC:/PATH",
            ))?;
            Ok((spec.into(), Path::new("/").join(guest)))
        }
    }
}

/// Takes `.` and `..` out of a path; `None` when `..` leaves it.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir => out.push("/"),
            Component::Normal(name) => out.push(name),
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            Component::ParentDir => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn specs() {
        let split = |s| {
            split(s)
                .map(|(a, b)| (a.display().to_string(), b.display().to_string()))
                .map_err(|e| e.to_string())
        };
        assert_eq!(split("assets"), Ok(("assets".into(), "/assets".into())));
        assert_eq!(split("./a/../b"), Ok(("./a/../b".into(), "/b".into())));
        assert_eq!(split("x:/etc/./y"), Ok(("x".into(), "/etc/y".into())));
        assert_eq!(
            split("/srv/www"),
            Ok(("/srv/www".into(), "/srv/www".into()))
        );
        assert_eq!(split("."), Ok((".".into(), "/".into())));
        for bad in ["../up", "x:rel", "x:/../y", ""] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn trees_are_sorted_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/sub")).unwrap();
        fs::write(dir.path().join("a/sub/f"), "x").unwrap();
        fs::write(dir.path().join("a/z"), "").unwrap();
        std::os::unix::fs::symlink("z", dir.path().join("a/link")).unwrap();
        let mut tree = Tree::new();
        add(&mut tree, "a:/deep/er", dir.path()).unwrap();
        let paths: Vec<_> = tree.keys().map(|p| p.display().to_string()).collect();
        assert_eq!(
            paths,
            [
                "/deep",
                "/deep/er",
                "/deep/er/link",
                "/deep/er/sub",
                "/deep/er/sub/f",
                "/deep/er/z"
            ]
        );
        assert_eq!(
            tree[Path::new("/deep/er/link")].kind,
            Kind::Link("z".into())
        );
        let missing = add(&mut tree, "nowhere", dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            missing.starts_with("cannot pack `") && missing.contains("nowhere"),
            "{missing}"
        );
    }
}
