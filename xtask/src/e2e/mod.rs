//! The end-to-end tests: every example, C and Go programs, ripgrep and fd, and the test suites of well-known crates,
//! as unikernels on every monitor, compared with native runs of the same binaries.
//!
//! [`case`] says what a case is, [`dialogue`] what two programs say to each other, [`subject`] builds programs and images, [`run`] runs and judges, [`third_party`] has
//! other people's programs, [`suites`] other people's tests.

pub mod case;
pub mod dialogue;
pub mod run;
pub mod subject;
pub mod suites;
pub mod third_party;
pub mod tools;

use crate::sh;
use crate::tally::{Tally, Verdict};
use anyhow::{Result, bail};
use run::{Job, Machine, Variant};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use subject::Subject;
use tools::Tools;

/// `e2e`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only tests whose line contains this, such as `hello/plain`, `kvm`, `unbound 4 cpu`, `suite/regex` (repeatable: all must match)
    pub filter: Vec<String>,
    /// Runs at the same time; the number of CPUs when absent
    #[arg(short, long)]
    pub jobs: Option<usize>,
    /// Leave out programs and test suites from crates.io
    #[arg(long)]
    pub own: bool,
    /// Leave out the test suites of crates from crates.io
    #[arg(long)]
    pub no_suites: bool,
    /// Use tools built with --release
    #[arg(long)]
    pub release: bool,
}

/// Runs all that the filter leaves.
pub fn e2e(args: &Args) -> Result<Tally> {
    let tools = Tools::build(args.release)?;
    let kvm = kvm_or_refuse()?;
    let mut tally = Tally::default();
    if !args.filter.iter().any(|f| f.starts_with("suite/")) {
        let mut subjects = made(&mut tally, "examples", subject::examples(&tools));
        let stripped = subject::stripped(&tools, &subjects);
        subjects.extend(made(&mut tally, "stripped examples", stripped));
        subjects.extend(made(
            &mut tally,
            "musl",
            subject::musl(&tools, &subject::MUSL),
        ));
        subjects.extend(made(
            &mut tally,
            "C and Go programs",
            subject::foreign(&tools),
        ));
        if !args.own {
            let theirs = third_party::subjects(&tools);
            subjects.extend(made(&mut tally, "programs of crates.io", theirs));
        }
        tally.add(run_all(&tools, &subjects, args, kvm));
        tally.add(dialogue::run(&tools, &subjects, args, kvm));
    }
    if !args.own && !args.no_suites && kvm {
        tally.add_part("suites", suites::run(&tools, args));
    }
    Ok(tally)
}

/// What was made, or a failure that leaves the rest to be tried.
fn made(tally: &mut Tally, what: &str, subjects: Result<Vec<Subject>>) -> Vec<Subject> {
    subjects.unwrap_or_else(|error| {
        tally.error(what, &error);
        Vec::new()
    })
}

/// Whether KVM is there. Without it half of the tests cannot be run: CI must not pass then.
fn kvm_or_refuse() -> Result<bool> {
    let kvm = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    match kvm {
        Ok(_) => Ok(true),
        Err(error) if std::env::var("CI").is_ok_and(|v| v == "true") => {
            bail!("/dev/kvm cannot be opened ({error}), and CI=true allows no skipping")
        }
        Err(error) => {
            eprintln!(
                "\n*** /dev/kvm cannot be opened ({error}): EVERY TEST ON KVM IS SKIPPED ***\n"
            );
            Ok(false)
        }
    }
}

fn run_all(tools: &Tools, subjects: &[Subject], args: &Args, kvm: bool) -> Tally {
    let mut jobs = Vec::new();
    let mut tally = Tally::default();
    for subject in subjects {
        for case in &subject.cases {
            let all = Variant::all(case, true).into_iter().map(|variant| Job {
                subject,
                case,
                variant,
            });
            let wanted: Vec<_> = all
                .filter(|job| {
                    args.filter
                        .iter()
                        .all(|f| job.to_string().contains(f.as_str()))
                })
                .collect();
            let (possible, not): (Vec<_>, Vec<_>) = wanted
                .into_iter()
                .partition(|job| kvm || job.variant.machine == Machine::Emulated);
            tally.skipped += not.len();
            jobs.extend(possible);
        }
    }
    let natives = natives(tools, &jobs);
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(tally));
    let workers = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = one(tools, job, &natives);
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    counts.judge(job, verdict);
                }
            });
        }
    });
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Outcomes of the native runs: (subject, case, emulated arguments) -> outcome.
type Natives = HashMap<(String, String, bool), Result<Option<sh::Outcome>>>;

/// One after the other, so that none disturbs another's clock.
fn natives(tools: &Tools, jobs: &[Job<'_>]) -> Natives {
    let mut natives = Natives::new();
    for job in jobs {
        let key = key(job);
        let emulated = key.2;
        if let Entry::Vacant(entry) = natives.entry(key) {
            let outcome = run::native(job.subject, job.case, emulated, tools.scratch.clone());
            entry.insert(outcome);
        }
    }
    natives
}

fn key(job: &Job<'_>) -> (String, String, bool) {
    let emulated = job.variant.machine == Machine::Emulated && job.case.emulated_args.is_some();
    (job.subject.name.clone(), job.case.name.clone(), emulated)
}

/// Runs one and says how it went.
fn one(tools: &Tools, job: &Job<'_>, natives: &Natives) -> Result<Verdict> {
    let native = match natives.get(&key(job)) {
        Some(Ok(outcome)) => outcome.as_ref(),
        Some(Err(error)) => bail!("natively: {error:#}"),
        None => None,
    };
    let (outcome, judged) = job.run(tools, native)?;
    let (good, fail, time) = (sh::GOOD, sh::FAIL, outcome.time.as_secs_f64());
    match &judged {
        Ok(()) => anstream::println!("{good}ok{good:#}   {job} {time:.3} s"),
        Err(why) => {
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            let last: Vec<_> = stderr.lines().rev().take(12).collect();
            let tail: String = last
                .iter()
                .rev()
                .map(|l| format!("\n         | {l}"))
                .collect();
            anstream::println!(
                "{fail}FAIL{fail:#} {job} {time:.3} s: {why}{tail}\n         again: {}",
                job.words(tools)
            );
        }
    }
    Ok(judged)
}

/// The first thing to see: hello as a unikernel.
pub fn demo() -> Result<()> {
    let mut run = sh::cargo(&[
        "run",
        "--quiet",
        "--package",
        "cargo-unik",
        "--",
        "unik",
        "run",
        "--manifest-path",
        "examples/Cargo.toml",
    ]);
    sh::run(run.args(["--package", "hello", "--", "from", "a", "unikernel"]))
}
