//! What `unik-vmm linux` says when it cannot do what was asked: one sentence and a documented code. (Guests that run: the
//! laboratory.)

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use unik_host::disk::Disk;

/// Whether these tests can run here; says so loudly when they cannot.
fn kvm() -> bool {
    let there = std::fs::File::open("/dev/kvm").is_ok();
    if !there {
        eprintln!("SKIPPED: no /dev/kvm");
    }
    there
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// An ELF kernel with one segment of `len` bytes at `paddr`, and `mem_len` of them in memory.
fn elf(paddr: u64, len: u64, mem_len: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let longs = [paddr, 64, 0];
    file.extend(longs.map(u64::to_le_bytes).concat());
    let halves = [0, 0, 64, 56, 1, 64, 0, 0, 1, 0, 5, 0];
    file.extend(halves.map(u16::to_le_bytes).concat());
    let longs = [0x1000, paddr, paddr, len, mem_len, 0x1000];
    file.extend(longs.map(u64::to_le_bytes).concat());
    file.resize(0x1000 + len as usize, 0x90);
    file
}

/// The head of a bzImage that needs `init_size` bytes.
fn bzimage(init_size: u32, flags: u16) -> Vec<u8> {
    let mut file = vec![0; 8192];
    file[0x1f1] = 1;
    file[0x1f4..0x1f8].copy_from_slice(&(7168u32 / 16).to_le_bytes());
    file[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    file[0x201] = 0x66;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    file[0x211] = 1;
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    file[0x236..0x238].copy_from_slice(&flags.to_le_bytes());
    file[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    file[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    file[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
    file
}

/// Runs, and wants this code and one line with these words.
#[track_caller]
fn refused<I, S>(args: I, code: i32, words: &str)
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(env!("CARGO_BIN_EXE_unik-vmm"));
    let output = command.arg("linux").args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "`{words}` is not in: {text}");
    assert!(code == 64 || text.lines().count() == 1, "{text}");
}

fn kernel(path: &Path) -> Vec<&OsStr> {
    vec!["--kernel".as_ref(), path.as_os_str()]
}

fn with<'a>(path: &'a Path, more: &[&'a str]) -> Vec<&'a OsStr> {
    let mut args = kernel(path);
    args.extend(more.iter().copied().map(OsStr::new));
    args
}

#[test]
fn kernels_that_are_none() {
    if !kvm() {
        return;
    }
    let place = Place::new();
    refused(
        kernel(Path::new("/nonexistent")),
        66,
        "cannot read the kernel /nonexistent",
    );
    refused(kernel(place.0.path()), 66, "not a regular file");
    refused(
        kernel(&place.file("text", b"hello")),
        65,
        "is no kernel that can be booted",
    );
    refused(
        kernel(&place.file("empty", b"")),
        65,
        "is no kernel that can be booted",
    );
    let itself = Path::new(env!("CARGO_BIN_EXE_unik-vmm"));
    refused(kernel(itself), 65, "it is a program, not a kernel");
    let mut foreign = elf(0x100_0000, 0x1000, 0x1000);
    foreign[18] = 183;
    refused(
        kernel(&place.file("arm", &foreign)),
        65,
        "is no kernel that can be booted",
    );
    let old = place.file("old", &bzimage(0x10_0000, 0));
    refused(kernel(&old), 65, "without a 64-bit entry point");
}

#[test]
fn kernels_that_are_cut_short() {
    if !kvm() {
        return;
    }
    let place = Place::new();
    let whole = elf(0x100_0000, 0x3000, 0x3000);
    for len in [70, 0x1000, 0x3fff] {
        let path = place.file("cut", &whole[..len]);
        refused(kernel(&path), 65, "cut short or damaged");
    }
    let whole = bzimage(0x10_0000, 1);
    for len in [0x220, 8191] {
        let path = place.file("cut", &whole[..len]);
        refused(kernel(&path), 65, "cut short or damaged");
    }
}

#[test]
fn what_does_not_fit_into_memory() {
    if !kvm() {
        return;
    }
    let place = Place::new();
    let large = place.file("large", &bzimage(0x340_0000, 1));
    refused(
        with(&large, &["--memory", "32M"]),
        78,
        "give it more (--memory 68M)",
    );
    let large = place.file("large", &elf(0x100_0000, 0x1000, 0x400_0000));
    refused(
        with(&large, &["--memory", "64M"]),
        78,
        "needs 88 MiB of guest memory",
    );
    refused(with(&large, &["--memory", "5000"]), 78, "multiple of 4096");
    let small = place.file("small", &elf(0x100_0000, 0x1000, 0x1000));
    let initrd = place.file("initrd", &vec![0; 50 << 20]);
    let initrd = initrd.to_str().unwrap();
    let args = ["--memory", "64M", "--initrd", initrd];
    refused(with(&small, &args), 78, "of 52428800 bytes does not fit");
    refused(with(&small, &args), 78, "more memory (--memory)");
    // Below 2 GiB a bzImage says where it ends at most; more memory does not help.
    let packed = place.file("packed", &bzimage(0x340_0000, 1));
    let huge = place.file("huge", b"");
    let file = std::fs::File::options().write(true).open(&huge).unwrap();
    file.set_len(3 << 30).unwrap();
    let args = ["--memory", "4G", "--initrd", huge.to_str().unwrap()];
    refused(with(&packed, &args), 78, "takes none that ends higher");
    refused(
        with(&small, &["--initrd", "/nonexistent"]),
        66,
        "cannot read the initrd /nonexistent",
    );
    let long = "x".repeat(3000);
    refused(
        with(&small, &["--cmdline", &long]),
        78,
        "this kernel takes at most 2047",
    );
    refused(with(&small, &["--entry", "pvh"]), 78, "no PVH entry point");
}

#[test]
fn disks_that_cannot_be_used() {
    if !kvm() {
        return;
    }
    let place = Place::new();
    let small = place.file("small", &elf(0x100_0000, 0x1000, 0x1000));
    let with_disk = |disk: &str, code, words| refused(with(&small, &["--disk", disk]), code, words);
    with_disk("/nonexistent", 66, "cannot open the disk /nonexistent");
    with_disk("/tmp", 78, "/tmp is not a disk");
    with_disk("/dev/null", 78, "/dev/null is not a disk");
    let empty = place.file("empty", b"x");
    with_disk(empty.to_str().unwrap(), 78, "smaller than one sector");
    let disk = place.file("disk", &[0; 4096]);
    let name = disk.to_str().unwrap();
    let elsewhere = Disk::open(&disk, false).unwrap();
    with_disk(name, 78, "already used by another monitor");
    with_disk(&format!("{name}:ro"), 78, "already used by another monitor");
    let shared = place.file("shared", &[0; 4096]);
    let reader = Disk::open(&shared, true).unwrap();
    with_disk(
        shared.to_str().unwrap(),
        78,
        "already used by another monitor",
    );
    drop((elsewhere, reader));
    let twice = place.file("twice", &[0; 4096]);
    let name = twice.to_str().unwrap();
    let same = ["--disk", name, "--disk", name];
    refused(with(&small, &same), 78, "already used");
    let many: Vec<&str> = (0..30).flat_map(|_| ["--disk", name]).collect();
    refused(
        with(&small, &many),
        78,
        "more than the 19 that a machine has interrupts for",
    );
}

#[test]
fn wishes_that_make_no_sense() {
    if !kvm() {
        return;
    }
    let place = Place::new();
    let small = place.file("small", &elf(0x100_0000, 0x1000, 0x1000));
    for cpus in ["0", "300"] {
        refused(with(&small, &["--cpus", cpus]), 78, "vCPUs: give 1 to");
    }
    refused(
        with(&small, &["--vsock", "/tmp/v,cid=2"]),
        64,
        "from 3 to 4294967294",
    );
    refused(
        with(&small, &["--vsock", "/nonexistent/v"]),
        78,
        "cannot listen at /nonexistent/v",
    );
    refused(
        with(&small, &["--control", "/nonexistent/c"]),
        78,
        "cannot listen at /nonexistent/c",
    );
    refused(with(&small, &["--memory", "many"]), 64, "--memory");
    refused(["--disk", "x"], 64, "--kernel");
}
