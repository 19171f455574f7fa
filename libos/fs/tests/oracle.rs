//! Random operations on a tmpfs of ours and on a file system of the host: results, error numbers and contents must agree.
//!
//! Runs in a fresh directory of `/dev/shm` (a tmpfs on any Linux host) as the oracle; without it the tests say so and pass.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use common::*;
use proptest::prelude::*;
use rustix::fs as host;
use unik_fs::Errno;
use unik_fs::inode::Allocate;
use unik_fs::linux_raw_sys::general as linux;
use unik_fs::packed::Packed;
use unik_fs::vfs::{AT_FDCWD, OpenHow, Vfs};

/// One operation on names of a small tree.
#[derive(Clone, Debug)]
enum Op {
    Create(String, u32),
    Mkdir(String),
    Symlink(String, String),
    Link(String, String, bool),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, u32),
    Write(String, u64, Vec<u8>),
    Append(String, Vec<u8>),
    Truncate(String, u64),
    Punch(String, u64, u64),
    Reserve(String, u64, u64, bool),
    SeekData(String, u64, bool),
    Read(String, u64, usize),
    Chmod(String, u32),
    Stat(String, bool),
    Readlink(String),
    List(String),
    Access(String, u32),
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![8 => "[abc]", 1 => Just("..".to_string()), 1 => Just(".".to_string()), 1 => Just("l".to_string())];
    (prop::collection::vec(part, 1..4), prop::bool::weighted(0.1))
        .prop_map(|(parts, slash)| parts.join("/") + if slash { "/" } else { "" })
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..100,
        4000u64..4200,
        0u64..20_000,
        Just(4096),
        Just(8192),
        3_000_000u64..3_010_000
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50),
        (1usize..9000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
    ]
}

fn open_flags() -> impl Strategy<Value = u32> {
    let bits = [
        linux::O_EXCL,
        linux::O_TRUNC,
        linux::O_NOFOLLOW,
        linux::O_CREAT,
        linux::O_PATH,
    ];
    let access = prop_oneof![
        Just(linux::O_RDONLY),
        Just(linux::O_WRONLY),
        Just(linux::O_RDWR)
    ];
    (
        prop::sample::subsequence(bits.to_vec(), 0..4),
        access,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(bits, access, directory)| {
            let flags = bits.iter().fold(access, |flags, bit| flags | bit);
            // O_CREAT | O_DIRECTORY changed its meaning in Linux 6.4: not asked.
            if directory && flags & linux::O_CREAT == 0 {
                flags | linux::O_DIRECTORY
            } else {
                flags
            }
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (path(), open_flags()).prop_map(|(p, f)| Op::Create(p, f)),
        4 => path().prop_map(|p| Op::Create(p, linux::O_CREAT | linux::O_RDWR)),
        6 => path().prop_map(Op::Mkdir),
        3 => (path(), path()).prop_map(|(t, p)| Op::Symlink(t, p)),
        2 => (path()).prop_map(|t| Op::Symlink(t, "l".into())),
        3 => (path(), path(), any::<bool>()).prop_map(|(a, b, f)| Op::Link(a, b, f)),
        3 => path().prop_map(Op::Unlink),
        3 => path().prop_map(Op::Rmdir),
        5 => (path(), path(), prop_oneof![3 => Just(0u32), 1 => Just(1), 1 => Just(2), 1 => Just(3)]).prop_map(|(a, b, f)| Op::Rename(a, b, f)),
        5 => (path(), offset(), bytes()).prop_map(|(p, o, b)| Op::Write(p, o, b)),
        2 => (path(), bytes()).prop_map(|(p, b)| Op::Append(p, b)),
        3 => (path(), offset()).prop_map(|(p, o)| Op::Truncate(p, o)),
        2 => (path(), offset(), offset()).prop_map(|(p, o, l)| Op::Punch(p, o, l)),
        2 => (path(), offset(), 0u64..20_000, any::<bool>()).prop_map(|(p, o, l, k)| Op::Reserve(p, o, l, k)),
        2 => (path(), offset(), any::<bool>()).prop_map(|(p, o, d)| Op::SeekData(p, o, d)),
        3 => (path(), offset(), 0usize..10_000).prop_map(|(p, o, l)| Op::Read(p, o, l)),
        1 => (path(), 0u32..0o10000).prop_map(|(p, m)| Op::Chmod(p, m)),
        3 => (path(), any::<bool>()).prop_map(|(p, f)| Op::Stat(p, f)),
        2 => path().prop_map(Op::Readlink),
        2 => path().prop_map(Op::List),
        1 => (path(), 0u32..8).prop_map(|(p, m)| Op::Access(p, m)),
    ]
}

/// What an operation answered: an error number, or text that must agree.
type Answer = Result<String, i32>;

fn ours<T: std::fmt::Debug>(result: unik_fs::Result<T>) -> Answer {
    result
        .map(|value| format!("{value:?}"))
        .map_err(|Errno(number)| number)
}

fn theirs<T: std::fmt::Debug>(result: rustix::io::Result<T>) -> Answer {
    result
        .map(|value| format!("{value:?}"))
        .map_err(rustix::io::Errno::raw_os_error)
}

/// What `stat` must agree on: kind and permissions, links, size (of directories sizes differ), blocks.
fn shape(mode: u32, nlink: u64, size: u64, blocks: u64) -> (u32, u64, u64, u64) {
    let directory = mode & linux::S_IFMT == linux::S_IFDIR;
    let file = mode & linux::S_IFMT == linux::S_IFREG;
    (
        mode,
        nlink,
        if directory { 0 } else { size },
        if file { blocks } else { 0 },
    )
}

fn on_ours(vfs: &Vfs, op: &Op) -> Answer {
    let at = |path: &str| format!("{DEEP}/{path}").into_bytes();
    let opened = |path: &str, flags| {
        vfs.open(
            AT_FDCWD,
            &at(path),
            &OpenHow {
                flags,
                mode: 0o666,
                resolve: 0,
            },
        )
    };
    match op {
        Op::Create(path, flags) => ours(opened(path, *flags).map(drop)),
        Op::Mkdir(path) => ours(vfs.mkdir(AT_FDCWD, &at(path), 0o777)),
        Op::Symlink(target, path) => ours(vfs.symlink(target.as_bytes(), AT_FDCWD, &at(path))),
        Op::Link(old, new, follow) => ours(vfs.link(
            (AT_FDCWD, &at(old)),
            (AT_FDCWD, &at(new)),
            if *follow { linux::AT_SYMLINK_FOLLOW } else { 0 },
        )),
        Op::Unlink(path) => ours(vfs.unlink(AT_FDCWD, &at(path), 0)),
        Op::Rmdir(path) => ours(vfs.unlink(AT_FDCWD, &at(path), linux::AT_REMOVEDIR)),
        Op::Rename(old, new, flags) => {
            ours(vfs.rename((AT_FDCWD, &at(old)), (AT_FDCWD, &at(new)), *flags))
        }
        Op::Write(path, offset, data) => {
            ours(opened(path, linux::O_RDWR).and_then(|file| file.write_at(*offset as i64, data)))
        }
        Op::Append(path, data) => ours(
            opened(path, linux::O_WRONLY | linux::O_APPEND).and_then(|file| file.write_at(0, data)),
        ),
        Op::Truncate(path, size) => ours(vfs.truncate(&at(path), *size as i64)),
        Op::Punch(path, offset, len) => ours(opened(path, linux::O_RDWR).and_then(|file| {
            let node = file.node().ok_or(Errno::EBADF)?;
            if *len == 0 {
                Err(Errno::EINVAL)
            } else {
                node.fallocate(Allocate::PunchHole, *offset, *len)
            }
        })),
        Op::Reserve(path, offset, len, keep_size) => {
            ours(opened(path, linux::O_RDWR).and_then(|file| {
                let node = file.node().ok_or(Errno::EBADF)?;
                if *len == 0 {
                    Err(Errno::EINVAL)
                } else {
                    node.fallocate(
                        Allocate::Reserve {
                            keep_size: *keep_size,
                        },
                        *offset,
                        *len,
                    )
                }
            }))
        }
        Op::SeekData(path, offset, data) => {
            let whence = if *data {
                linux::SEEK_DATA
            } else {
                linux::SEEK_HOLE
            };
            ours(opened(path, linux::O_RDONLY).and_then(|file| file.seek(*offset as i64, whence)))
        }
        Op::Read(path, offset, len) => ours(opened(path, linux::O_RDONLY).and_then(|file| {
            let mut out = vec![0; *len];
            let n = file.read_at(*offset as i64, &mut out)?;
            out.truncate(n);
            Ok(out)
        })),
        Op::Chmod(path, mode) => ours(vfs.chmod(AT_FDCWD, &at(path), *mode, 0)),
        Op::Stat(path, follow) => {
            let flags = if *follow {
                0
            } else {
                linux::AT_SYMLINK_NOFOLLOW
            };
            ours(
                vfs.stat(AT_FDCWD, &at(path), flags)
                    .map(|meta| shape(meta.mode, meta.nlink, meta.size, meta.blocks)),
            )
        }
        Op::Readlink(path) => ours(
            vfs.readlink(AT_FDCWD, &at(path))
                .map(|text| String::from_utf8(text).unwrap()),
        ),
        Op::List(path) => ours(
            opened(path, linux::O_RDONLY | linux::O_DIRECTORY)
                .map(|_| names(vfs, &format!("{DEEP}/{path}"))),
        ),
        Op::Access(path, want) => ours(vfs.access(AT_FDCWD, &at(path), *want, 0)),
    }
}

fn on_host(root: &Path, op: &Op) -> Answer {
    // Joined as text: the standard library's joining would drop trailing slashes and dots.
    let at = |path: &str| PathBuf::from(format!("{}/{path}", root.display()));
    let opened = |path: &str, flags: u32| {
        host::open(
            at(path),
            host::OFlags::from_bits_retain(flags),
            host::Mode::from_raw_mode(0o666),
        )
    };
    match op {
        Op::Create(path, flags) => theirs(opened(path, *flags).map(drop)),
        Op::Mkdir(path) => theirs(host::mkdir(at(path), host::Mode::from_raw_mode(0o777))),
        Op::Symlink(target, path) => theirs(host::symlink(target.as_str(), at(path))),
        Op::Link(old, new, follow) => {
            let flags = if *follow {
                host::AtFlags::SYMLINK_FOLLOW
            } else {
                host::AtFlags::empty()
            };
            theirs(host::linkat(host::CWD, at(old), host::CWD, at(new), flags))
        }
        Op::Unlink(path) => theirs(host::unlink(at(path))),
        Op::Rmdir(path) => theirs(host::rmdir(at(path))),
        Op::Rename(old, new, flags) => theirs(host::renameat_with(
            host::CWD,
            at(old),
            host::CWD,
            at(new),
            host::RenameFlags::from_bits_retain(*flags),
        )),
        Op::Write(path, offset, data) => theirs(
            opened(path, linux::O_RDWR).and_then(|file| rustix::io::pwrite(file, data, *offset)),
        ),
        Op::Append(path, data) => theirs(
            opened(path, linux::O_WRONLY | linux::O_APPEND)
                .and_then(|file| rustix::io::pwrite(file, data, 0)),
        ),
        Op::Truncate(path, size) => theirs(truncate(&at(path), *size)),
        Op::Punch(path, offset, len) => theirs(opened(path, linux::O_RDWR).and_then(|file| {
            host::fallocate(
                file,
                host::FallocateFlags::PUNCH_HOLE | host::FallocateFlags::KEEP_SIZE,
                *offset,
                *len,
            )
        })),
        Op::Reserve(path, offset, len, keep_size) => {
            let flags = if *keep_size {
                host::FallocateFlags::KEEP_SIZE
            } else {
                host::FallocateFlags::empty()
            };
            theirs(
                opened(path, linux::O_RDWR)
                    .and_then(|file| host::fallocate(file, flags, *offset, *len)),
            )
        }
        Op::SeekData(path, offset, data) => {
            let from = if *data {
                host::SeekFrom::Data(*offset)
            } else {
                host::SeekFrom::Hole(*offset)
            };
            theirs(opened(path, linux::O_RDONLY).and_then(|file| host::seek(file, from)))
        }
        Op::Read(path, offset, len) => theirs(opened(path, linux::O_RDONLY).and_then(|file| {
            let mut out = vec![0; *len];
            let n = rustix::io::pread(file, &mut out, *offset)?;
            out.truncate(n);
            Ok(out)
        })),
        Op::Chmod(path, mode) => theirs(host::chmod(at(path), host::Mode::from_raw_mode(*mode))),
        Op::Stat(path, follow) => theirs(
            (if *follow {
                host::stat(at(path))
            } else {
                host::lstat(at(path))
            })
            .map(|meta| {
                shape(
                    meta.st_mode,
                    meta.st_nlink,
                    meta.st_size as u64,
                    meta.st_blocks as u64,
                )
            }),
        ),
        Op::Readlink(path) => {
            theirs(host::readlink(at(path), Vec::new()).map(|text| text.into_string().unwrap()))
        }
        Op::List(path) => theirs(
            opened(path, linux::O_RDONLY | linux::O_DIRECTORY).map(|file| {
                let mut names: Vec<String> = host::Dir::read_from(file)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_string())
                    .collect();
                names.retain(|name| name != "." && name != "..");
                names.sort();
                names
            }),
        ),
        Op::Access(path, want) => theirs(host::accessat(
            host::CWD,
            at(path),
            host::Access::from_bits_retain(*want),
            host::AtFlags::empty(),
        )),
    }
}

/// `truncate(2)` by way of the standard library would need an open file: the errors of the path call are wanted.
fn truncate(path: &Path, size: u64) -> rustix::io::Result<()> {
    let meta = host::stat(path)?;
    match meta.st_mode & linux::S_IFMT {
        linux::S_IFDIR => Err(rustix::io::Errno::ISDIR),
        _ => host::ftruncate(
            host::open(path, host::OFlags::WRONLY, host::Mode::empty())?,
            size,
        ),
    }
}

/// Where the operations happen: so deep that `..` stays inside what both sides have alike.
const DEEP: &str = "/d/d/d/d/d/d/d/d/d/d/d/d/tmp";

/// A fresh directory of the host's tmpfs.
fn oracle() -> Option<(tempfile::TempDir, PathBuf)> {
    let shm = Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(shm)
        .is_ok_and(|figures| figures.f_type as u64 == unik_fs::tmpfs::TMPFS_MAGIC);
    if !is_tmpfs || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs a tmpfs at /dev/shm and root");
        return None;
    }
    rustix::process::umask(host::Mode::from_raw_mode(0o022)); // as ours at start
    let directory = tempfile::tempdir_in(shm).ok()?;
    let root = PathBuf::from(format!("{}{DEEP}", directory.path().display()));
    std::fs::create_dir_all(&root).ok()?;
    Some((directory, root))
}

/// Our side.
fn fresh() -> (Rc<Vfs>, Rc<Machine>) {
    let (vfs, machine) = vfs_over(Packed::default());
    let parts: Vec<&str> = DEEP.split('/').skip(1).collect();
    for n in 1..=parts.len() {
        vfs.mkdir(
            AT_FDCWD,
            format!("/{}", parts[..n].join("/")).as_bytes(),
            0o755,
        )
        .unwrap();
    }
    (vfs, machine)
}

fn contents(vfs: &Vfs, root: &Path, directory: &str, all: &mut BTreeMap<String, (Answer, Answer)>) {
    for name in names(vfs, &format!("{DEEP}/{directory}")) {
        let path = format!("{directory}{name}");
        let stat = Op::Stat(path.clone(), false);
        let read = if vfs
            .stat(
                AT_FDCWD,
                format!("{DEEP}/{path}").as_bytes(),
                linux::AT_SYMLINK_NOFOLLOW,
            )
            .unwrap()
            .mode
            & linux::S_IFMT
            == linux::S_IFDIR
        {
            contents(vfs, root, &format!("{path}/"), all);
            Op::List(path.clone())
        } else {
            Op::Read(path.clone(), 0, 4 << 20)
        };
        all.insert(path.clone(), (on_ours(vfs, &stat), on_host(root, &stat)));
        all.insert(path + "#", (on_ours(vfs, &read), on_host(root, &read)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_the_host(ops in prop::collection::vec(op(), 1..60)) {
        let Some((_keep, root)) = oracle() else { return Ok(()) };
        let (vfs, _) = fresh();
        for (n, op) in askable(&ops) {
            let (mine, host) = (on_ours(&vfs, op), on_host(&root, op));
            prop_assert_eq!(mine, host, "operation {} of {:?}", n, &ops[..=n]);
        }
        let mut all = BTreeMap::new();
        contents(&vfs, &root, "", &mut all);
        for (path, (mine, host)) in all {
            prop_assert!(mine == host, "{} differs after {:?}: {:?} against {:?}", path, ops, mine, host);
        }
    }

    #[test]
    fn a_packed_file_behaves_as_a_copied_one(ops in prop::collection::vec(file_op(), 1..30), len in 1usize..30_000) {
        let Some((_keep, root)) = oracle() else { return Ok(()) };
        let original: Vec<u8> = (0..len).map(|n| (n * 7 / 5) as u8).collect();
        let (vfs, machine) = vfs_over(packed(&[(&format!("{}/f", &DEEP[1..]), 0o100_644, &original)]));
        std::fs::write(root.join("f"), &original).unwrap();
        for (_, op) in askable(&ops) {
            prop_assert_eq!(on_ours(&vfs, op), on_host(&root, op), "{:?} of {:?}", op, ops);
        }
        let whole = Op::Read("f".into(), 0, 4 << 20);
        prop_assert!(on_ours(&vfs, &whole) == on_host(&root, &whole), "contents differ after {:?}", ops);
        let before = machine.live.get();
        vfs.unlink(AT_FDCWD, format!("{DEEP}/f").as_bytes(), 0).unwrap();
        prop_assert!(machine.live.get() <= before);
    }
}

/// What random sequences found, asked in every run.
#[test]
fn an_ancestor_is_not_replaced_by_what_is_in_it() {
    let Some((_keep, root)) = oracle() else {
        return;
    };
    let (vfs, _) = fresh();
    let ops = [
        Op::Mkdir("c".into()),
        Op::Mkdir("c/d".into()),
        Op::Symlink("a".into(), "c/d/b".into()),
        Op::Rename("c/d/b".into(), "c/d".into(), 0),
        Op::Rename("c/d/b".into(), "c".into(), 0),
        Op::Rename("c/d/b".into(), "c".into(), linux::RENAME_EXCHANGE),
        Op::Rename("c".into(), "c/d/b".into(), 0),
        Op::Rename("c/d".into(), "c".into(), 0),
    ];
    for op in &ops {
        assert_eq!(on_ours(&vfs, op), on_host(&root, op), "{op:?}");
    }
}

/// Linux's tmpfs shows reserved pages that were never written as holes; ours shows data. Both are allowed: not asked.
fn askable(ops: &[Op]) -> impl Iterator<Item = (usize, &Op)> {
    let reserved = ops
        .iter()
        .position(|op| matches!(op, Op::Reserve(..)))
        .unwrap_or(ops.len());
    ops.iter()
        .enumerate()
        .filter(move |(n, op)| *n < reserved || !matches!(op, Op::SeekData(..)))
}

/// How many random sequences: `PROPTEST_CASES`, or a number that takes a few seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(400)
}

fn file_op() -> impl Strategy<Value = Op> {
    let at = || prop_oneof![0u64..30_000, Just(4096), Just(8192), Just(0)];
    prop_oneof![
        (at(), bytes()).prop_map(|(o, b)| Op::Write("f".into(), o, b)),
        bytes().prop_map(|b| Op::Append("f".into(), b)),
        at().prop_map(|o| Op::Truncate("f".into(), o)),
        (at(), at()).prop_map(|(o, l)| Op::Punch("f".into(), o, l)),
        (at(), at(), any::<bool>()).prop_map(|(o, l, k)| Op::Reserve("f".into(), o, l, k)),
        (at(), any::<bool>()).prop_map(|(o, d)| Op::SeekData("f".into(), o, d)),
        (at(), 0usize..20_000).prop_map(|(o, l)| Op::Read("f".into(), o, l)),
        Just(Op::Stat("f".into(), true)),
    ]
}

#[test]
fn memory_comes_back_when_files_go() {
    let (vfs, machine) = fresh();
    let before = machine.live.get();
    put(&vfs, "/tmp/big", &vec![1; 5 << 20]);
    assert_eq!(machine.live.get(), before + 1280);
    let fd = open(&vfs, "/tmp/big", linux::O_RDONLY).unwrap();
    vfs.unlink(AT_FDCWD, b"/tmp/big", 0).unwrap();
    assert_eq!(machine.live.get(), before + 1280);
    vfs.fds.close(fd).unwrap();
    assert_eq!(machine.live.get(), before);
}

#[test]
fn space_ends_with_enospc_and_a_short_write() {
    let (vfs, machine) = fresh();
    machine.limit.set(Some(machine.live.get() + 2));
    let fd = open(&vfs, "/tmp/f", linux::O_RDWR | linux::O_CREAT).unwrap();
    let file = vfs.fds.get(fd).unwrap();
    assert_eq!(file.write(&[1; 10_000]), Ok(8192));
    assert_eq!(file.write(&[1; 10]), Err(Errno::ENOSPC));
    assert_eq!(file.write_at(100, &[2; 10]), Ok(10));
    assert_eq!(file.metadata().size, 8192);
    assert_eq!(
        file.node()
            .unwrap()
            .fallocate(Allocate::Reserve { keep_size: false }, 0, 9000),
        Err(Errno::ENOSPC)
    );
    vfs.ftruncate(fd, 0).unwrap();
    assert_eq!(file.seek(0, linux::SEEK_SET), Ok(0));
    assert_eq!(file.write(&[1; 5000]), Ok(5000));
}
