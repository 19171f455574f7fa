//! Our own monitor as a child process: the same binary under the name `unik-vmm`, so that the two always fit together.

use super::{Job, MonitorError, child};
use crate::shell::Shell;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The name under which this binary is the monitor.
pub const NAME: &str = "unik-vmm";

/// Boots the image; the exit code is the monitor's.
pub fn run(job: &Job<'_>, shell: &Shell) -> Result<u8, MonitorError> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(NAME)
        .arg("run")
        .arg(job.image)
        .args(flags(job));
    if let Some(args) = job.args {
        command.arg("--").args(args);
    }
    shell.verbose("Running", format_args!("{command:?}"));
    child::run(&mut command, "", |_| ()).map(child::Ended::exit_code)
}

/// The run flags as `unik-vmm run` takes them.
fn flags(job: &Job<'_>) -> Vec<OsString> {
    let machine = job.machine;
    let mut out: Vec<OsString> = Vec::new();
    out.extend(machine.memory.map(|m| format!("--memory={}", m.0).into()));
    out.extend(machine.cpus.map(|n| format!("--cpus={n}").into()));
    for (name, value) in &job.env {
        let mut pair = name.clone();
        pair.push("=");
        pair.push(value);
        out.extend(["-e".into(), pair]);
    }
    let timings = machine.timings.iter();
    out.extend(timings.map(|format| format!("--timings={format}").into()));
    out.extend(machine.syscall_summary.then(|| "--syscall-summary".into()));
    out.extend(machine.net.iter().map(|n| format!("--net={n}").into()));
    let ports = machine.publish.iter();
    out.extend(ports.map(|port| format!("--publish={port}").into()));
    if let Some(path) = &machine.pcap {
        out.extend(["--pcap".into(), path.into()]);
    }
    out
}
