//! A child process that owns the terminal: our standard streams, our signals, its exit code.

use super::MonitorError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its own status.
    pub status: ExitStatus,
    /// The last signal that came for it meanwhile.
    pub signal: Option<i32>,
}

impl Ended {
    /// The child's code, or 128 + the signal that killed it.
    pub fn exit_code(self) -> u8 {
        let code = self.status.code().or(self.status.signal().map(|s| 128 + s));
        code.and_then(|c| u8::try_from(c).ok())
            .unwrap_or(crate::exit_codes::CRASH)
    }
}

/// Starts `command` and waits; `started` sees the child first, to take its pipes. While it runs, signals sent to this
/// process go to the child instead of ending us; what the terminal sends (Ctrl-C) reaches its process group anyway.
pub fn run(
    command: &mut Command,
    hint: &'static str,
    started: impl FnOnce(&mut Child),
) -> Result<Ended, MonitorError> {
    let host = |what| move |source| MonitorError::Host { what, source };
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(host("watch for signals"))?;
    let mut child = start(command, hint)?;
    started(&mut child);
    let (handle, pid) = (signals.handle(), child.id());
    let forwarder = std::thread::spawn(move || {
        let mut last = None;
        for origin in &mut signals {
            last = Some(origin.signal);
            if origin.process.is_some() {
                forward(pid, origin.signal);
            }
        }
        last
    });
    let status = child.wait().map_err(host("wait for the monitor"));
    handle.close();
    let signal = forwarder.join().unwrap_or(None);
    Ok(Ended {
        status: status?,
        signal,
    })
}

/// Starts a child, naming it when that fails.
fn start(command: &mut Command, hint: &'static str) -> Result<Child, MonitorError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|source| MonitorError::Start {
        program,
        source,
        hint,
    })
}

/// Sends a signal; a child that is gone already needs none.
pub fn forward(pid: u32, signal: i32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::from_named_raw(signal);
    if let (Some(pid), Some(signal)) = (pid, signal) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
