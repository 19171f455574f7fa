//! `cargo xtask bench`: the table of figures, each beside the native process or QEMU, measured in the same run.
//!
//! Medians of 20 unless told otherwise. [`Figure`] is a line of the table; [`measure`] takes the numbers. `bench net` has a table of its own ([`net`]).

mod linux;
mod measure;
mod net;

use crate::e2e::{subject, third_party, tools::Tools};
use crate::sh;
use anyhow::{Context, Result};
use measure::{median, runs};
use std::path::Path;
use std::process::Command;

/// `bench`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Runs of each measurement
    #[arg(long, default_value_t = 20)]
    pub runs: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Leave out programs from crates.io
    #[arg(long)]
    pub own: bool,
}

/// Other tables.
#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// The network
    Net(net::Args),
    /// A stock Linux guest, in the laboratory
    Linux(linux::Args),
}

/// One line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Figure {
    what: String,
    unit: &'static str,
    unik: f64,
    /// The native process, or QEMU where the line says so.
    beside: Option<f64>,
    beside_what: &'static str,
    wanted: &'static str,
}

fn figure(
    what: &str,
    unit: &'static str,
    unik: f64,
    beside: Option<f64>,
    beside_what: &'static str,
    wanted: &'static str,
) -> Figure {
    Figure {
        what: what.to_owned(),
        unit,
        unik,
        beside,
        beside_what,
        wanted,
    }
}

/// Measures everything and prints it.
pub fn bench(args: &Args) -> Result<()> {
    match &args.what {
        Some(What::Net(args)) => return net::bench(args),
        Some(What::Linux(linux)) => return print(&linux::figures(linux)?, args.json),
        None => {}
    }
    let tools = Tools::build(true)?;
    let subjects = subject::examples(&tools)?;
    let find = |name: &str| {
        subjects
            .iter()
            .find(|s| s.name == name)
            .with_context(|| format!("no example {name}"))
    };
    let mut figures = start(
        &tools,
        &find("hello")?.bound,
        &find("hello")?.elf,
        args.runs,
    )?;
    figures.extend(memory(&tools, &find("hello")?.bound)?);
    figures.push(size(&tools, "", &find("hello")?.elf)?);
    for hello in subject::musl(&tools, &["hello"])? {
        figures.push(size(&tools, ", musl instead of glibc", &hello.elf)?);
    }
    figures.extend(small(&tools, find("microbench")?, args.runs)?);
    figures.extend(programs(&tools, &subjects, args)?);
    print(&figures, args.json)
}

fn print(figures: &[Figure], json: bool) -> Result<()> {
    match json {
        true => println!("{}", serde_json::to_string_pretty(figures)?),
        false => table(figures),
    }
    Ok(())
}

/// From the start of the monitor to main(), and the whole run.
fn start(tools: &Tools, image: &Path, elf: &Path, count: usize) -> Result<Vec<Figure>> {
    let (mut to_main, mut whole) = (Vec::new(), Vec::new());
    for (main, all) in runs(count, || measure::timings(tools, image))? {
        to_main.push(main);
        whole.push(all);
    }
    let native = measure::wall(count, || Command::new(elf))?;
    let qemu = measure::wall(count, || {
        let mut boot = tools.unik(&[
            "--quiet",
            "boot",
            "--monitor",
            "qemu",
            "--qemu-accel",
            "kvm",
        ]);
        boot.arg(image);
        boot
    })?;
    let mut lines = vec![
        figure(
            "start of unik-vmm to main() reached",
            "ms",
            median(&mut to_main),
            None,
            "",
            "<= 5",
        ),
        figure(
            "whole run of hello, process start to exit",
            "ms",
            median(&mut whole),
            Some(qemu),
            "QEMU microvm",
            "<= 8",
        ),
    ];
    lines.push(figure(
        "whole run of hello, process start to exit",
        "ms",
        lines[1].unik,
        Some(native),
        "native process",
        "",
    ));
    Ok(lines)
}

fn memory(tools: &Tools, image: &Path) -> Result<Vec<Figure>> {
    let memory = measure::memory(tools, image)?;
    Ok(vec![
        figure(
            "private memory of the monitor",
            "MB",
            memory.monitor_private,
            None,
            "",
            "<= 1.5",
        ),
        figure(
            "monitor and guest together (PSS), hello",
            "MB",
            memory.pss,
            None,
            "",
            "<= 5",
        ),
    ])
}

/// The image of hello without symbols. `library`: which C library it has.
fn size(tools: &Tools, library: &str, elf: &Path) -> Result<Figure> {
    let (stripped, image) = (
        tools.scratch.join("hello.stripped"),
        tools.scratch.join("images/hello.stripped.unik"),
    );
    sh::output(Command::new("strip").arg(elf).arg("-o").arg(&stripped))?;
    sh::output(
        tools
            .unik(&["--quiet", "pack"])
            .arg(&stripped)
            .arg("-o")
            .arg(&image),
    )?;
    let megabytes =
        |path: &Path| Ok::<_, anyhow::Error>(std::fs::metadata(path)?.len() as f64 / 1e6);
    Ok(figure(
        &format!("hello image, stripped{library}"),
        "MB",
        megabytes(&image)?,
        Some(megabytes(&stripped)?),
        "its program",
        "<= 1.7",
    ))
}

/// The small measurements, two vCPUs, each beside the same binary as a process.
fn small(tools: &Tools, bench: &subject::Subject, count: usize) -> Result<Vec<Figure>> {
    let unik = measure::lines(count, || {
        let mut run = tools.monitor();
        run.arg("run").arg(&bench.bound).args(["--cpus", "2"]);
        run
    })?;
    let native = measure::lines(count, || Command::new(&bench.elf))?;
    let wanted = |name: &str| match name {
        "getpid" | "clock_gettime" => "<= 40",
        "cpu_loop" | "bw_mem_cp" | "lat_mem_rd" => ">= 0.97 of native",
        _ => "",
    };
    let line = |(name, (unit, value)): (&String, &(&'static str, f64))| {
        let native = native.get(name).map(|(_, v)| *v);
        figure(name, unit, *value, native, "native process", wanted(name))
    };
    Ok(unik.iter().map(line).collect())
}

/// Whole programs; each says itself how long its work took, so that the start does not count.
fn programs(tools: &Tools, subjects: &[subject::Subject], args: &Args) -> Result<Vec<Figure>> {
    let mut out = Vec::new();
    let mut both = |what: &str,
                    image: &Path,
                    elf: &Path,
                    words: &[&str],
                    say: fn(&str) -> Option<f64>|
     -> Result<()> {
        let unik = measure::said(args.runs, say, || {
            let mut run = tools.monitor();
            run.arg("run")
                .arg(image)
                .args(["--cpus", "2", "--"])
                .args(words);
            run
        })?;
        let native = measure::said(args.runs, say, || {
            let mut run = Command::new(elf);
            run.args(words);
            run
        })?;
        out.push(figure(
            what,
            "ms",
            unik,
            Some(native),
            "native process",
            ">= 0.9 of native",
        ));
        Ok(())
    };
    for (name, what, words) in [
        ("sqlite", "SQLite, 100,000 rows", "100000"),
        ("rayon-sum", "rayon, 20 million numbers", "20000000"),
    ] {
        let subject = subjects
            .iter()
            .find(|s| s.name == name)
            .with_context(|| format!("no example {name}"))?;
        both(
            what,
            &subject.bound,
            &subject.elf,
            &[words],
            measure::in_duration,
        )?;
    }
    if !args.own {
        let tree = third_party::tree(tools)?.display().to_string();
        let found = third_party::subjects(tools)?;
        let rg = found
            .iter()
            .find(|s| s.name == "rg")
            .context("no ripgrep")?;
        both(
            "ripgrep over the packed tree",
            &rg.bound,
            &rg.elf,
            &["--stats", "--count", r"\w+\(", &tree],
            measure::ripgrep_seconds,
        )?;
    }
    Ok(out)
}

fn table(figures: &[Figure]) {
    println!("| what | Unik | beside | ratio | wanted |\n|---|---|---|---|---|");
    for f in figures {
        let (beside, ratio) = match f.beside {
            Some(b) => (
                format!("{b:.2} {} ({})", f.unit, f.beside_what),
                format!("{:.2}", f.unik / b),
            ),
            None => ("".to_owned(), "".to_owned()),
        };
        println!(
            "| {} | {:.2} {} | {beside} | {ratio} | {} |",
            f.what, f.unik, f.unit, f.wanted
        );
    }
}
