//! Guests that do all they can against their monitor: it ends with its documented code, and never hangs, panics or grows.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use common::{finish, image, image_with, kvm, vmm};
use tempfile::{TempDir, tempdir};

/// Most private memory that a monitor may take, whatever its guest does: the guest's 4 MiB and what an idle one has, in a test build.
const MOST_KIB: u64 = 9 << 10;

/// Longer than the patience with a guest that does not react to a signal, and with a reader that does not read.
const SOON: Duration = Duration::from_secs(8);

/// A guest that runs until it is stopped; nobody reads what it writes.
struct Wild {
    child: Child,
    errors: BufReader<ChildStderr>,
    _dir: TempDir,
}

impl Wild {
    /// Starts a guest and waits until it says "ready".
    fn start(name: &str, cpus: u32) -> Self {
        Self::start_with(name, cpus, &[])
    }

    fn start_with(name: &str, cpus: u32, flags: &[&str]) -> Self {
        let dir = tempdir().unwrap();
        let manifest = format!("cpus={cpus}\0memory=4194304\0");
        let mut child = Command::new(env!("CARGO_BIN_EXE_unik-vmm"))
            .arg("run")
            .args(flags)
            .arg(image_with(
                dir.path(),
                name,
                unik_abi::ABI_VERSION,
                &manifest,
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self {
            child,
            errors,
            _dir: dir,
        }
    }

    /// KiB of memory that is the monitor's alone; guest memory that was touched is in it.
    fn private_kib(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let fields = text
            .lines()
            .filter_map(|l| l.strip_prefix("Private_Dirty:"));
        fields
            .filter_map(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .sum()
    }

    /// The kernel's word about system-call filters, for each thread: 0 for none, 2 for some.
    fn filters(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let status = tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("status")));
        status
            .filter_map(|text| {
                let text = text.ok()?;
                let line = text.lines().find_map(|l| l.strip_prefix("Seccomp:"));
                line.map(|l| l.trim().to_owned())
            })
            .collect()
    }

    /// Lets it run, looks at its memory, ends it by SIGTERM and returns its exit code.
    fn tame(&mut self, time: Duration) -> Option<i32> {
        std::thread::sleep(time);
        let kib = self.private_kib();
        assert!(kib <= MOST_KIB, "{kib} KiB");
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
        let start = Instant::now();
        while start.elapsed() < SOON {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn garbage_in_every_port_and_register() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (code, _, errors) = finish(&mut vmm(&[], &image(dir.path(), "garbage")));
    assert_eq!(code, Some(7), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn queues_outside_memory_put_the_device_out_of_service() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (code, out, errors) = finish(&mut vmm(&[], &image(dir.path(), "bad-queues")));
    assert_eq!(
        (code, out, errors),
        (Some(0x4f), String::new(), String::new())
    );
}

#[test]
fn doorbells_without_end_and_interrupts_that_nobody_takes() {
    if !kvm() {
        return;
    }
    assert_eq!(
        Wild::start("doorbells", 1).tame(Duration::from_secs(1)),
        Some(143)
    );
}

#[test]
fn vcpus_that_fight_over_a_device() {
    if !kvm() {
        return;
    }
    assert_eq!(
        Wild::start("riot", 4).tame(Duration::from_secs(1)),
        Some(143)
    );
}

#[test]
fn a_guest_that_nothing_wakes() {
    if !kvm() {
        return;
    }
    assert_eq!(
        Wild::start("deaf", 2).tame(Duration::from_millis(100)),
        Some(143)
    );
}

/// A guest that took its monitor over would find no call there that opens files or starts programs.
#[test]
fn every_thread_is_confined() {
    if !kvm() {
        return;
    }
    for (flags, wanted) in [(&[][..], "2"), (&["--no-seccomp"], "0")] {
        let mut wild = Wild::start_with("deaf", 2, flags);
        std::thread::sleep(Duration::from_millis(300));
        let filters = wild.filters();
        assert!(filters.len() >= 4, "{filters:?}");
        assert!(filters.iter().all(|f| f == wanted), "{filters:?}");
        assert_eq!(wild.tame(Duration::ZERO), Some(143));
    }
}

/// Standard error is a full pipe: the vCPU waits in a write, and so must nobody else.
#[test]
fn shouting_at_a_reader_that_does_not_read() {
    if !kvm() {
        return;
    }
    let mut wild = Wild::start("shout", 1);
    assert_eq!(wild.tame(Duration::from_secs(3)), Some(143));
    let mut rest = Vec::new();
    wild.errors.read_to_end(&mut rest).unwrap();
    assert!(rest.len() <= 256 << 10 && rest.iter().take(1000).all(|&b| b == b'x'));
}

/// Output of a guest that floods its console waits in the guest, not here.
#[test]
fn a_flood_is_not_stored() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let image = image_with(dir.path(), "flood", unik_abi::ABI_VERSION, "memory=4194304");
    let mut child = Command::new(env!("CARGO_BIN_EXE_unik-vmm"))
        .arg("run")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut wild = Wild {
        errors: BufReader::new(child.stderr.take().unwrap()),
        child,
        _dir: dir,
    };
    assert_eq!(wild.tame(Duration::from_millis(500)), Some(143));
}
