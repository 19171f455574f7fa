//! Programs that run, each in a process group of its own, so that a time limit ends what it has started, too. There a terminal's Ctrl-C does
//! not reach it: [`end_with_us`] passes on what ends us.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::collections::BTreeSet;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn groups() -> MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program's group, as long as it may run. The command must have asked for `process_group(0)`.
#[derive(Debug)]
pub struct Group(Pid);

impl Group {
    /// The group of a program that was just started.
    pub fn of(child: &Child) -> Result<Self> {
        let id = i32::try_from(child.id()).context("a process id")?;
        groups().insert(id);
        Pid::from_raw(id).map(Self).context("no process id")
    }

    /// The program itself.
    pub fn leader(&self) -> Pid {
        self.0
    }

    /// Sends a signal to all of it that still runs.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        groups().remove(&self.0.as_raw_nonzero().get());
    }
}

/// From now on, what ends this process (SIGINT, SIGTERM, SIGHUP) kills all that it has started, first.
pub fn end_with_us() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            // Held until the end, so that nothing starts any more.
            let groups = groups();
            for group in groups.iter().filter_map(|&id| Pid::from_raw(id)) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn groups_are_known_while_they_may_run() {
        let mut sleep = Command::new("sleep");
        let mut child = sleep.arg("60").process_group(0).spawn().unwrap();
        let group = Group::of(&child).unwrap();
        let id = group.leader().as_raw_nonzero().get();
        assert!(groups().contains(&id));
        group.signal(Signal::KILL);
        assert!(!child.wait().unwrap().success());
        drop(group);
        assert!(!groups().contains(&id));
    }
}
