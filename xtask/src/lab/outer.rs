//! The laboratory's machine: a stock kernel with kvm-amd under QEMU's emulation of a processor that has SVM.
//!
//! [`Laboratory::boot`] starts it from a RAM disk made for the occasion; [`Laboratory::run`] runs a [`Job`] inside. Dropping it ends
//! QEMU and removes its files, whatever happened before.

use super::cpio::Archive;
use super::debian::Debian;
use super::modules::Modules;
use crate::running::Group;
use crate::sh;
use anyhow::{Context, Result, bail, ensure};
use lab_agent::{Done, HELLO, Job, PORT, receive, send};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Modules of the outer kernel.
const MODULES: [&str; 6] = [
    "virtio-mmio",
    "virtio-blk",
    "virtio-console",
    "kvm-amd",
    "tun",
    "vhost-vsock",
];

/// The first process. Jobs find busybox's commands on the path.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /run
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
ip link set lo up
while read -r module; do insmod "$module" || echo "lab: cannot load $module"; done < /etc/lab-modules
for word in $(cat /proc/cmdline); do
  if [ "$word" = lab.shell ]; then
    echo; echo "files of this run are in /lab; leave with exit"
    cd /lab; setsid cttyhack sh -l
    poweroff -f
  fi
done
mkdir -p /mnt
lab-agent || echo "lab: the agent failed"
poweroff -f
"#;

/// Most time from power-on to the agent's first word on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(40);

/// Lines of the console that are shown when a machine breaks down; twice as many of a complaint.
const TAIL: usize = 25;

/// How often a look is taken at what QEMU says.
const LOOK: Duration = Duration::from_secs(1);

/// Emulated processors sometimes stand still while they boot; then the machine is started anew.
const ATTEMPTS: u32 = 3;

/// A file to be seen inside.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Path inside.
    pub path: String,
    /// File of the host.
    pub from: PathBuf,
}

impl Payload {
    /// `from`, at `path` inside.
    pub fn new(path: &str, from: &Path) -> Self {
        Self {
            path: path.to_owned(),
            from: from.to_owned(),
        }
    }
}

/// How large the machine is, in MiB and processors.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Memory in MiB, without the RAM disk.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            memory: 2048,
            cpus: 2,
        }
    }
}

/// What is needed to make machines.
#[derive(Clone, Debug)]
pub struct Maker {
    /// Debian's part.
    pub debian: Debian,
    /// The static agent.
    pub agent: PathBuf,
    /// Where temporary files go.
    pub scratch: PathBuf,
    /// A disk for the machine; what it writes there is forgotten.
    pub disk: Option<PathBuf>,
}

impl Maker {
    /// Writes the RAM disk and returns its length.
    fn ramdisk(&self, path: &Path, payload: &[Payload]) -> Result<u64> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut archive = Archive::new(BufWriter::new(file));
        for folder in ["proc", "sys", "dev", "lab"] {
            archive.folder(folder)?;
        }
        archive.copy("bin/busybox", 0o755, &self.debian.busybox)?;
        archive.copy("bin/lab-agent", 0o755, &self.agent)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
        let mut list = String::new();
        for module in Modules::find(&self.debian.kernel.modules)?.ordered(&MODULES)? {
            let name = module
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            archive.copy(&format!("modules/{name}"), 0o644, &module)?;
            list.push_str(&format!("/modules/{name}\n"));
        }
        archive.file("etc/lab-modules", 0o644, list.as_bytes())?;
        for item in payload {
            let copied = archive.copy(item.path.trim_start_matches('/'), 0o755, &item.from);
            copied.with_context(|| item.from.display().to_string())?;
        }
        archive.finish()?;
        Ok(std::fs::metadata(path)?.len())
    }

    fn qemu(&self, ramdisk: &Path, size: Size, payload_len: u64, words: &str) -> Result<Command> {
        let khz = sh::output(Command::new(&self.agent).arg("tsc"))?;
        // The RAM disk is in memory twice while it is unpacked.
        let memory = size.memory + (payload_len >> 19);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-M",
            "microvm",
            "-cpu",
            "EPYC",
            "-nodefaults",
            "-no-user-config",
        ])
        .args([
            "-no-reboot",
            "-display",
            "none",
            "-m",
            &memory.to_string(),
            "-smp",
            &size.cpus.to_string(),
        ])
        .arg("-kernel")
        .arg(&self.debian.kernel.bzimage)
        .arg("-initrd")
        .arg(ramdisk)
        .arg("-append");
        // Without the second word time comes in steps of 4 ms, without the third the boot sometimes hangs early.
        qemu.arg(format!(
            "console=ttyS0 tsc=reliable tsc_early_khz={} panic=-1 {words}",
            khz.trim()
        ));
        if let Some(disk) = &self.disk {
            let drive = format!(
                "if=none,id=disk,format=raw,snapshot=on,file={}",
                disk.display()
            );
            qemu.args(["-device", "virtio-blk-device,drive=disk", "-drive", &drive]);
        }
        Ok(qemu)
    }

    /// A shell inside, on this terminal.
    pub fn shell(&self, payload: &[Payload], size: Size) -> Result<()> {
        let work = self.work()?;
        let ramdisk = work.path().join("initrd");
        let len = self.ramdisk(&ramdisk, payload)?;
        let mut qemu = self.qemu(&ramdisk, size, len, "quiet lab.shell")?;
        sh::run(qemu.args([
            "-chardev",
            "stdio,id=terminal,signal=off",
            "-serial",
            "chardev:terminal",
        ]))
    }

    fn work(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new()
            .prefix("lab")
            .tempdir_in(&self.scratch)?)
    }
}

/// Answers that came, and whether more can come.
#[derive(Debug, Default)]
struct Answers {
    done: HashMap<u64, Done>,
    over: bool,
    next_id: u64,
}

/// The machine ended, does not answer or complains: whatever ran in it has no verdict. What is known of it.
#[derive(Debug)]
pub struct Breakdown(pub String);

impl std::fmt::Display for Breakdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Breakdown {}

/// A running machine.
#[derive(Debug)]
pub struct Laboratory {
    qemu: Child,
    _group: Group,
    port: Mutex<UnixStream>,
    answers: Arc<(Mutex<Answers>, Condvar)>,
    work: TempDir,
    /// From the start of QEMU to the agent's first word.
    pub boot_time: Duration,
}

impl Laboratory {
    /// Boots a machine with these files inside.
    pub fn boot(maker: &Maker, payload: &[Payload], size: Size) -> Result<Self> {
        for attempt in 1..ATTEMPTS {
            match Self::attempt(maker, payload, size) {
                Ok(lab) => return Ok(lab),
                Err(error) if sh::found("qemu-system-x86_64") => {
                    eprintln!("attempt {attempt} of {ATTEMPTS}: {error:#}");
                }
                Err(error) => return Err(error),
            }
        }
        Self::attempt(maker, payload, size)
    }

    fn attempt(maker: &Maker, payload: &[Payload], size: Size) -> Result<Self> {
        let work = maker.work()?;
        let ramdisk = work.path().join("initrd");
        let len = maker.ramdisk(&ramdisk, payload)?;
        let socket = work.path().join("port");
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        let mut qemu = maker.qemu(&ramdisk, size, len, "")?;
        qemu.args([
            "-device",
            "virtio-serial-device",
            "-device",
            &format!("virtserialport,chardev=lab,name={PORT}"),
        ])
        .args([
            "-chardev",
            &format!("socket,id=lab,path={}", socket.display()),
        ])
        .args([
            "-chardev",
            &format!("file,id=log,path={}", work.path().join("console").display()),
            "-serial",
            "chardev:log",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(work.path().join("qemu"))?)
        .process_group(0);
        let start = Instant::now();
        let child = qemu.spawn().context("cannot start qemu-system-x86_64")?;
        let group = Group::of(&child)?;
        let mut starting = Starting { qemu: Some(child) };
        let port = starting.greet(&listener, start, work.path())?;
        let answers = Arc::new((Mutex::new(Answers::default()), Condvar::new()));
        listen(port.try_clone()?, Arc::clone(&answers));
        let qemu = starting.qemu.take().context("QEMU is gone")?;
        Ok(Self {
            qemu,
            _group: group,
            port: Mutex::new(port),
            answers,
            work,
            boot_time: start.elapsed(),
        })
    }

    /// Runs a job inside and waits for it. The job's own limit is kept inside; the machine gets a little longer.
    pub fn run(&self, mut job: Job) -> Result<Done> {
        let (answers, news) = &*self.answers;
        job.id = {
            let mut answers = lock(answers);
            answers.next_id += 1;
            answers.next_id
        };
        let end = Instant::now() + Duration::from_millis(job.limit_ms) + Duration::from_secs(15);
        if send(&mut *lock(&self.port), &job.encode()).is_err() {
            bail!(self.breakdown("does not take jobs"));
        }
        let mut answers = lock(answers);
        loop {
            if let Some(done) = answers.done.remove(&job.id) {
                return Ok(done);
            }
            let left = end.saturating_duration_since(Instant::now());
            if answers.over {
                bail!(self.breakdown("broke down"));
            }
            // A device that QEMU gave up stays silent for ever.
            if !complaints(&self.read("qemu")).is_empty() {
                bail!(self.breakdown("has an emulator that complains"));
            }
            if left.is_zero() {
                bail!(self.breakdown("does not answer"));
            }
            answers = news
                .wait_timeout(answers, left.min(LOOK))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// An error when the machine's kernel has complained on its console.
    pub fn sound(&self) -> Result<()> {
        match self.read("console").lines().find(|line| oops(line)) {
            Some(line) => bail!(self.breakdown(&format!("has a kernel that complains: {line}"))),
            None => Ok(()),
        }
    }

    fn read(&self, name: &str) -> String {
        read(self.work.path(), name)
    }

    fn breakdown(&self, what: &str) -> Breakdown {
        Breakdown(last_words(self.work.path(), what))
    }
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        // Asked first, so that nothing inside is cut off; QEMU has no disk to lose.
        let _ = send(&mut *lock(&self.port), &[]);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && matches!(self.qemu.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What QEMU said, without what its emulation lacks of the processor.
fn complaints(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.contains("TCG doesn't support"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Whether a kernel says in this line that it found itself broken. A processor that stood still for a while (`soft lockup`) is what
/// emulated ones do on a busy machine.
fn oops(line: &str) -> bool {
    const SIGNS: [&str; 5] = [
        "Kernel panic",
        "Oops: ",
        "BUG: ",
        "kernel BUG at",
        "general protection fault",
    ];
    !line.contains("soft lockup") && SIGNS.iter().any(|sign| line.contains(sign))
}

fn read(work: &Path, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(work.join(name)).unwrap_or_default()).into_owned()
}

/// What QEMU said and what the machine's console did: from the first complaint on, or else the end.
fn last_words(work: &Path, what: &str) -> String {
    let console = read(work, "console");
    let lines: Vec<_> = console.lines().collect();
    let complaint = lines.iter().position(|line| oops(line));
    let first = complaint.unwrap_or(lines.len().saturating_sub(TAIL));
    let shown: Vec<_> = lines[first..].iter().take(2 * TAIL).copied().collect();
    format!(
        "the laboratory's machine {what}\n{}{}",
        complaints(&read(work, "qemu")),
        shown.join("\n")
    )
}

/// QEMU until the agent speaks; ended when it never does.
struct Starting {
    qemu: Option<Child>,
}

impl Starting {
    fn greet(
        &mut self,
        listener: &UnixListener,
        start: Instant,
        work: &Path,
    ) -> Result<UnixStream> {
        listener.set_nonblocking(true)?;
        let mut port = loop {
            match listener.accept() {
                Ok((port, _)) => break port,
                Err(_) if self.alive() && start.elapsed() < BOOT_LIMIT => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                Err(_) => bail!(last_words(work, "did not start")),
            }
        };
        port.set_nonblocking(false)?;
        port.set_read_timeout(Some(
            BOOT_LIMIT
                .saturating_sub(start.elapsed())
                .max(Duration::from_secs(1)),
        ))?;
        let hello = receive(&mut port).with_context(|| last_words(work, "did not come up"))?;
        ensure!(
            hello == HELLO,
            "the laboratory's agent speaks another version: {}",
            String::from_utf8_lossy(&hello)
        );
        port.set_read_timeout(None)?;
        Ok(port)
    }

    fn alive(&mut self) -> bool {
        self.qemu
            .as_mut()
            .is_some_and(|qemu| matches!(qemu.try_wait(), Ok(None)))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(qemu) = &mut self.qemu {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

fn listen(mut port: UnixStream, answers: Arc<(Mutex<Answers>, Condvar)>) {
    std::thread::spawn(move || {
        let (answers, news) = &*answers;
        loop {
            let done = receive(&mut port)
                .ok()
                .and_then(|frame| Done::decode(&frame));
            let mut answers = lock(answers);
            match done {
                Some(done) => _ = answers.done.insert(done.id, done),
                None => answers.over = true,
            }
            news.notify_all();
            if answers.over {
                return;
            }
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_kernels_are_told_from_waiting() {
        let stuck = "[ 60.1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!";
        assert!(!oops(stuck));
        let bad = "[ 61.0] BUG: Bad page state in process unik-vmm  pfn:79e80";
        let console = format!("{stuck}\n{bad}\n");
        assert_eq!(console.lines().find(|line| oops(line)), Some(bad));
        assert!(oops(
            "[ 1.0] Kernel panic - not syncing: Attempted to kill init!"
        ));
    }

    #[test]
    fn what_the_emulation_lacks_is_no_complaint() {
        let lacks =
            "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.01H\n";
        assert_eq!(complaints(lacks), "");
        let moved = "qemu-system-x86_64: Guest moved used index from 39 to 31208\n";
        assert_eq!(complaints(&format!("{lacks}{moved}")), moved);
    }
}
