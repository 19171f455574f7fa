//! `cargo xtask ci`: everything that must hold, in one command, with a closing line of counts.

use crate::tally::Tally;
use crate::{e2e, fuzz, lab, layers, packages, sh, tidy};
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

/// `ci`
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Leave out programs and test suites from crates.io
    #[arg(long)]
    pub own: bool,
    /// Leave out the test suites of crates from crates.io
    #[arg(long)]
    pub no_suites: bool,
    /// Leave out the end-to-end tests
    #[arg(long)]
    pub quick: bool,
}

/// The longest that a run of test binaries may take, building included.
const TESTS: Duration = Duration::from_secs(1800);

/// A step: a name and what it does; `Ok` carries what it counted.
type Step<'a> = (&'a str, Box<dyn Fn() -> Result<Tally> + 'a>);

/// Runs all steps, whatever fails, and says at the end what did.
pub fn ci(args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut steps: Vec<Step<'_>> = vec![
        ("packages", Box::new(installed)),
        ("format", Box::new(format)),
        ("layers", Box::new(layers::layers)),
        ("tidy", Box::new(tidy::tidy)),
        ("clippy", Box::new(clippy)),
        ("host tests", Box::new(host_tests)),
        ("template", Box::new(template)),
        ("fuzz", Box::new(fuzzing)),
    ];
    if !args.quick {
        let e2e_args = e2e::Args {
            own: args.own,
            no_suites: args.no_suites,
            ..e2e::Args::default()
        };
        steps.push(("end to end", Box::new(move || e2e::e2e(&e2e_args))));
        steps.push(("laboratory", Box::new(|| lab::step(args.own))));
    }
    let (mut total, mut summary) = (Tally::default(), Vec::new());
    for (name, step) in &steps {
        let (counts, line) = one(name, step);
        total.add(counts);
        summary.push(line);
    }
    anstream::println!("\n{}", summary.join("\n"));
    total.tell_failures();
    println!("{total} in {} s", start.elapsed().as_secs());
    let failed = total.failed.len();
    ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}

fn one(name: &str, step: &dyn Fn() -> Result<Tally>) -> (Tally, String) {
    anstream::println!("\n{}== {name}{:#}", sh::NOTE, sh::NOTE);
    let start = Instant::now();
    let mut counts = Tally::default();
    counts.add_part(name, step());
    let style = if counts.failed.is_empty() {
        sh::GOOD
    } else {
        sh::FAIL
    };
    let seconds = start.elapsed().as_secs();
    let line = format!("{style}{name:>12}{style:#} {counts} ({seconds} s)");
    (counts, line)
}

/// One check that a command succeeds.
fn check(command: &mut Command) -> Result<Tally> {
    sh::run(command)?;
    Ok(Tally::one())
}

fn installed() -> Result<Tally> {
    packages::need(packages::CI)?;
    Ok(Tally::one())
}

fn format() -> Result<Tally> {
    let mut tally = check(&mut sh::cargo(&["fmt", "--all", "--check"]))?;
    for manifest in [
        "libos/kernel/Cargo.toml",
        "examples/Cargo.toml",
        "templates/hello/Cargo.toml",
        "vmm/fuzz/Cargo.toml",
        "toolchain/image/fuzz/Cargo.toml",
    ] {
        tally.add(check(&mut sh::cargo(&[
            "fmt",
            "--all",
            "--check",
            "--manifest-path",
            manifest,
        ]))?);
    }
    Ok(tally)
}

fn clippy() -> Result<Tally> {
    let mut tally = check(&mut sh::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    let mut kernel = sh::cargo(&["clippy", "--quiet", "--", "-D", "warnings"]);
    kernel
        .current_dir(sh::root().join("libos/kernel"))
        .env("CARGO_TARGET_DIR", sh::target_dir()?.join("libos"));
    tally.add(check(&mut kernel)?);
    let examples = [
        "clippy",
        "--quiet",
        "--all-targets",
        "--manifest-path",
        "examples/Cargo.toml",
        "--",
        "-D",
        "warnings",
    ];
    tally.add(check(
        sh::cargo(&examples).env("CARGO_TARGET_DIR", sh::target_dir()?.join("examples")),
    )?);
    Ok(tally)
}

fn host_tests() -> Result<Tally> {
    let (text, status) = sh::tee(
        &mut sh::cargo(&["test", "--workspace", "--no-fail-fast"]),
        TESTS,
    )?;
    Ok(Tally::of_test_output("host tests", &text, status.success()))
}

/// A few seconds of each fuzz target: its corpus and a little more.
fn fuzzing() -> Result<Tally> {
    fuzz::fuzz(&fuzz::Args {
        target: None,
        seconds: 3,
        keep: false,
    })
}

/// What `cargo unik new` writes must build, run and pass its tests, as a process and as a unikernel.
fn template() -> Result<Tally> {
    let tools = e2e::tools::Tools::build(false)?;
    let project = tools.scratch.join("my-app");
    if project.exists() {
        std::fs::remove_dir_all(&project)?;
    }
    let mut tally = check(tools.unik(&["new"]).arg(&project))?;
    std::fs::write(
        project.join("Cargo.toml"),
        std::fs::read_to_string(project.join("Cargo.toml"))? + "\n[workspace]\n",
    )?;
    let mut native = sh::cargo(&["run", "--quiet", "--", "Ada"]);
    let wanted = sh::output(native.current_dir(&project).env_remove("CARGO_TARGET_DIR"))?;
    let got = sh::output(
        tools
            .unik(&["--quiet", "run", "--", "Ada"])
            .current_dir(&project),
    )?;
    ensure!(
        got == wanted && !got.is_empty(),
        "the template prints {got:?} as a unikernel instead of {wanted:?}"
    );
    tally.add(Tally::one());
    let (text, status) = sh::tee(tools.unik(&["test"]).current_dir(&project), TESTS)?;
    tally.add(Tally::of_test_output("template", &text, status.success()));
    Ok(tally)
}
