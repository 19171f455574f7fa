//! `cargo xtask fuzz`: builds the fuzz targets with coverage and runs them, each for some seconds.
//!
//! Targets stand in `fuzz_targets/` of the folders in [`FOLDERS`], their inputs so far in `corpus/`. They are cargo-fuzz projects, but need
//! neither cargo-fuzz nor a nightly compiler: LLVM's coverage pass and libFuzzer (crate libfuzzer-sys, which wants a C++ compiler) are all it takes.
//! What a run finds on its way is kept in the target folder; `--keep` takes over what reaches new code.

use crate::sh;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where fuzz targets are.
const FOLDERS: [&str; 2] = ["vmm/fuzz", "toolchain/image/fuzz"];

/// What cargo-fuzz says for `--sanitizer none`: coverage counters and comparisons, no debug information.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cforce-frame-pointers";

/// Targets that open sockets: they run in a network of their own.
const ISOLATED: [&str; 1] = ["usernet"];

/// The longest input that a corpus takes, and how many are tried.
const LONGEST: u64 = 4096;
const TRIED: usize = 64;

/// How long building may take.
const BUILD: Duration = Duration::from_secs(900);

/// `fuzz`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this target
    pub target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
    /// Then add to the corpus what reached new code
    #[arg(long)]
    pub keep: bool,
}

/// A target and where it belongs.
struct Target {
    name: String,
    folder: PathBuf,
}

/// Runs the targets one after the other; each counts as one check.
pub fn fuzz(args: &Args) -> Result<Tally> {
    let wanted = |target: &Target| args.target.as_ref().is_none_or(|name| *name == target.name);
    let targets: Vec<_> = targets()?.into_iter().filter(wanted).collect();
    let name = args.target.clone().unwrap_or_default();
    ensure!(!targets.is_empty(), "there is no fuzz target `{name}`");
    let mut tally = Tally::default();
    if !sh::found("c++") {
        anstream::eprintln!(
            "{}SKIPPED{:#}: fuzzing needs a C++ compiler (apt-get install g++)",
            sh::FAIL,
            sh::FAIL
        );
        tally.skipped = targets.len();
        return Ok(tally);
    }
    build(&targets)?;
    for target in &targets {
        match target.run(args.seconds)? {
            Some(true) => tally.passed += 1,
            Some(false) => tally.count(format!("fuzz {}", target.name), Err("found something")),
            None => tally.skipped += 1,
        }
        if args.keep {
            target.keep()?;
        }
    }
    Ok(tally)
}

fn targets() -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for folder in FOLDERS.map(|folder| sh::root().join(folder)) {
        for entry in std::fs::read_dir(folder.join("fuzz_targets"))? {
            let path = entry?.path();
            let name = path.file_stem().context("a target without a name")?;
            targets.push(Target {
                name: name.to_string_lossy().into_owned(),
                folder: folder.clone(),
            });
        }
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

/// Where everything that running leaves is kept.
fn place() -> Result<PathBuf> {
    Ok(sh::target_dir()?.join("fuzz"))
}

fn build(targets: &[Target]) -> Result<()> {
    for folder in FOLDERS.map(|folder| sh::root().join(folder)) {
        let names = targets.iter().filter(|t| t.folder == folder);
        let names: Vec<_> = names.flat_map(|t| ["--bin", &t.name]).collect();
        if names.is_empty() {
            continue;
        }
        let mut cargo = sh::cargo(&["build", "--release", "--quiet", "--target", sh::TARGET]);
        cargo.args(names).current_dir(&folder);
        cargo
            .env("RUSTFLAGS", RUSTFLAGS)
            .env("CARGO_TARGET_DIR", place()?);
        let (_, status) = sh::tee(&mut cargo, BUILD)?;
        ensure!(
            status.success(),
            "the fuzz targets in {} do not build",
            folder.display()
        );
    }
    Ok(())
}

impl Target {
    fn corpus(&self) -> PathBuf {
        self.folder.join("corpus").join(&self.name)
    }

    /// The inputs that running has found.
    fn found(&self) -> Result<PathBuf> {
        let found = place()?.join("found").join(&self.name);
        std::fs::create_dir_all(&found)?;
        Ok(found)
    }

    /// The target's own program, in a network of its own where it needs one. `None`: that cannot be had here.
    fn command(&self) -> Result<Option<Command>> {
        let program = place()?.join(sh::TARGET).join("release").join(&self.name);
        if !ISOLATED.contains(&self.name.as_str()) {
            return Ok(Some(Command::new(program)));
        }
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
        let possible = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "ip",
                "link",
                "set",
                "lo",
                "up",
            ])
            .status()
            .is_ok_and(|status| status.success());
        command
            .args(["ip link set lo up && exec \"$0\" \"$@\""])
            .arg(program);
        Ok(possible.then_some(command))
    }

    /// `Some(true)`: nothing was found in that time. `None`: it cannot run here.
    fn run(&self, seconds: u32) -> Result<Option<bool>> {
        let Some(mut command) = self.command()? else {
            anstream::eprintln!(
                "{}SKIPPED{:#}: {} needs a network of its own (unshare --user --net, ip)",
                sh::FAIL,
                sh::FAIL,
                self.name
            );
            return Ok(None);
        };
        let crashes = place()?.join("crashes");
        std::fs::create_dir_all(&crashes)?;
        let prefix = format!("{}/{}-", crashes.display(), self.name);
        // A backtrace takes more memory than a target may have.
        command.env("RUST_BACKTRACE", "0");
        command.args(["-rss_limit_mb=1024", "-timeout=20", "-verbosity=0"]);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={prefix}"));
        command.arg(self.found()?).arg(self.corpus());
        std::fs::create_dir_all(self.corpus())?;
        let limit = Duration::from_secs(u64::from(seconds) + 120);
        let outcome = sh::capture(&mut command, b"", limit, None)?;
        let passed = outcome.code == 0 && !outcome.late;
        if passed {
            println!("fuzz {}: nothing found in {seconds} s", self.name);
        } else {
            eprint!("{}", String::from_utf8_lossy(&outcome.stderr));
            eprintln!("fuzz {}: failed; the input is in {prefix}*", self.name);
        }
        Ok(Some(passed))
    }

    /// How many edges the inputs in `folder` reach.
    fn edges(&self, folder: &Path) -> Result<u64> {
        let mut command = self.command()?.context("the target cannot run here")?;
        command.arg("-runs=0").arg(folder);
        let output = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.contains("INITED"));
        let number =
            line.and_then(|line| line.split("cov: ").nth(1)?.split(' ').next()?.parse().ok());
        number.with_context(|| format!("{} does not say what it reached: {text}", self.name))
    }

    /// Takes those inputs over into the corpus that reach an edge which it does not: of the longest, which reach most at once.
    fn keep(&self) -> Result<()> {
        let corpus = self.corpus();
        let mut inputs = Vec::new();
        for entry in std::fs::read_dir(self.found()?)? {
            let entry = entry?;
            inputs.push((entry.metadata()?.len(), entry.path()));
        }
        inputs.sort();
        let mut reached = self.edges(&corpus)?;
        let mut kept = 0;
        let longest = inputs.iter().rev().filter(|(len, _)| *len <= LONGEST);
        for (_, input) in longest.take(TRIED) {
            let name = input.file_name().context("an input without a name")?;
            let copy = corpus.join(name);
            std::fs::copy(input, &copy)?;
            let now = self.edges(&corpus)?;
            if now > reached {
                (reached, kept) = (now, kept + 1);
            } else {
                std::fs::remove_file(copy)?;
            }
        }
        println!("fuzz {}: {kept} inputs kept, {reached} edges", self.name);
        Ok(())
    }
}
