//! The terminal of `unik-vmm linux`: raw while the guest runs, as it was before on every way out.
//!
//! The guests are a few bytes of machine code in an ELF file, so that they run on every kind of KVM.

#[path = "common/pty.rs"]
mod pty;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Termios, tcgetattr};

/// Waits for ever: `jmp .`.
const FOREVER: &[u8] = &[0xeb, 0xfe];
/// Switches the machine off: writes to the sleep control port.
const OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4];
/// Resets it.
const RESET: &[u8] = &[0x66, 0xba, 0x04, 0x06, 0xb0, 0x01, 0xee, 0xf4];
/// An exception without anybody to take it.
const CRASH: &[u8] = &[0x0f, 0x0b];

/// An ELF kernel of this code at 16 MiB.
fn kernel(code: &[u8]) -> Vec<u8> {
    let (at, len) = (0x100_0000u64, code.len() as u64);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([at, 64, 0].map(u64::to_le_bytes).concat());
    let halves = [0, 0, 64, 56, 1, 64, 0, 0, 1, 0, 5, 0];
    file.extend(halves.map(u16::to_le_bytes).concat());
    let longs = [0x1000, at, at, len, len, 0x1000];
    file.extend(longs.map(u64::to_le_bytes).concat());
    file.resize(0x1000, 0);
    file.extend(code);
    file
}

struct Terminal {
    outside: File,
    inside: File,
    before: Termios,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Terminal {
    /// Runs a guest of this code on a new terminal.
    fn run(code: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, kernel(code)).unwrap();
        let (outside, inside) = pty::pty();
        let before = tcgetattr(&inside).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_unik-vmm"))
            .args(["linux", "--memory", "64M", "--kernel"])
            .arg(&path)
            .stdin(inside.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            outside,
            inside,
            before,
            child,
            _folder: folder,
        }
    }

    fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.inside).unwrap();
        !now.local_modes.contains(LocalModes::ICANON)
    }

    fn wait_until_raw(&self) {
        let start = Instant::now();
        while !self.is_raw() {
            assert!(start.elapsed() < Duration::from_secs(20), "never raw");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for the end: this code, and the terminal as it was.
    #[track_caller]
    fn ends(mut self, code: i32) {
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        let after = tcgetattr(&self.inside).unwrap();
        let modes = |t: &Termios| {
            (
                t.input_modes,
                t.output_modes,
                t.control_modes,
                t.local_modes,
            )
        };
        assert_eq!(modes(&after), modes(&self.before));
    }
}

fn kvm() -> bool {
    let there = Path::new("/dev/kvm").exists();
    if !there {
        eprintln!("SKIPPED: no /dev/kvm");
    }
    there
}

#[test]
fn ended_from_the_keyboard() {
    if kvm() {
        let mut terminal = Terminal::run(FOREVER);
        terminal.wait_until_raw();
        // One Ctrl-A for the guest, then the end.
        terminal.outside.write_all(b"\x01\x01abc\x01x").unwrap();
        terminal.ends(77);
    }
}

#[test]
fn stopped_by_signals() {
    if kvm() {
        let terminal = Terminal::run(FOREVER);
        terminal.wait_until_raw();
        terminal.signal();
        std::thread::sleep(Duration::from_millis(200));
        assert!(terminal.is_raw());
        terminal.signal();
        terminal.ends(128 + 15);
    }
}

#[test]
fn ended_by_the_guest() {
    if kvm() {
        for (code, ending) in [(OFF, 0), (RESET, 75), (CRASH, 70)] {
            Terminal::run(code).ends(ending);
        }
    }
}
