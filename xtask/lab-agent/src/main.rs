//! The laboratory's first process besides its start script: takes jobs from the virtio-serial port and runs each in a thread.
//!
//! `lab-agent tsc` instead prints the frequency of this machine's time stamp counter in kHz.

use lab_agent::{Done, HELLO, Job, PORT, receive, send};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    if std::env::args().nth(1).is_some_and(|word| word == "tsc") {
        println!("{}", tsc_khz());
        return Ok(());
    }
    let port = File::options().read(true).write(true).open(port()?)?;
    let answers = Arc::new(Mutex::new(port.try_clone()?));
    answer(&answers, HELLO)?;
    serve(port, &answers)?;
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

/// The port's device, by its name.
fn port() -> io::Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other("no virtio-serial port of the laboratory"))
}

fn answer(port: &Mutex<File>, content: &[u8]) -> io::Result<()> {
    send(
        &mut *port.lock().unwrap_or_else(PoisonError::into_inner),
        content,
    )
}

fn serve(mut port: File, answers: &Arc<Mutex<File>>) -> io::Result<()> {
    loop {
        let frame = receive(&mut port)?;
        if frame.is_empty() {
            return Ok(());
        }
        let Some(job) = Job::decode(&frame) else {
            return Err(io::Error::other("a message that makes no sense"));
        };
        let answers = Arc::clone(answers);
        std::thread::spawn(move || {
            let id = job.id;
            let done = run(job).unwrap_or_else(|error| Done {
                id,
                code: 127,
                stderr: format!("lab: {error}\n").into_bytes(),
                ..Done::default()
            });
            answer(&answers, &done.encode())
        });
    }
}

fn run(job: Job) -> io::Result<Done> {
    let mut words = job.argv.into_iter().map(OsString::from_vec);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env_clear().process_group(0);
    for setting in &job.env {
        let text = String::from_utf8_lossy(setting);
        if let Some((name, value)) = text.split_once('=') {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let (stdin, input) = (child.stdin.take(), job.stdin);
    // A program may end before it has read all.
    std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let signal = i32::try_from(job.signal)
        .ok()
        .and_then(Signal::from_named_raw);
    let line = [job.signal_after, b"\n".to_vec()].concat();
    let stdout = collect(child.stdout.take(), move |all| {
        if let Some(signal) = signal.filter(|_| all.ends_with(&line)) {
            let _ = kill_process(pid, signal);
        }
    });
    let stderr = collect(child.stderr.take(), |_| ());
    let (status, late) = wait(child, pid, Duration::from_millis(job.limit_ms))?;
    let nanos = start.elapsed().as_nanos() as u64;
    let code = status
        .code()
        .or(status.signal().map(|s| 128 + s))
        .unwrap_or(255);
    Ok(Done {
        id: job.id,
        code: code as u64,
        late: late.into(),
        nanos,
        stdout: stdout.recv().unwrap_or_default(),
        stderr: stderr.recv().unwrap_or_default(),
    })
}

fn collect(
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

/// Waits; after `limit` the whole process group is killed.
fn wait(mut child: Child, group: Pid, limit: Duration) -> io::Result<(ExitStatus, bool)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait()));
    let late = receiver.recv_timeout(limit);
    let (status, late) = match late {
        Ok(status) => (status, false),
        Err(_) => {
            let _ = kill_process_group(group, Signal::KILL);
            let gone = || Err(io::Error::other("the program's end was not seen"));
            (receiver.recv().unwrap_or_else(|_| gone()), true)
        }
    };
    // What it left behind must not keep the pipes open.
    let _ = kill_process_group(group, Signal::KILL);
    Ok((status?, late))
}

/// Steps of the counter and nanoseconds at one moment: of several readings the one that took the least time, so that a preemption in
/// between does no harm.
fn moment(start: Instant) -> (u64, u64) {
    // SAFETY: `rdtsc` has no precondition.
    let tsc = || unsafe { core::arch::x86_64::_rdtsc() };
    let reading = || {
        let (before, nanos, after) = (tsc(), start.elapsed().as_nanos() as u64, tsc());
        (after.wrapping_sub(before), before, nanos)
    };
    let (_, steps, nanos) = (0..100).map(|_| reading()).min().unwrap_or_default();
    (steps, nanos)
}

fn tsc_khz() -> u64 {
    let start = Instant::now();
    let first = moment(start);
    std::thread::sleep(Duration::from_millis(50));
    let last = moment(start);
    let (steps, nanos) = (
        last.0.wrapping_sub(first.0),
        last.1.saturating_sub(first.1).max(1),
    );
    (u128::from(steps) * 1_000_000 / u128::from(nanos)) as u64
}
