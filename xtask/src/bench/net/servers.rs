//! A server of the examples somewhere: as a process, as a unikernel on tap or user network, or under QEMU.

use super::{AT_ONCE, SOON, refused, request, until};
use crate::bench::measure;
use crate::e2e::tools::Tools;
use crate::port;
use crate::sh;
use crate::tap;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Clock ticks of `/proc` in a second.
const TICKS: f64 = 100.0;

/// Longest wait for a server.
const START: Duration = Duration::from_secs(20);

/// Where a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A process, over the loopback.
    Native,
    /// A unikernel on the tap device.
    Tap,
    /// A unikernel on the user network.
    User,
    /// The same image under QEMU on the tap device.
    Qemu,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Tap => "tap",
            Self::User => "user",
            Self::Qemu => "QEMU",
        })
    }
}

/// Programs and images.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    elfs: PathBuf,
    /// hello's image.
    pub hello: PathBuf,
}

impl Programs {
    /// Builds what the bench needs of the examples.
    pub fn build(tools: &Tools) -> Result<Self> {
        let target = tools.scratch.join("net");
        let mut build = tools.unik(&["build", "--release", "--manifest-path"]);
        build
            .arg(sh::root().join("examples/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target);
        for package in ["http-server", "tcp-stream", "hello"] {
            build.args(["-p", package]);
        }
        sh::run(&mut build)?;
        let folder = target.join("unik/release");
        Ok(Self {
            hello: folder.join("hello.unik"),
            folder,
            elfs: target.join("unik/build/x86_64-unknown-linux-gnu/release"),
        })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: String,
    address: String,
    http: bool,
}

impl Server {
    /// The axum server of the examples.
    pub fn http(tools: &Tools, programs: &Programs, place: Place, cpus: u32) -> Result<Self> {
        Self::start(tools, programs, "http-server", place, cpus, true)
    }

    /// The server of streams.
    pub fn stream(tools: &Tools, programs: &Programs, place: Place, cpus: u32) -> Result<Self> {
        Self::start(tools, programs, "tcp-stream", place, cpus, false)
    }

    fn start(
        tools: &Tools,
        programs: &Programs,
        name: &str,
        place: Place,
        cpus: u32,
        http: bool,
    ) -> Result<Self> {
        let inside = if http { 80 } else { 5001 };
        let image = programs.folder.join(format!("{name}.unik"));
        let (mut command, address) = match place {
            Place::Native => {
                let address = format!("127.0.0.1:{}", port::free()?);
                let mut native = Command::new(programs.elfs.join(name));
                native.args(http.then_some("serve")).arg(&address);
                (native, address)
            }
            Place::Tap => {
                let mut run = tools.monitor();
                run.args(["run", "--timings=json", "--net", &tap::flag()]);
                (run, format!("{}:{inside}", tap::GUEST))
            }
            Place::User => {
                let (mut run, port) = (tools.monitor(), port::free()?);
                run.args(["run", "--timings=json", "-p"])
                    .arg(format!("127.0.0.1:{port}:{inside}"));
                (run, format!("127.0.0.1:{port}"))
            }
            Place::Qemu => {
                let words = [
                    "--quiet",
                    "boot",
                    "--monitor",
                    "qemu",
                    "--qemu-accel",
                    "kvm",
                ];
                let mut boot = tools.unik(&words);
                boot.args(["--net", &tap::flag()]);
                (boot, format!("{}:{inside}", tap::GUEST))
            }
        };
        if place != Place::Native {
            command.args(["--cpus", &cpus.to_string()]).arg(&image);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self {
            child,
            name: format!("{command:?}"),
            address,
            http,
        })
    }

    /// `ADDRESS:PORT`
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// For wrk.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Waits until it answers.
    pub fn wait(&mut self) -> Result<()> {
        let address = self.address.parse()?;
        let mut patience = AT_ONCE;
        until(START, || {
            ensure!(
                self.child.try_wait()?.is_none(),
                "{} ended at once",
                self.name
            );
            if self.http {
                let tried = request(&self.address, patience).map(drop);
                patience = (patience * 11 / 10).min(SOON);
                return tried;
            }
            let stream = TcpStream::connect_timeout(&address, Duration::from_millis(100));
            let mut stream = stream.with_context(|| refused(&self.address))?;
            // A published port takes connections before there is a server behind it: then this ends at once.
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                other => bail!("the server is not there yet: {other:?}"),
            }
        })
    }

    /// Private memory outside of the guest's, MB.
    pub fn private(&self) -> Result<f64> {
        Ok(measure::of_process(self.child.id())?.monitor_private)
    }

    /// Processor time of its threads so far.
    pub fn processor_times(&self) -> Result<Times> {
        let mut times = Times::default();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            let (name, rest) = stat.rsplit_once(')').context("a line of /proc")?;
            let numbers: Vec<f64> = rest
                .split_whitespace()
                .map(|word| word.parse().unwrap_or(0.0))
                .collect();
            let used = (numbers[11] + numbers[12]) / TICKS;
            let vcpu = name.contains("(unik-vcpu");
            *(if vcpu {
                &mut times.vcpus
            } else {
                &mut times.others
            }) += used;
        }
        Ok(times)
    }

    /// Ends it; what the monitor counted.
    pub fn stop(mut self) -> Result<BTreeMap<String, f64>> {
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        self.child.wait()?;
        let json = text.lines().rev().find(|line| line.starts_with('{'));
        Ok(serde_json::from_str(json.unwrap_or("{}"))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Of the vCPUs' threads.
    pub vcpus: f64,
    /// Of all others.
    pub others: f64,
}

impl Times {
    /// How much of a processor was used since `before`.
    pub fn since(&self, before: &Self, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            vcpus: (self.vcpus - before.vcpus) / seconds,
            others: (self.others - before.others) / seconds,
        }
    }
}
