//! The standard streams of a guest under QEMU.
//!
//! QEMU's virtconsole drops what a pipe or terminal does not take at once, so its output goes to ordinary files, which take
//! everything, and a thread copies them to our standard output and error as they grow. Input goes through a pipe: QEMU
//! would otherwise change the terminal's mode.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_millis(2);

/// The files; QEMU's `pipe` back end takes `<stdio>.in` and `<stdio>.out`.
#[derive(Debug)]
pub struct Relay {
    /// Path without its `.in` and `.out`.
    pub stdio: PathBuf,
    /// Standard error.
    pub err: PathBuf,
    files: [File; 2],
}

impl Relay {
    /// Makes the files in `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let (stdio, err) = (dir.join("stdio"), dir.join("stderr"));
        symlink("/proc/self/fd/0", dir.join("stdio.in"))?;
        let (out_path, err_path) = (dir.join("stdio.out"), err.clone());
        File::create(&out_path)?;
        File::create(&err_path)?;
        Ok(Self {
            stdio,
            err,
            files: [File::open(out_path)?, File::open(err_path)?],
        })
    }

    /// Begins to copy; after the last byte of the input come those of `end` (a virtconsole has no other way to say it).
    /// The input thread ends with the process: nothing can wake it from a read.
    pub fn start(self, child: &mut Child, end: [u8; 32]) -> Running {
        if let Some(mut pipe) = child.stdin.take() {
            std::thread::spawn(move || {
                io::copy(&mut io::stdin().lock(), &mut pipe)?;
                pipe.write_all(&end)
            });
        }
        let done = Arc::new(AtomicBool::new(false));
        let (seen, pid) = (Arc::clone(&done), child.id());
        Running {
            thread: std::thread::spawn(move || copy_until(self.files, &seen, pid)),
            done,
        }
    }
}

/// Copying in progress.
#[derive(Debug)]
pub struct Running {
    done: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Running {
    /// Copies what is left; whether nobody listened any more.
    pub fn finish(self) -> bool {
        self.done.store(true, Ordering::Release);
        self.thread.join().unwrap_or(false)
    }
}

/// Copies until `done` and the files' ends. When nobody listens any more, ends the child as SIGPIPE would end a program.
fn copy_until([mut out, mut err]: [File; 2], done: &AtomicBool, pid: u32) -> bool {
    loop {
        let last = done.load(Ordering::Acquire);
        match (
            grow(&mut out, &mut io::stdout()),
            grow(&mut err, &mut io::stderr()),
        ) {
            (Ok(false), Ok(false)) if last => return false,
            (Ok(false), Ok(false)) => std::thread::sleep(PERIOD),
            (Ok(_), Ok(_)) => {}
            _ => {
                super::child::forward(pid, signal_hook::consts::SIGKILL);
                return true;
            }
        }
    }
}

/// Copies what is new; whether there was anything.
fn grow(file: &mut File, to: &mut impl Write) -> io::Result<bool> {
    let mut buffer = [0; 1 << 16];
    let n = file.read(&mut buffer)?;
    to.write_all(&buffer[..n])?;
    to.flush()?;
    Ok(n > 0)
}
