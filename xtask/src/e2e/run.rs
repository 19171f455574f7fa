//! Running one case in one way and judging it against the native run.

use super::case::Case;
use super::subject::Subject;
use super::tools::Tools;
use crate::sh::{self, Outcome, SignalAfter};
use crate::tally::Verdict;
use anyhow::Result;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What boots the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Our monitor on KVM.
    Kvm,
    /// QEMU on KVM.
    QemuKvm,
    /// QEMU's emulation.
    Emulated,
}

/// One way to run a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The monitor.
    pub machine: Machine,
    /// Rewritten sites, or not.
    pub bound: bool,
    /// Number of vCPUs.
    pub cpus: u32,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = match self.machine {
            Machine::Kvm => "kvm",
            Machine::QemuKvm => "qemu-kvm",
            Machine::Emulated => "emulated",
        };
        write!(
            f,
            "{machine} {} {} cpu",
            if self.bound { "bound" } else { "unbound" },
            self.cpus
        )
    }
}

impl Variant {
    /// Every way to run `case`.
    pub fn all(case: &Case, kvm: bool) -> Vec<Self> {
        let mut all = Vec::new();
        for &cpus in &case.cpus {
            for bound in [true, false] {
                all.extend(kvm.then_some(Self {
                    machine: Machine::Kvm,
                    bound,
                    cpus,
                }));
                // A signal ends QEMU itself: it has no way to hand one to its guest.
                all.extend(case.signal.is_none().then_some(Self {
                    machine: Machine::Emulated,
                    bound,
                    cpus,
                }));
            }
        }
        let last = case
            .cpus
            .last()
            .copied()
            .filter(|_| kvm && case.signal.is_none());
        all.extend(last.map(|cpus| Self {
            machine: Machine::QemuKvm,
            bound: true,
            cpus,
        }));
        all
    }

    /// Whether QEMU emulates the processor.
    pub fn emulated(self) -> bool {
        self.machine == Machine::Emulated
    }

    /// `cargo unik boot` on this machine; flags, image and arguments are still to come.
    pub fn command(self, tools: &Tools) -> Command {
        let mut command = tools.unik(&["--quiet", "boot"]);
        match self.machine {
            Machine::Kvm => command.args(["--monitor", "unik"]),
            Machine::QemuKvm => command.args(["--monitor", "qemu", "--qemu-accel", "kvm"]),
            Machine::Emulated => command.args(["--monitor", "qemu", "--qemu-accel", "tcg"]),
        };
        command.args(["--cpus", &self.cpus.to_string()]);
        command
    }
}

/// One run to do.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The program.
    pub subject: &'a Subject,
    /// The case.
    pub case: &'a Case,
    /// The way.
    pub variant: Variant,
}

impl fmt::Display for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} {}",
            self.subject.name, self.case.name, self.variant
        )?;
        match self.times() {
            1 => Ok(()),
            times => write!(f, " {times} times"),
        }
    }
}

impl Job<'_> {
    /// Runs it as often as the case says; `Ok(Err(why))` at the first time that it did not do what it should.
    pub fn run(&self, tools: &Tools, native: Option<&Outcome>) -> Result<(Outcome, Verdict)> {
        for time in 1..self.times() {
            let (outcome, judged) = self.run_once(tools, native)?;
            if let Err(why) = judged {
                return Ok((outcome, Err(format!("at run {time}: {why}"))));
            }
        }
        self.run_once(tools, native)
    }

    fn times(&self) -> u32 {
        match self.variant.machine {
            Machine::Kvm => self.case.times,
            Machine::QemuKvm | Machine::Emulated => 1,
        }
    }

    fn run_once(&self, tools: &Tools, native: Option<&Outcome>) -> Result<(Outcome, Verdict)> {
        let limit =
            Duration::from_secs(self.case.timeout * if self.variant.emulated() { 3 } else { 1 });
        let outcome = sh::capture(
            &mut self.command(tools),
            self.case.stdin.as_bytes(),
            limit,
            signal(self.case)?,
        )?;
        let judged = judge(self.case, &outcome, native);
        Ok((outcome, judged))
    }

    fn command(&self, tools: &Tools) -> Command {
        let mut command = self.variant.command(tools);
        self.case
            .env
            .iter()
            .for_each(|(name, value)| _ = command.args(["-e", &format!("{name}={value}")]));
        command
            .arg(self.subject.image(self.variant))
            .arg("--")
            .args(self.case.args(self.variant.emulated()));
        command
    }

    /// The command line for people.
    pub fn words(&self, tools: &Tools) -> String {
        words(&self.command(tools))
    }
}

/// A command line for people.
pub fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a case as a process, in a folder of its own; `None` when it has no native run.
pub fn native(
    subject: &Subject,
    case: &Case,
    emulated: bool,
    cwd: PathBuf,
) -> Result<Option<Outcome>> {
    if !case.native {
        return Ok(None);
    }
    let mut command = Command::new(&subject.elf);
    command
        .args(case.args(emulated))
        .env_clear()
        .envs(&case.env)
        .current_dir(cwd);
    sh::capture(
        &mut command,
        case.stdin.as_bytes(),
        Duration::from_secs(case.timeout),
        signal(case)?,
    )
    .map(Some)
}

fn signal(case: &Case) -> Result<Option<SignalAfter>> {
    let convert = |s: &super::case::Signal| {
        Ok(SignalAfter {
            line: s.after.clone(),
            signal: s.number()?,
        })
    };
    case.signal.as_ref().map(convert).transpose()
}

/// Compares with the case's own words and with the native run.
pub fn judge(case: &Case, got: &Outcome, native: Option<&Outcome>) -> Verdict {
    if got.late {
        return Err(format!("was still running after {} s", got.time.as_secs()));
    }
    let code = case.exit.or(native.map(|n| n.code)).unwrap_or(0);
    if got.code != code {
        return Err(format!("exit code {} instead of {code}", got.code));
    }
    let wanted = case
        .stdout
        .as_ref()
        .map(|s| s.clone().into_bytes())
        .or(native.map(|n| n.stdout.clone()))
        .unwrap_or_default();
    if normal(&got.stdout, case.sorted) != normal(&wanted, case.sorted) {
        return Err(format!(
            "other output: {}",
            difference(&got.stdout, &wanted)
        ));
    }
    let stderr = String::from_utf8_lossy(&got.stderr);
    match case
        .stderr
        .iter()
        .find(|piece| !stderr.contains(piece.as_str()))
    {
        Some(piece) => Err(format!("standard error lacks `{piece}`")),
        None => Ok(()),
    }
}

fn normal(text: &[u8], sorted: bool) -> Vec<&[u8]> {
    let mut lines: Vec<_> = text.split_inclusive(|b| *b == b'\n').collect();
    if sorted {
        lines.sort();
    }
    lines
}

/// The first line that is not the same.
pub fn difference(got: &[u8], wanted: &[u8]) -> String {
    let (got, wanted) = (
        String::from_utf8_lossy(got),
        String::from_utf8_lossy(wanted),
    );
    let (mut got, mut wanted) = (got.lines(), wanted.lines());
    for n in 1.. {
        match (got.next(), wanted.next()) {
            (None, None) => break,
            (g, w) if g == w => {}
            (g, w) => return format!("line {n} is {g:?} instead of {w:?}"),
        }
    }
    "the ends of lines differ".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(stdout: &str, code: i32) -> Outcome {
        Outcome {
            stdout: stdout.into(),
            stderr: b"some words".to_vec(),
            code,
            time: Duration::ZERO,
            late: false,
        }
    }

    #[test]
    fn judgement() {
        let mut case = Case::new("x", &[]);
        let native = outcome("a\nb\n", 3);
        assert_eq!(judge(&case, &native.clone(), Some(&native)), Ok(()));
        assert!(
            judge(&case, &outcome("a\nb\n", 0), Some(&native))
                .unwrap_err()
                .contains("instead of 3")
        );
        assert_eq!(
            judge(&case, &outcome("a\nc\n", 3), Some(&native)).unwrap_err(),
            "other output: line 2 is Some(\"c\") instead of Some(\"b\")"
        );
        assert!(judge(&case, &outcome("b\na\n", 3), Some(&native)).is_err());
        case.sorted = true;
        assert_eq!(judge(&case, &outcome("b\na\n", 3), Some(&native)), Ok(()));
        case.stderr = vec!["other words".into()];
        assert!(judge(&case, &native, Some(&native)).is_err());
    }
}
