//! inotify: the same operations on a tree of ours and on the host's tmpfs are told in the same words.

mod common;

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::*;
use rustix::fs::inotify;
use unik_fs::Errno;
use unik_fs::file::FileLike;
use unik_fs::inotify::Inotify;
use unik_fs::linux_raw_sys::general as linux;
use unik_fs::vfs::{AT_FDCWD, Vfs};

/// Event mask, whether it has a cookie, name; of the watch with this number, counted from 1.
type Event = (i32, u32, bool, String);

/// What happens, one after the other, in the watched directory.
const STEPS: usize = 14;

fn on_host(root: &Path, step: usize) {
    let at = |name: &str| root.join(name);
    match step {
        0 => fs::write(at("a"), "1").unwrap(),
        1 => fs::write(at("a"), "22").unwrap(),
        2 => assert_eq!(fs::read(at("a")).unwrap(), b"22"),
        3 => fs::set_permissions(at("a"), fs::Permissions::from_mode(0o600)).unwrap(),
        4 => fs::rename(at("a"), at("sub/b")).unwrap(),
        5 => fs::hard_link(at("sub/b"), at("h")).unwrap(),
        6 => fs::remove_file(at("h")).unwrap(),
        7 => fs::create_dir(at("d")).unwrap(),
        8 => fs::remove_dir(at("d")).unwrap(),
        9 => std::os::unix::fs::symlink("x", at("s")).unwrap(),
        10 => fs::write(at("over"), "").unwrap(),
        11 => fs::rename(at("over"), at("s")).unwrap(),
        12 => {
            let file = fs::File::options().write(true).open(at("s"));
            file.unwrap().set_len(9).unwrap();
        }
        _ => fs::remove_file(at("watched")).unwrap(),
    }
}

fn on_ours(vfs: &Vfs, step: usize) {
    let at = |name: &str| format!("/w/{name}").into_bytes();
    match step {
        0 => put(vfs, "/w/a", b"1"),
        1 => put(vfs, "/w/a", b"22"),
        2 => assert_eq!(get(vfs, "/w/a").unwrap(), b"22"),
        3 => vfs.chmod(AT_FDCWD, &at("a"), 0o600, 0).unwrap(),
        4 => rename(vfs, "a", "sub/b"),
        5 => vfs
            .link((AT_FDCWD, &at("sub/b")), (AT_FDCWD, &at("h")), 0)
            .unwrap(),
        6 => vfs.unlink(AT_FDCWD, &at("h"), 0).unwrap(),
        7 => vfs.mkdir(AT_FDCWD, &at("d"), 0o755).unwrap(),
        8 => vfs.unlink(AT_FDCWD, &at("d"), linux::AT_REMOVEDIR).unwrap(),
        9 => vfs.symlink(b"x", AT_FDCWD, &at("s")).unwrap(),
        10 => {
            let fd = open(vfs, "/w/over", linux::O_WRONLY | linux::O_CREAT).unwrap();
            vfs.fds.close(fd).unwrap();
        }
        11 => rename(vfs, "over", "s"),
        12 => {
            let fd = open(vfs, "/w/s", linux::O_WRONLY).unwrap();
            vfs.ftruncate(fd, 9).unwrap();
            vfs.fds.close(fd).unwrap();
        }
        _ => vfs.unlink(AT_FDCWD, &at("watched"), 0).unwrap(),
    }
}

fn rename(vfs: &Vfs, old: &str, new: &str) {
    let (old, new) = (format!("/w/{old}"), format!("/w/{new}"));
    vfs.rename((AT_FDCWD, old.as_bytes()), (AT_FDCWD, new.as_bytes()), 0)
        .unwrap();
}

/// Whole events from the bytes of a read.
fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    while bytes.len() >= 16 {
        let word = |n: usize| u32::from_ne_bytes(bytes[4 * n..4 * n + 4].try_into().unwrap());
        let (name, rest) = bytes[16..].split_at(word(3) as usize);
        let name = String::from_utf8(name.to_vec()).unwrap();
        let name = name.trim_end_matches('\0').to_owned();
        found.push((word(0) as i32, word(1), word(2) != 0, name));
        bytes = rest;
    }
    found
}

#[test]
fn what_happens_is_told_as_on_the_host() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: needs a tmpfs at /dev/shm");
        return;
    };
    let root = directory.path();
    let host = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let vfs = vfs();
    let ours = Inotify::new(&vfs.watchers);
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(root.join("watched"), "").unwrap();
    vfs.mkdir(AT_FDCWD, b"/w", 0o755).unwrap();
    vfs.mkdir(AT_FDCWD, b"/w/sub", 0o755).unwrap();
    put(&vfs, "/w/watched", b"");
    for (number, name) in (1..).zip(["", "sub", "watched"]) {
        let all = inotify::WatchFlags::ALL_EVENTS;
        assert_eq!(
            inotify::add_watch(&host, root.join(name), all).unwrap(),
            number
        );
        let path = format!("/w/{name}");
        let node = vfs.find(AT_FDCWD, path.as_bytes(), 0).unwrap();
        let node = node.into_node().unwrap();
        assert_eq!(ours.add(&*node, linux::IN_ALL_EVENTS), Ok(number));
    }
    for step in 0..STEPS {
        on_host(root, step);
        on_ours(&vfs, step);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&host, &mut buffer);
        let mut theirs: Vec<Event> = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|n| n.to_str().unwrap().to_owned());
            let (mask, cookie) = (event.events().bits(), event.cookie() != 0);
            theirs.push((event.wd(), mask, cookie, name.unwrap_or_default()));
        }
        let mut buffer = [0; 4096];
        let read = ours.read(0, &mut buffer).unwrap();
        assert_eq!(events(&buffer[..read]), theirs, "step {step}");
    }
    assert_eq!(ours.read(0, &mut [0; 99]), Err(Errno::EAGAIN));
    assert_eq!(ours.remove(3), Err(Errno::EINVAL), "went with its file");
    assert_eq!(ours.remove(1), Ok(()));
    assert_eq!(ours.read(0, &mut [0; 15]), Err(Errno::EINVAL), "no room");
}
