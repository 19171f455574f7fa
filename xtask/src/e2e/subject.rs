//! Programs under test: a static ELF, its cases, and its images, bound and not.

use super::case::Case;
use super::dialogue::Dialogue;
use super::run::Variant;
use super::tools::Tools;
use crate::sh;
use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let manifest = sh::root().join("examples/Cargo.toml");
    let metadata = MetadataCommand::new()
        .no_deps()
        .manifest_path(&manifest)
        .exec()?;
    let target = tools.scratch.join("examples");
    for (bind, folder) in [(false, "unbound"), (true, "bound")] {
        build(tools, &manifest, &target, bind)?;
        for package in &metadata.packages {
            let image = format!("{}.unik", package.name);
            keep(
                &target.join("unik/release").join(&image),
                &tools.scratch.join(folder).join(&image),
            )?;
        }
    }
    let subject = |package: &cargo_metadata::Package| {
        let (name, image) = (package.name.to_string(), format!("{}.unik", package.name));
        Ok(Subject {
            elf: target
                .join("unik/build/x86_64-unknown-linux-gnu/release")
                .join(&name),
            bound: tools.scratch.join("bound").join(&image),
            unbound: tools.scratch.join("unbound").join(&image),
            cases: Case::of(package)?,
            dialogues: Dialogue::of(package)?,
            name,
        })
    };
    metadata.packages.iter().map(subject).collect()
}

fn build(tools: &Tools, manifest: &Path, target: &Path, bind: bool) -> Result<()> {
    let mut build = tools.unik(&["build", "--release", "--workspace"]);
    build
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target);
    if !bind {
        build.arg("--no-bind");
    }
    sh::run(&mut build)
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
