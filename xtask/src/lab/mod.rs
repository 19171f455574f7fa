//! `cargo xtask lab`: tests on hardware-like KVM, also on machines whose own KVM is of another kind or missing.
//!
//! QEMU's software emulation of a processor with SVM runs Debian's stock kernel, whose kvm-amd then offers a real
//! `/dev/kvm` to our monitor.
//!
//! - [`debian`]: the packages it needs. [`modules`], [`cpio`]: kernel modules and RAM disks.
//! - [`full`]: a whole Debian.
//! - [`outer`]: the machine. [`repeat`]: what happens when it breaks down. [`unikernels`]: the tests of images in it. [`linux`], [`cases`] and [`guest`]: stock Linux guests
//!   in it.

pub mod build;
pub mod cases;
pub mod cpio;
pub mod debian;
pub mod full;
pub mod guest;
pub mod linux;
pub mod modules;
pub mod outer;
pub mod repeat;
pub mod unikernels;

use crate::tally::Tally;
use crate::{packages, sh};
use anyhow::{Context, Result, anyhow, bail, ensure};
use build::Parts;
use lab_agent::{Done, Job};
use outer::{Laboratory, Maker, Payload, Size};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The monitor's path inside.
pub const MONITOR: &str = "/lab/unik-vmm";

/// `lab`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only tests whose line contains this (repeatable: all must match)
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Leave out programs from crates.io
    #[arg(long)]
    own: bool,
    /// Use the programs of the last build
    #[arg(long, global = true)]
    no_build: bool,
    /// The long test instead: a Debian root made by debootstrap, to its login prompt
    #[arg(long)]
    full: bool,
    /// A prompt inside instead of tests
    #[arg(long)]
    shell: bool,
    /// Further files, to be found in /lab
    #[arg(long = "with", value_name = "FILE", global = true)]
    files: Vec<PathBuf>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Run a command inside; /lab holds the monitor, a guest's kernel, RAM disk and disk, and the files of --with
    Exec {
        /// The command
        #[arg(last = true, required = true)]
        words: Vec<String>,
        /// Seconds
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Run an image inside; its output and exit code come back
    Run(RunArgs),
}

/// `lab run`
#[derive(Clone, Debug, clap::Args)]
struct RunArgs {
    /// The image
    image: PathBuf,
    /// vCPUs
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Guest memory
    #[arg(long)]
    memory: Option<String>,
    /// Seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Print phases
    #[arg(long)]
    timings: bool,
    /// How many times
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// The program's arguments
    #[arg(last = true)]
    args: Vec<String>,
}

/// Does what the arguments say.
pub fn lab(args: &Args) -> Result<()> {
    let parts = build::parts(!args.no_build)?;
    if args.shell || matches!(args.command, Some(Command::Exec { .. })) {
        let files = args
            .files
            .iter()
            .map(|file| Ok(Payload::new(&format!("/lab/{}", name(file)?), file)));
        let guests = linux::Files::make(&parts)?;
        let payload = guests
            .payload
            .iter()
            .cloned()
            .map(Ok)
            .chain(files)
            .collect::<Result<Vec<_>>>()?;
        return match &args.command {
            Some(Command::Exec { words, timeout }) => {
                let lab = Laboratory::boot(&parts.maker, &payload, Size::default())?;
                note(&lab);
                show(&lab.run(job(words, Duration::from_secs(*timeout)))?)
            }
            _ => parts.maker.shell(&payload, Size::default()),
        };
    }
    match &args.command {
        Some(Command::Run(run)) => {
            let base = vec![Payload::new(MONITOR, &parts.monitor)];
            run_image(&parts.maker, base, run)
        }
        Some(Command::Exec { .. }) => Ok(()),
        None if args.full => full::test(&parts)?.verdict(),
        None => tests(&parts, &args.filter, args.own)?.verdict(),
    }
}

/// Linux guests in one machine, unikernels in another, at the same time.
fn tests(parts: &Parts, filter: &[String], own: bool) -> Result<Tally> {
    thread::scope(|s| {
        let linux = s.spawn(|| linux::tests(parts, filter));
        let unikernels = unikernels::tests(parts, filter, own);
        let linux = linux
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the tests panicked")));
        let mut tally = Tally::default();
        for (what, counts) in [("Linux guests", linux), ("unikernels", unikernels)] {
            tally.add_part(what, counts);
        }
        Ok(tally)
    })
}

/// All tests, as a step of a longer run: skipped, loudly, where QEMU or Debian's packages cannot be had.
pub fn step(own: bool) -> Result<Tally> {
    if let Err(error) = available() {
        anstream::eprintln!(
            "{}SKIPPED{:#} the laboratory: {error:#}",
            sh::FAIL,
            sh::FAIL
        );
        return Ok(Tally {
            skipped: 1,
            ..Tally::default()
        });
    }
    tests(&build::parts(true)?, &[], own)
}

fn available() -> Result<()> {
    packages::need(packages::LAB)?;
    ensure!(
        sh::found("apt-get") && sh::found("dpkg-deb"),
        "this is no Debian: its kernel comes by apt"
    );
    debian::fetch().map(|_| ())
}

fn name(file: &Path) -> Result<String> {
    let name = file
        .file_name()
        .with_context(|| format!("{} has no file name", file.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn run_image(maker: &Maker, mut payload: Vec<Payload>, args: &RunArgs) -> Result<()> {
    let inside = format!("/lab/{}", name(&args.image)?);
    payload.push(Payload::new(&inside, &args.image));
    let lab = Laboratory::boot(maker, &payload, Size::default())?;
    note(&lab);
    let mut words: Vec<String> = [MONITOR, "run", &inside, "--cpus", &args.cpus.to_string()]
        .map(str::to_owned)
        .to_vec();
    words.extend(
        args.memory
            .iter()
            .flat_map(|m| ["--memory".to_owned(), m.clone()]),
    );
    words.extend(args.timings.then(|| "--timings".to_owned()));
    words.push("--".to_owned());
    words.extend(args.args.iter().cloned());
    for _ in 0..args.times {
        let done = lab.run(job(&words, Duration::from_secs(args.timeout)))?;
        show(&done)?;
        if done.late != 0 {
            bail!("the image was still running after {} s", args.timeout);
        }
        if done.code != 0 {
            bail!("exit code {}", done.code);
        }
    }
    Ok(())
}

/// Boots a machine for tests and says how long it took. It has one processor: with two, the emulator breaks down far more often.
fn boot(maker: &Maker, payload: &[Payload]) -> Result<Laboratory> {
    let size = Size {
        cpus: 1,
        ..Size::default()
    };
    let lab = Laboratory::boot(maker, payload, size)?;
    note(&lab);
    Ok(lab)
}

/// Says how long the machine took.
pub fn note(lab: &Laboratory) {
    anstream::eprintln!(
        "{}{:>12}{:#} the laboratory is up after {:.1} s",
        sh::NOTE,
        "Booted",
        sh::NOTE,
        lab.boot_time.as_secs_f64()
    );
}

/// A job without input.
pub fn job(words: &[String], limit: Duration) -> Job {
    Job {
        argv: words.iter().map(|word| word.clone().into_bytes()).collect(),
        env: vec![b"PATH=/bin".to_vec(), b"HOME=/".to_vec()],
        limit_ms: limit.as_millis() as u64,
        ..Job::default()
    }
}

fn show(done: &Done) -> Result<()> {
    std::io::stdout().write_all(&done.stdout)?;
    std::io::stderr().write_all(&done.stderr)?;
    anstream::eprintln!(
        "{}{:>12}{:#} code {} after {:.1} ms",
        sh::NOTE,
        "Ended",
        sh::NOTE,
        done.code,
        done.nanos as f64 / 1e6
    );
    Ok(())
}
