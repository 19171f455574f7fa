//! Running other programs: echo, capture, time limits.

use crate::running::Group;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Bad news.
pub const FAIL: Style = AnsiColor::Red.on_default().bold();
/// Neither.
pub const NOTE: Style = AnsiColor::Cyan.on_default().bold();

/// The target that stock Rust makes static programs for.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The project's root folder.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or(here.clone(), Path::to_owned)
}

/// Cargo, in the project's root.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(args);
    cargo
}

/// Where cargo builds.
pub fn target_dir() -> Result<PathBuf> {
    let mut metadata = cargo_metadata::MetadataCommand::new();
    metadata.no_deps().manifest_path(root().join("Cargo.toml"));
    Ok(metadata.exec()?.target_directory.into_std_path_buf())
}

/// Prints and runs; a failure is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = announce(command)
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Prints and runs; standard output is shown and returned, with the status. After `limit` the command and its children are killed.
pub fn tee(command: &mut Command, limit: Duration) -> Result<(String, ExitStatus)> {
    let mut child = announce(command)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let group = Group::of(&child)?;
    let (done, ended) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            group.signal(Signal::KILL);
        }
    });
    let mut text = String::new();
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait()?;
    drop(done);
    let _ = guard.join();
    Ok((text, status))
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn announce(command: &mut Command) -> &mut Command {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy())
        .collect();
    anstream::eprintln!("{NOTE}{:>12}{NOTE:#} {}", "Running", words.join(" "));
    command
}

/// Where programs are: the path, and behind it the folders of administrators, which a user's path often lacks.
pub fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Whether a program can be found on [`path`].
pub fn found(program: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| dir.join(program).is_file())
}

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Wall time.
    pub time: Duration,
    /// It had to be killed.
    pub late: bool,
}

/// A signal to send once a line has come.
#[derive(Clone, Debug)]
pub struct SignalAfter {
    /// The line.
    pub line: String,
    /// The signal.
    pub signal: Signal,
}

/// Runs a program with this input, in a process group of its own, and kills the group after `limit`.
pub fn capture(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
    signal: Option<SignalAfter>,
) -> Result<Outcome> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let group = Group::of(&child)?;
    let pid = group.leader();
    let (input, stdin) = (input.to_vec(), child.stdin.take());
    // A program may end before it has read all.
    std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let stdout = reader(child.stdout.take(), move |so_far| {
        if let Some(s) = signal
            .as_ref()
            .filter(|s| so_far.ends_with(format!("{}\n", s.line).as_bytes()))
        {
            let _ = rustix::process::kill_process(pid, s.signal);
        }
    });
    let stderr = reader(child.stderr.take(), |_| ());
    let status = wait(&mut child, limit.saturating_sub(start.elapsed()))?;
    let time = start.elapsed();
    if status.is_none() {
        group.signal(Signal::KILL);
    }
    let late = status.is_none();
    let status = status.map_or_else(|| child.wait(), Ok)?;
    let code = status
        .code()
        .or(status.signal().map(|s| 128 + s))
        .unwrap_or(-1);
    Ok(Outcome {
        stdout: stdout.recv().unwrap_or_default(),
        stderr: stderr.recv().unwrap_or_default(),
        code,
        time,
        late,
    })
}

/// Reads a pipe to its end in a thread; `seen` looks at all that has come whenever more has come.
fn reader(
    pipe: Option<impl Read + Send + 'static>,
    seen: impl Fn(&[u8]) + Send + 'static,
) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 1 << 14]);
        if let Some(mut pipe) = pipe {
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                all.extend_from_slice(&buffer[..n]);
                seen(&all);
            }
        }
        sender.send(all)
    });
    receiver
}

/// Waits at most `limit`; `None` when the child still runs.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            status => return Ok(status),
        }
    }
}

/// A program that runs beside others until it is stopped.
pub struct Background {
    child: Child,
    group: Group,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Background {
    /// Starts a program in a process group of its own and waits until it prints a line that begins with `ready`.
    pub fn start(command: &mut Command, ready: &str, limit: Duration) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take();
        std::thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines());
            lines
                .map_while(Result::ok)
                .for_each(|line| _ = sender.send(line));
        });
        let stderr = reader(child.stderr.take(), |_| ());
        let group = Group::of(&child)?;
        let this = Self {
            child,
            group,
            stderr,
        };
        let end = Instant::now() + limit;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(ready) => return Ok(this),
                Ok(_) => {}
                Err(error) => {
                    let said = this.stop()?;
                    anyhow::bail!("no line `{ready}` from the server ({error}): {said}");
                }
            }
        }
    }

    /// Stops it, by force if it must be, and returns what it said on standard error.
    pub fn stop(mut self) -> Result<String> {
        self.group.signal(Signal::TERM);
        if wait(&mut self.child, Duration::from_secs(5))?.is_none() {
            self.group.signal(Signal::KILL);
            self.child.wait()?;
        }
        let said = self.stderr.recv().unwrap_or_default();
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
