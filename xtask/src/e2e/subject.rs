//! Programs under test: a static ELF, its cases, and its images, bound and not.

use super::case::Case;
use super::dialogue::Dialogue;
use super::run::Variant;
use super::tools::Tools;
use crate::sh;
use anyhow::{Context, Result, ensure};
use cargo_metadata::{MetadataCommand, Package};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One program.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// The program as a Linux process runs it.
    pub elf: PathBuf,
    /// The image with rewritten system-call sites.
    pub bound: PathBuf,
    /// The image without.
    pub unbound: PathBuf,
    /// What to try.
    pub cases: Vec<Case>,
    /// What to try over the network.
    pub dialogues: Vec<Dialogue>,
}

impl Subject {
    /// The image for a way to run it.
    pub fn image(&self, variant: Variant) -> &Path {
        if variant.bound {
            &self.bound
        } else {
            &self.unbound
        }
    }

    /// Packs an ELF both ways. `files` are `SRC:GUESTPATH`.
    pub fn pack(
        tools: &Tools,
        name: &str,
        elf: &Path,
        files: &[String],
        cases: Vec<Case>,
    ) -> Result<Self> {
        let image = |suffix: &str| {
            tools
                .scratch
                .join("images")
                .join(format!("{name}{suffix}.unik"))
        };
        let subject = Self {
            name: name.to_owned(),
            elf: elf.to_owned(),
            bound: image(""),
            unbound: image(".unbound"),
            cases,
            dialogues: Vec::new(),
        };
        for (path, bind) in [(&subject.bound, true), (&subject.unbound, false)] {
            let mut pack = tools.unik(&["--quiet", "pack"]);
            pack.arg(elf).arg("-o").arg(path);
            files.iter().for_each(|f| _ = pack.args(["--files", f]));
            if !bind {
                pack.arg("--no-bind");
            }
            sh::output(&mut pack)?;
        }
        Ok(subject)
    }
}

/// Builds every example with `cargo unik build` and keeps both kinds of images.
pub fn examples(tools: &Tools) -> Result<Vec<Subject>> {
    built(tools, sh::TARGET, "", |_| true)
}

/// Examples that are built for musl, too, which asks other things of the system than glibc does.
pub const MUSL: [&str; 7] = [
    "files",
    "hello",
    "panic",
    "signals",
    "threads",
    "time",
    "tokio-demo",
];

/// How long a download of Rust's library may take.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// Rust's target for musl.
const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// These examples, as NAME-musl. None, loudly, where rustup cannot get the target.
pub fn musl(tools: &Tools, names: &[&str]) -> Result<Vec<Subject>> {
    let mut add = Command::new("rustup");
    add.args(["target", "add", MUSL_TARGET]);
    if !sh::tee(&mut add, DOWNLOAD).is_ok_and(|(_, status)| status.success()) {
        let fail = sh::FAIL;
        anstream::eprintln!("{fail}SKIPPED{fail:#} Rust programs with musl: {add:?} failed");
        return Ok(Vec::new());
    }
    built(tools, MUSL_TARGET, "-musl", |name| names.contains(&name))
}

/// Builds examples for a target and keeps both kinds of images.
fn built(
    tools: &Tools,
    triple: &str,
    suffix: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Subject>> {
    let manifest = sh::root().join("examples/Cargo.toml");
    let metadata = MetadataCommand::new()
        .no_deps()
        .manifest_path(&manifest)
        .exec()?;
    let (packages, others): (Vec<_>, Vec<_>) = metadata
        .packages
        .into_iter()
        .partition(|package| wanted(package.name.as_str()));
    let target = tools.scratch.join("examples");
    let image = |package: &Package| format!("{}.unik", package.name);
    let kept = |folder: &str, package: &Package| {
        let name = format!("{}{suffix}.unik", package.name);
        tools.scratch.join(folder).join(name)
    };
    for (bind, folder) in [(false, "unbound"), (true, "bound")] {
        let mut build = tools.unik(&["build", "--release", "--target", triple]);
        build.arg("--manifest-path").arg(&manifest);
        build.arg("--target-dir").arg(&target);
        build.arg("--workspace");
        others
            .iter()
            .for_each(|package| _ = build.args(["--exclude", package.name.as_str()]));
        if !bind {
            build.arg("--no-bind");
        }
        sh::run(&mut build)?;
        for package in &packages {
            let made = target.join("unik/release").join(image(package));
            keep(&made, &kept(folder, package))?;
        }
    }
    let elves = target.join(format!("unik/build/{triple}/release"));
    let subject = |package: &Package| {
        Ok(Subject {
            name: format!("{}{suffix}", package.name),
            elf: elves.join(package.name.as_str()),
            bound: kept("bound", package),
            unbound: kept("unbound", package),
            cases: Case::of(package)?,
            dialogues: Dialogue::of(package)?,
        })
    };
    packages.iter().map(subject).collect()
}

fn keep(image: &Path, copy: &Path) -> Result<()> {
    copy.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::copy(image, copy).with_context(|| format!("no image at {}", image.display()))?;
    Ok(())
}

/// Examples that are tried without their symbols, too: signals and threads, where a misplaced system-call site shows.
const STRIPPED: [&str; 2] = ["signals", "tokio-demo"];

/// Examples as `strip = true` leaves them: the linker then knows of functions only from the unwinding table.
pub fn stripped(tools: &Tools, examples: &[Subject]) -> Result<Vec<Subject>> {
    let wanted = |subject: &&Subject| STRIPPED.contains(&subject.name.as_str());
    let strip = |subject: &Subject| {
        let name = format!("{}-stripped", subject.name);
        let elf = tools.scratch.join("images").join(&name);
        sh::output(Command::new("strip").arg(&subject.elf).arg("-o").arg(&elf))?;
        Subject::pack(tools, &name, &elf, &[], subject.cases.clone())
    };
    examples.iter().filter(wanted).map(strip).collect()
}

/// The C and Go programs, compiled with Debian's own tools.
pub fn foreign(tools: &Tools) -> Result<Vec<Subject>> {
    let (examples, out) = (sh::root().join("examples"), tools.scratch.join("foreign"));
    std::fs::create_dir_all(&out)?;
    let (c, go) = (out.join("c-musl"), out.join("go-hello"));
    ensure!(
        sh::found("musl-gcc"),
        "musl-gcc is missing: sudo apt-get install musl-tools"
    );
    sh::run(
        Command::new("musl-gcc")
            .args(["-static", "-O2", "-pthread"])
            .arg(examples.join("c-musl/main.c"))
            .arg("-o")
            .arg(&c),
    )?;
    ensure!(
        sh::found("go"),
        "go is missing: sudo apt-get install golang-go"
    );
    let mut build = Command::new("go");
    build
        .current_dir(examples.join("go-hello"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false");
    build.env("GOCACHE", tools.scratch.join("go-cache"));
    sh::run(build.args(["build", "-o"]).arg(&go).arg("main.go"))?;
    Ok(vec![
        Subject::pack(
            tools,
            "c-musl",
            &c,
            &[],
            vec![Case::new("plain", &["one", "two"])],
        )?,
        Subject::pack(
            tools,
            "go-hello",
            &go,
            &[],
            vec![Case::new("plain", &["x"])],
        )?,
    ])
}
