//! `/proc` and `/sys` over a made-up process.

mod common;

use std::rc::Rc;

use common::*;
use unik_fs::linux_raw_sys::general as linux;
use unik_fs::pipe::pipe;
use unik_fs::procfs::{self, source::*};
use unik_fs::vfs::{AT_FDCWD, OpenHow, Vfs};
use unik_fs::{Errno, Result};

struct Process;

impl ProcSource for Process {
    fn network(&self, name: &str) -> String {
        format!("all of {name}\n")
    }
    fn pid(&self) -> u32 {
        1
    }
    fn tid(&self) -> u32 {
        3
    }
    fn threads(&self) -> Vec<ThreadInfo> {
        let thread = |tid, name: &str| ThreadInfo {
            tid,
            name: name.into(),
            state: 'S',
            user_ns: 2_000_000_000,
            ..ThreadInfo::default()
        };
        vec![thread(1, "ma)in (x"), thread(3, "worker")]
    }
    fn set_thread_name(&self, tid: u32, name: &[u8]) -> Result<()> {
        assert_eq!((tid, name), (3, &b"a-name-of-fifte"[..]));
        Ok(())
    }
    fn cmdline(&self) -> Vec<u8> {
        b"prog\0arg\0".to_vec()
    }
    fn environ(&self) -> Vec<u8> {
        b"A=1\0".to_vec()
    }
    fn auxv(&self) -> Vec<u8> {
        vec![0; 16]
    }
    fn exe(&self) -> Vec<u8> {
        b"/bin/prog".to_vec()
    }
    fn regions(&self) -> Vec<Region> {
        let text = Region {
            start: 0x40_0000,
            end: 0x40_2000,
            read: true,
            execute: true,
            ino: 9,
            dev: 21,
            name: b"/bin/prog".to_vec(),
            ..Region::default()
        };
        let heap = Region {
            start: 0x1000_0000,
            end: 0x1001_0000,
            read: true,
            write: true,
            ..Region::default()
        };
        vec![text, heap]
    }
    fn resident(&self, _region: &Region) -> (u64, u64) {
        (8192, 4096)
    }
    fn process_memory(&self) -> ProcessMemory {
        ProcessMemory {
            size: 10 << 20,
            peak: 11 << 20,
            resident: 4 << 20,
            file: 1 << 20,
            text: 8192,
            ..ProcessMemory::default()
        }
    }
    fn layout(&self) -> Layout {
        Layout::default()
    }
    fn machine_memory(&self) -> MachineMemory {
        MachineMemory {
            total: 256 << 20,
            free: 200 << 20,
            available: 190 << 20,
            shared: 1 << 20,
        }
    }
    fn processor(&self) -> Processor {
        Processor {
            vendor: "GenuineIntel".into(),
            model_name: "Test".into(),
            khz: 2_300_000,
            flags: "sse2 avx2".into(),
            ..Processor::default()
        }
    }
    fn machine(&self) -> MachineInfo {
        MachineInfo {
            uptime_ns: 12_340_000_000,
            cpus: vec![
                CpuTimes {
                    idle: 1_000_000_000,
                    ..CpuTimes::default()
                };
                2
            ],
            boot_time: 1_800_000_000,
            ..MachineInfo::default()
        }
    }
    fn uname(&self) -> Uname {
        Uname {
            release: "6.12.0-unik".into(),
            version: "#1".into(),
            hostname: b"box".to_vec(),
        }
    }
    fn limits(&self) -> Vec<Limit> {
        vec![(None, None); 7]
            .into_iter()
            .chain([(Some(1024), Some(4096))])
            .chain(vec![(None, None); 8])
            .collect()
    }
    fn signals(&self) -> SignalMasks {
        SignalMasks {
            caught: 1 << 14,
            ..SignalMasks::default()
        }
    }
}

fn system() -> Rc<Vfs> {
    let (vfs, _) = vfs_over(packed(&[("bin/prog", 0o100_755, b"\x7fELF")]));
    procfs::mount(&vfs, &(Rc::new(Process) as Rc<dyn ProcSource>)).unwrap();
    vfs
}

fn text(vfs: &Vfs, path: &str) -> String {
    String::from_utf8(get(vfs, path).unwrap()).unwrap()
}

#[test]
fn every_text_can_be_listed_and_read() {
    let vfs = system();
    let mut stack = vec!["/proc".to_string(), "/sys".to_string()];
    let mut count = 0;
    while let Some(directory) = stack.pop() {
        // The listing's own descriptor is in these two, and closed again.
        for name in names(&vfs, &directory)
            .into_iter()
            .filter(|_| !directory.ends_with("/fd") && !directory.ends_with("/fdinfo"))
        {
            let path = format!("{directory}/{name}");
            let meta = vfs
                .stat(AT_FDCWD, path.as_bytes(), linux::AT_SYMLINK_NOFOLLOW)
                .unwrap();
            match meta.mode & linux::S_IFMT {
                linux::S_IFDIR => stack.push(path),
                linux::S_IFREG => {
                    get(&vfs, &path).unwrap();
                    count += 1;
                }
                _ => assert!(!vfs.readlink(AT_FDCWD, path.as_bytes()).unwrap().is_empty()),
            }
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn the_process_is_described_as_linux_does() {
    let vfs = system();
    assert_eq!(text(&vfs, "/proc/self/cmdline"), "prog\0arg\0");
    assert_eq!(
        text(&vfs, "/proc/self/maps"),
        "00400000-00402000 r-xp 00000000 00:15 9                                  /bin/prog\n10000000-10010000 rw-p 00000000 00:00 0 \n"
    );
    let stat = text(&vfs, "/proc/self/stat");
    let (head, tail) = stat.rsplit_once(") ").unwrap();
    assert_eq!((head, tail.split_whitespace().count()), ("1 (ma)in (x", 50));
    let fields: Vec<&str> = tail.split_whitespace().collect();
    assert_eq!(
        (fields[0], fields[11], fields[17], fields[20]),
        ("S", "400", "2", (10 << 20).to_string().as_str())
    );
    let status = text(&vfs, "/proc/thread-self/status");
    for row in [
        "Name:\tworker",
        "Pid:\t3",
        "Tgid:\t1",
        "VmRSS:\t    4096 kB",
        "Threads:\t2",
        "SigCgt:\t0000000000004000",
        "Cpus_allowed_list:\t0-1",
    ] {
        assert!(status.lines().any(|line| line == row), "{row} in {status}");
    }
    assert_eq!(text(&vfs, "/proc/self/statm"), "2560 1024 256 2 0 0 0\n");
    assert!(
        text(&vfs, "/proc/self/limits")
            .contains("Max open files            1024                 4096                 files")
    );
    assert_eq!(text(&vfs, "/proc/self/task/3/comm"), "worker\n");
    put(
        &vfs,
        "/proc/self/task/3/comm",
        b"a-name-of-fifteen-and-more\n",
    );
    assert_eq!(names(&vfs, "/proc/self/task"), ["1", "3"]);
    assert_eq!(
        vfs.stat(AT_FDCWD, b"/proc/self/task/2", 0),
        Err(Errno::ENOENT)
    );
    let maps = open(&vfs, "/proc/self/maps", linux::O_WRONLY).unwrap();
    assert_eq!(vfs.fds.get(maps).unwrap().write(b"x"), Err(Errno::EINVAL));
    assert_eq!(
        open(&vfs, "/proc/new", linux::O_WRONLY | linux::O_CREAT),
        Err(Errno::ENOENT)
    );
}

#[test]
fn the_machine_is_described_as_linux_does() {
    let vfs = system();
    assert_eq!(text(&vfs, "/proc/uptime"), "12.34 2.00\n");
    assert!(text(&vfs, "/proc/meminfo").starts_with(
        "MemTotal:         262144 kB\nMemFree:          204800 kB\nMemAvailable:     194560 kB\n"
    ));
    assert_eq!(
        text(&vfs, "/proc/cpuinfo").matches("processor\t: ").count(),
        2
    );
    assert!(text(&vfs, "/proc/cpuinfo").contains("cpu MHz\t\t: 2300.000\n"));
    assert!(text(&vfs, "/proc/stat").starts_with("cpu  0 0 0 200 0 0 0 0 0 0\ncpu0 0 0 0 100 "));
    assert_eq!(text(&vfs, "/sys/devices/system/cpu/online"), "0-1\n");
    assert_eq!(text(&vfs, "/proc/sys/kernel/osrelease"), "6.12.0-unik\n");
    assert_eq!(
        text(&vfs, "/proc/sys/kernel/random/boot_id"),
        text(&vfs, "/proc/sys/kernel/random/boot_id")
    );
    assert_ne!(
        text(&vfs, "/proc/sys/kernel/random/uuid"),
        text(&vfs, "/proc/sys/kernel/random/uuid")
    );
    let mounts = text(&vfs, "/proc/mounts");
    assert_eq!(
        mounts,
        "tmpfs / tmpfs rw,relatime 0 0\ndevtmpfs /dev devtmpfs rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw,relatime 0 0\n\
         proc /proc proc rw,relatime 0 0\nsysfs /sys sysfs ro,relatime 0 0\n"
    );
    assert!(
        text(&vfs, "/proc/self/mountinfo").contains(" / /dev/shm rw,relatime - tmpfs tmpfs rw\n")
    );
}

#[test]
fn magic_links_lead_to_the_files_themselves() {
    let vfs = system();
    let (read, write) = pipe(vfs.system(), 0);
    vfs.fds.insert(read, false).unwrap();
    vfs.fds.insert(write, false).unwrap();
    put(&vfs, "/tmp/file", b"contents");
    let fd = open(&vfs, "/tmp/file", linux::O_RDWR).unwrap();
    assert_eq!(names(&vfs, "/proc/self/fd"), ["0", "1", "2", "3"]);
    assert!(
        vfs.readlink(AT_FDCWD, b"/proc/self/fd/0")
            .unwrap()
            .starts_with(b"pipe:[")
    );
    assert_eq!(vfs.readlink(AT_FDCWD, b"/dev/fd/2").unwrap(), b"/tmp/file");
    let again = vfs
        .open(
            AT_FDCWD,
            b"/dev/stdout",
            &OpenHow {
                flags: linux::O_WRONLY,
                ..OpenHow::default()
            },
        )
        .unwrap();
    again.write(b"hello").unwrap();
    let mut out = [0; 5];
    vfs.fds.get(0).unwrap().read(&mut out).unwrap();
    assert_eq!(&out, b"hello");
    vfs.rename((AT_FDCWD, b"/tmp/file"), (AT_FDCWD, b"/root/moved"), 0)
        .unwrap();
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/proc/self/fd/2").unwrap(),
        b"/root/moved"
    );
    vfs.unlink(AT_FDCWD, b"/root/moved", 0).unwrap();
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/proc/self/fd/2").unwrap(),
        b"/root/moved (deleted)"
    );
    assert_eq!(
        get(&vfs, &format!("/proc/self/fd/{fd}")).unwrap(),
        b"contents"
    );
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/proc/self/exe").unwrap(),
        b"/bin/prog"
    );
    assert_eq!(get(&vfs, "/proc/self/exe").unwrap(), b"\x7fELF");
    vfs.chdir(b"/var/tmp").unwrap();
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/proc/self/cwd").unwrap(),
        b"/var/tmp"
    );
    assert_eq!(
        vfs.stat(AT_FDCWD, b"/proc/self/cwd/../tmp", 0).unwrap(),
        vfs.stat(AT_FDCWD, b"/var/tmp", 0).unwrap()
    );
    assert_eq!(
        vfs.readlink(AT_FDCWD, b"/proc/self/fd/77"),
        Err(Errno::ENOENT)
    );
    let memfd = vfs
        .fds
        .insert(vfs.memfd(b"name", true).unwrap(), false)
        .unwrap();
    assert_eq!(
        vfs.readlink(AT_FDCWD, format!("/proc/self/fd/{memfd}").as_bytes())
            .unwrap(),
        b"/memfd:name (deleted)"
    );
    let how = OpenHow {
        flags: linux::O_RDONLY,
        mode: 0,
        resolve: linux::RESOLVE_NO_MAGICLINKS,
    };
    assert_eq!(
        vfs.open(AT_FDCWD, b"/proc/self/fd/0", &how).err(),
        Some(Errno::ELOOP)
    );
}

#[test]
fn unnamed_files_get_their_name_through_the_magic_link() {
    let vfs = system();
    let fd = open(&vfs, "/tmp", unik_fs::vfs::O_TMPFILE | linux::O_RDWR).unwrap();
    vfs.fds.get(fd).unwrap().write(b"late").unwrap();
    assert_eq!(vfs.fds.get(fd).unwrap().metadata().nlink, 0);
    let link = format!("/proc/self/fd/{fd}");
    vfs.link(
        (AT_FDCWD, link.as_bytes()),
        (AT_FDCWD, b"/tmp/named"),
        linux::AT_SYMLINK_FOLLOW,
    )
    .unwrap();
    assert_eq!(get(&vfs, "/tmp/named").unwrap(), b"late");
    let fd = open(
        &vfs,
        "/tmp",
        unik_fs::vfs::O_TMPFILE | linux::O_RDWR | linux::O_EXCL,
    )
    .unwrap();
    assert_eq!(
        vfs.link((fd, b""), (AT_FDCWD, b"/tmp/other"), linux::AT_EMPTY_PATH),
        Err(Errno::ENOENT)
    );
}
