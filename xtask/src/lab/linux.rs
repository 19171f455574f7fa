//! Stock Linux guests on our monitor inside the laboratory.

use super::build::Parts;
use super::cases::{Test, all};
use super::outer::{Laboratory, Payload};
use super::repeat::{Machines, SPARES};
use super::{MONITOR, boot, guest, job};
use crate::sh;
use crate::tally::{Tally, Verdict};
use anyhow::Result;
use lab_agent::Done;
use std::time::Duration;
use tempfile::TempDir;

impl Test {
    fn title(&self) -> String {
        format!(
            "linux/{} {} {} cpu {} {}",
            self.script,
            self.kernel,
            self.cpus,
            self.flags.join(" "),
            self.words
        )
    }

    fn run(&self, lab: &Laboratory) -> Result<(Done, Verdict)> {
        let (kernel, cpus) = (format!("/lab/{}", self.kernel), self.cpus.to_string());
        let cmdline = format!("console=ttyS0 quiet lab.run={} {}", self.script, self.words);
        let mut words = vec![
            MONITOR,
            "linux",
            "--boot-timer",
            "--kernel",
            &kernel,
            "--initrd",
            "/lab/initrd",
        ];
        words.extend(["--cpus", &cpus, "--cmdline", &cmdline]);
        words.extend(self.flags);
        let disk = self.disk.map(|suffix| format!("/tmp/disk{suffix}"));
        if let Some(disk) = &disk {
            let copy = ["cp", "/lab/disk", "/tmp/disk"].map(str::to_owned);
            lab.run(job(&copy, Duration::from_secs(60)))?;
            words.extend(["--disk", disk]);
        }
        // The script finds the monitor's command in its arguments.
        let around = ["sh", "-c", self.around, "around"];
        let around = around.into_iter().filter(|_| !self.around.is_empty());
        let words: Vec<String> = around.chain(words).map(str::to_owned).collect();
        let done = lab.run(job(&words, Duration::from_secs(90)))?;
        let mut verdict = self.judge(&done);
        if disk.is_some() && verdict.is_ok() {
            let check = ["/lab/e2fsck", "-f", "-n", "/tmp/disk"].map(str::to_owned);
            let check = lab.run(job(&check, Duration::from_secs(60)))?;
            if check.code != 0 {
                verdict = Err(format!(
                    "the disk is not clean: {}",
                    String::from_utf8_lossy(&check.stdout)
                ));
            }
        }
        lab.sound()?;
        Ok((done, verdict))
    }

    fn judge(&self, done: &Done) -> Verdict {
        if done.late != 0 {
            return Err("did not end".into());
        }
        if done.code != self.code {
            return Err(format!("exit code {} instead of {}", done.code, self.code));
        }
        let text = [&done.stdout[..], &done.stderr].concat();
        let console = String::from_utf8_lossy(&text);
        match self.console.iter().find(|piece| !console.contains(**piece)) {
            Some(piece) => Err(format!("the console lacks `{piece}`")),
            None => Ok(()),
        }
    }
}

/// What Linux guests need in `/lab`: kernels, RAM disk, a disk, and the monitor.
pub struct Files {
    /// Where they are.
    pub payload: Vec<Payload>,
    /// Holds them until they are not needed any more.
    _work: TempDir,
}

impl Files {
    /// Makes them.
    pub fn make(parts: &Parts) -> Result<Self> {
        let debian = &parts.maker.debian;
        let work = tempfile::Builder::new()
            .prefix("guest")
            .tempdir_in(&parts.maker.scratch)?;
        let in_work = |name| work.path().join(name);
        let (initrd, vmlinux, disk) = (in_work("initrd"), in_work("vmlinux"), in_work("disk"));
        guest::initrd(debian, &parts.probe, &initrd)?;
        std::fs::write(&vmlinux, guest::vmlinux(&debian.kernel)?)?;
        guest::disk(debian, &disk, 48)?;
        let payload = vec![
            Payload::new("/lab/disk", &disk),
            Payload::new("/lab/e2fsck", &debian.e2fsck),
            Payload::new("/bin/lab-probe", &parts.probe),
            Payload::new(MONITOR, &parts.monitor),
            Payload::new("/lab/vmlinuz", &debian.kernel.bzimage),
            Payload::new("/lab/vmlinux", &vmlinux),
            Payload::new("/lab/initrd", &initrd),
        ];
        Ok(Self {
            payload,
            _work: work,
        })
    }
}

/// Boots the laboratory with kernels and RAM disk, and runs what the filter leaves.
pub fn tests(parts: &Parts, filter: &[String]) -> Result<Tally> {
    let tests: Vec<_> = all()
        .into_iter()
        .filter(|test| filter.iter().all(|f| test.title().contains(f.as_str())))
        .collect();
    let mut tally = Tally::default();
    if tests.is_empty() {
        return Ok(tally);
    }
    let files = Files::make(parts)?;
    let mut spares = SPARES;
    let mut machines = Machines::new(&mut spares, || boot(&parts.maker, &files.payload))?;
    for test in &tests {
        let title = test.title();
        match machines.judge(&title, |lab| test.run(lab)) {
            Ok((done, verdict)) => {
                tell(test, &done, &verdict);
                tally.count(title, verdict);
            }
            Err(error) => tally.error(title, &error),
        }
    }
    Ok(tally)
}

fn tell(test: &Test, done: &Done, verdict: &Verdict) {
    let (good, fail, time) = (sh::GOOD, sh::FAIL, done.nanos as f64 / 1e9);
    let stderr = String::from_utf8_lossy(&done.stderr);
    match verdict {
        Ok(()) => anstream::println!(
            "{good}ok{good:#}   {} {time:.3} s {}",
            test.title(),
            stderr.trim()
        ),
        Err(why) => {
            let console = String::from_utf8_lossy(&done.stdout);
            let lines: Vec<_> = console.lines().rev().take(40).collect();
            let tail: String = lines
                .iter()
                .rev()
                .map(|line| format!("\n         | {line}"))
                .collect();
            anstream::println!(
                "{fail}FAIL{fail:#} {} {time:.3} s: {why}{tail}\n{stderr}",
                test.title()
            );
        }
    }
}
