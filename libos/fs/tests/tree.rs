//! The packed tree under its writable layer, `/dev`, and the files made at start.

mod common;

use common::*;
use unik_abi::files::{ENTRY_LEN, FileEntry};
use unik_fs::Errno;
use unik_fs::inode::PageRef;
use unik_fs::linux_raw_sys::general as linux;
use unik_fs::packed::Packed;
use unik_fs::vfs::AT_FDCWD;

fn tree() -> Packed {
    let big: Vec<u8> = (0..10_000u32).map(|n| (n / 7) as u8).collect();
    packed(&[
        ("etc/hostname", 0o100_644, b"packed\n"),
        ("data/b.txt", 0o100_644, b"bravo"),
        ("data/a/deep", 0o100_600, b"deep"),
        ("data/a.x", 0o100_644, b"ax"),
        ("data/link", 0o120_777, b"a/deep"),
        ("data/big", 0o100_644, &big),
        ("bin/tool", 0o100_755, b"\x7fELF"),
    ])
}

#[test]
fn packed_files_are_read_in_place() {
    let (vfs, machine) = vfs_over(tree());
    assert_eq!(
        machine.live.get(),
        0,
        "nothing is made before somebody looks"
    );
    vfs.stat(AT_FDCWD, b"/", 0).unwrap();
    let before = machine.live.get();
    assert_eq!(get(&vfs, "/data/b.txt").unwrap(), b"bravo");
    assert_eq!(get(&vfs, "/data/link").unwrap(), b"deep");
    assert_eq!(get(&vfs, "/data/big").unwrap().len(), 10_000);
    assert_eq!(names(&vfs, "/data"), ["a", "a.x", "b.txt", "big", "link"]);
    assert_eq!(names(&vfs, "/data/a"), ["deep"]);
    assert_eq!(get(&vfs, "/etc/hostname").unwrap(), b"packed\n");
    assert_eq!(machine.live.get(), before);
    let meta = vfs.stat(AT_FDCWD, b"/data", 0).unwrap();
    assert_eq!((meta.mode, meta.nlink), (0o040_755, 3));
    assert_eq!(
        vfs.stat(AT_FDCWD, b"/data/a/deep", 0).unwrap().mtime.sec,
        1_700_000_000
    );
}

#[test]
fn writing_a_packed_file_copies_only_its_page() {
    let (vfs, machine) = vfs_over(tree());
    let ino = vfs.stat(AT_FDCWD, b"/data/big", 0).unwrap().ino;
    let original = get(&vfs, "/data/big").unwrap();
    let before = machine.live.get();
    let fd = open(&vfs, "/data/big", linux::O_RDWR).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    assert_eq!(file.write_at(5000, b"hello"), Ok(5));
    assert_eq!(machine.live.get(), before + 1);
    let mut expected = original.clone();
    expected[5000..5005].copy_from_slice(b"hello");
    assert_eq!(get(&vfs, "/data/big").unwrap(), expected);
    vfs.ftruncate(fd, 4000).unwrap();
    vfs.ftruncate(fd, 9000).unwrap();
    expected.resize(9000, 0);
    expected[4000..].fill(0);
    assert_eq!(get(&vfs, "/data/big").unwrap(), expected);
    assert_eq!(vfs.stat(AT_FDCWD, b"/data/big", 0).unwrap().ino, ino);
}

#[test]
fn what_is_left_of_the_archive_is_told() {
    let (vfs, _) = vfs_over(tree());
    let original = get(&vfs, "/data/big").unwrap();
    let fd = open(&vfs, "/data/big", linux::O_RDWR).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    let node = file.node().unwrap();
    assert_eq!(node.packed(100, 9000), Some(&original[100..9100]));
    assert_eq!(node.packed(9000, 9000), Some(&original[9000..]));
    assert_eq!(node.packed(10_000, 1), None);
    file.write_at(5000, b"hello").unwrap();
    assert_eq!(node.packed(5000, 10), None);
    assert_eq!(node.packed(4000, 9000), Some(&original[4000..4096]));
    vfs.ftruncate(fd, 50).unwrap();
    vfs.ftruncate(fd, 9000).unwrap();
    assert_eq!(node.packed(0, 9000), Some(&original[..50]));
    assert_eq!(node.packed(60, 9000), None);
    let new = open(&vfs, "/data/new", linux::O_RDWR | linux::O_CREAT).unwrap();
    let new = vfs.fds.get(new).unwrap();
    new.write(b"text").unwrap();
    assert_eq!(new.node().unwrap().packed(0, 4), None);
}

#[test]
fn packed_pages_can_be_mapped_in_place() {
    let (vfs, _) = vfs_over(tree());
    let node = vfs
        .find(AT_FDCWD, b"/data/big", 0)
        .unwrap()
        .into_node()
        .unwrap();
    assert!(matches!(node.map_page(0, false), Ok(PageRef::Packed(page)) if page.len() == 4096));
    assert!(
        matches!(node.map_page(2, false), Ok(PageRef::Frame(_))),
        "the last page must not show what follows it in the archive"
    );
    assert!(matches!(node.map_page(0, true), Ok(PageRef::Frame(_))));
    assert!(
        matches!(node.map_page(0, false), Ok(PageRef::Frame(_))),
        "a shared mapping and a private one see the same page"
    );
    assert_eq!(node.map_page(3, false).unwrap_err(), Errno::EINVAL);
}

#[test]
fn mappings_are_told_when_pages_change_under_them() {
    let (vfs, machine) = vfs_over(tree());
    let fd = open(&vfs, "/data/big", linux::O_RDWR).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    let told = || {
        machine
            .unmapped
            .take()
            .into_iter()
            .map(|pages| (pages.start, pages.end))
            .collect::<Vec<_>>()
    };
    file.write_at(4000, &[1; 200]).unwrap();
    assert_eq!(told(), [(0, 2)]);
    file.write_at(4000, &[1; 200]).unwrap();
    assert_eq!(told(), [], "its own pages stay where they are");
    vfs.ftruncate(fd, 5000).unwrap();
    assert_eq!(told(), [(2, 3)]);
    vfs.ftruncate(fd, 20_000).unwrap();
    assert_eq!(told(), []);
    file.node()
        .unwrap()
        .fallocate(unik_fs::inode::Allocate::PunchHole, 100, 8000)
        .unwrap();
    assert_eq!(told(), [(0, 2)]);
}

#[test]
fn packed_names_can_be_removed_renamed_and_made_again() {
    let (vfs, _) = vfs_over(tree());
    vfs.unlink(AT_FDCWD, b"/data/b.txt", 0).unwrap();
    assert_eq!(get(&vfs, "/data/b.txt"), Err(Errno::ENOENT));
    assert_eq!(names(&vfs, "/data"), ["a", "a.x", "big", "link"]);
    put(&vfs, "/data/b.txt", b"new");
    assert_eq!(names(&vfs, "/data"), ["a", "a.x", "b.txt", "big", "link"]);
    assert_eq!(get(&vfs, "/data/b.txt").unwrap(), b"new");
    vfs.rename((AT_FDCWD, b"/data"), (AT_FDCWD, b"/tmp/moved"), 0)
        .unwrap();
    assert_eq!(get(&vfs, "/tmp/moved/a/deep").unwrap(), b"deep");
    assert_eq!(vfs.stat(AT_FDCWD, b"/data", 0), Err(Errno::ENOENT));
    assert!(!names(&vfs, "/").contains(&"data".to_string()));
    assert_eq!(
        vfs.unlink(AT_FDCWD, b"/tmp/moved", linux::AT_REMOVEDIR),
        Err(Errno::ENOTEMPTY)
    );
    vfs.mkdir(AT_FDCWD, b"/data", 0o755).unwrap();
    assert_eq!(names(&vfs, "/data"), Vec::<String>::new());
}

#[test]
fn listing_goes_on_while_names_come_and_go() {
    let (vfs, _) = vfs_over(tree());
    let fd = open(&vfs, "/data", linux::O_RDONLY | linux::O_DIRECTORY).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 32];
    loop {
        let used = file.read_directory(&mut buffer).unwrap();
        if used == 0 {
            break;
        }
        let name: String = buffer[19..]
            .iter()
            .take_while(|b| **b != 0)
            .map(|b| *b as char)
            .collect();
        if !name.starts_with('.') {
            let path = format!("/data/{name}");
            if name != "a" {
                vfs.unlink(AT_FDCWD, path.as_bytes(), 0).unwrap();
            }
        }
        seen.push(name);
    }
    assert_eq!(seen, [".", "..", "a", "a.x", "b.txt", "big", "link"]);
    assert_eq!(names(&vfs, "/data"), ["a"]);
}

#[test]
fn a_damaged_index_shows_nothing_from_outside() {
    let (mut index, archive) = (Vec::new(), b"data" as &[u8]);
    let wild = FileEntry {
        start: u64::MAX,
        len: u32::MAX,
        mode: 0o040_755,
        name: u32::MAX,
        name_len: u32::MAX,
        ..FileEntry::default()
    };
    let file = FileEntry {
        mode: 0o100_644,
        ..wild
    };
    let root = FileEntry {
        start: 1,
        len: 9,
        name: 3 * ENTRY_LEN as u32,
        ..wild
    };
    [root, wild, file]
        .iter()
        .for_each(|entry| index.extend_from_slice(&entry.to_bytes()));
    for len in 0..=index.len() {
        let packed = Packed::new(index[..len].to_vec().leak(), archive);
        for n in 0..4 {
            let seen = (packed.info(n).data, packed.name(n));
            assert_eq!(seen, (&b""[..], &b""[..]));
            assert!(packed.children(n).all(|child| child < packed.count()));
        }
        let (vfs, _) = vfs_over(packed);
        assert!(names(&vfs, "/").contains(&"tmp".to_string()));
    }
}

#[test]
fn devices_answer() {
    let vfs = vfs();
    assert_eq!(get(&vfs, "/dev/null").unwrap(), b"");
    let fd = open(&vfs, "/dev/zero", linux::O_RDWR).unwrap();
    let mut bytes = [1; 100];
    assert_eq!(vfs.fds.get(fd).unwrap().read(&mut bytes), Ok(100));
    assert_eq!(bytes, [0; 100]);
    let fd = open(&vfs, "/dev/full", linux::O_RDWR).unwrap();
    assert_eq!(vfs.fds.get(fd).unwrap().write(b"x"), Err(Errno::ENOSPC));
    let fd = open(&vfs, "/dev/urandom", linux::O_RDONLY).unwrap();
    assert_eq!(vfs.fds.get(fd).unwrap().read(&mut bytes), Ok(100));
    assert_ne!(bytes, [0; 100]);
    assert_eq!(vfs.stat(AT_FDCWD, b"/dev/null", 0).unwrap().rdev, 0x103);
    assert_eq!(open(&vfs, "/dev/tty", linux::O_RDWR), Err(Errno::ENXIO));
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/dev/stdout").unwrap(),
        b"/proc/self/fd/1"
    );
    put(&vfs, "/dev/shm/segment", b"shared");
    assert_ne!(
        vfs.stat(AT_FDCWD, b"/dev/shm", 0).unwrap().dev,
        vfs.stat(AT_FDCWD, b"/dev", 0).unwrap().dev
    );
    assert_eq!(
        vfs.find(AT_FDCWD, b"/dev/shm/../null", 0)
            .unwrap()
            .into_node()
            .unwrap()
            .ino(),
        vfs.stat(AT_FDCWD, b"/dev/null", 0).unwrap().ino
    );
    assert_eq!(
        vfs.unlink(AT_FDCWD, b"/dev", linux::AT_REMOVEDIR),
        Err(Errno::EBUSY)
    );
}

#[test]
fn small_files_of_etc_are_made_only_when_missing() {
    let vfs = vfs();
    assert_eq!(get(&vfs, "/etc/hostname").unwrap(), b"box\n");
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/etc/resolv.conf").unwrap(),
        b"/proc/net/pnp"
    );
    assert_eq!(&get(&vfs, "/etc/localtime").unwrap()[..4], b"TZif");
    assert_eq!(vfs.stat(AT_FDCWD, b"/tmp", 0).unwrap().mode, 0o041_777);
    put(&vfs, "/etc/hostname", b"changed\n");
}

#[test]
fn extended_attributes_belong_to_those_who_may() {
    let vfs = vfs();
    put(&vfs, "/f", b"");
    let file = vfs.xattr_node(AT_FDCWD, b"/f", 0).unwrap();
    for name in ["user.a", "trusted.a", "security.a"] {
        vfs.set_xattr(&file, name.as_bytes(), b"value", 0).unwrap();
    }
    assert_eq!(vfs.list_xattr(&file), b"security.a\0trusted.a\0user.a\0");
    vfs.cred.borrow_mut().uid = 7;
    let set = |name: &[u8]| vfs.set_xattr(&file, name, b"other", 0);
    assert_eq!(set(b"user.a"), Err(Errno::EACCES));
    assert_eq!(set(b"trusted.a"), Err(Errno::EPERM));
    assert_eq!(set(b"security.a"), Err(Errno::EPERM));
    assert_eq!(vfs.get_xattr(&file, b"user.a").unwrap(), b"value");
    assert_eq!(vfs.get_xattr(&file, b"security.a").unwrap(), b"value");
    assert_eq!(vfs.get_xattr(&file, b"trusted.a"), Err(Errno::ENODATA));
    assert_eq!(vfs.list_xattr(&file), b"security.a\0user.a\0");
}

#[test]
fn extended_attributes_cannot_take_all_memory() {
    let (vfs, _) = vfs_with(Packed::default(), 1000);
    let fill = || {
        put(&vfs, "/f", b"");
        let file = vfs.xattr_node(AT_FDCWD, b"/f", 0).unwrap();
        let large = vec![0; 60_000];
        let set = |i: i32| vfs.set_xattr(&file, format!("user.{i}").as_bytes(), &large, 0);
        let count = (0..).find(|&i| set(i).is_err()).unwrap();
        assert_eq!(set(count), Err(Errno::ENOSPC));
        assert_eq!(set(0), Ok(()), "replaced");
        count
    };
    let count = fill();
    assert!((1..1000).contains(&count), "{count}");
    vfs.unlink(AT_FDCWD, b"/f", 0).unwrap();
    assert_eq!(fill(), count, "what a file had is given back");
}
