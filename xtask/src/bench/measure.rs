//! Taking numbers: wall clocks, what the monitor reports, what programs print, what `/proc` says.

use crate::e2e::tools::Tools;
use crate::sh;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// The middle value; the mean of both middle ones when their number is even.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n % 2 == 1 => values[half],
        (_, half) => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Does something `count` times after one time that does not count, until it fails.
pub fn runs<T>(count: usize, mut once: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    once()?;
    (0..count).map(|_| once()).collect()
}

/// Median wall time of a command that must succeed, milliseconds.
pub fn wall(count: usize, command: impl Fn() -> Command) -> Result<f64> {
    let mut times = runs(count, || {
        succeed(&mut command()).map(|o| o.time.as_secs_f64() * 1000.0)
    })?;
    Ok(median(&mut times))
}

fn succeed(command: &mut Command) -> Result<sh::Outcome> {
    let outcome = sh::capture(command, b"", LIMIT, None)?;
    ensure!(
        outcome.code == 0,
        "{command:?} ended with {}: {}",
        outcome.code,
        String::from_utf8_lossy(&outcome.stderr)
    );
    Ok(outcome)
}

/// One run with `--timings=json`: milliseconds to main, milliseconds in all (by our own clock).
pub fn timings(tools: &Tools, image: &Path) -> Result<(f64, f64)> {
    let mut run = tools.monitor();
    run.arg("run").arg(image).arg("--timings=json");
    let outcome = succeed(&mut run)?;
    let text = String::from_utf8_lossy(&outcome.stderr);
    let json = text
        .lines()
        .rev()
        .find(|l| l.starts_with('{'))
        .context("no timings")?;
    let fields: BTreeMap<String, f64> = serde_json::from_str(json)?;
    let main = fields
        .get("main_reached_us")
        .context("main was not reached, say the timings")?;
    Ok((main / 1000.0, outcome.time.as_secs_f64() * 1000.0))
}

/// Medians of the lines `name value unit` that a program prints.
pub fn lines(
    count: usize,
    command: impl Fn() -> Command,
) -> Result<BTreeMap<String, (&'static str, f64)>> {
    let mut values: BTreeMap<String, (&'static str, Vec<f64>)> = BTreeMap::new();
    for outcome in runs(count, || succeed(&mut command()))? {
        for line in String::from_utf8_lossy(&outcome.stdout).lines() {
            let [name, value, unit] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let unit = ["ns", "ms", "MB/s"]
                .into_iter()
                .find(|u| *u == unit)
                .unwrap_or("");
            values
                .entry(name.to_owned())
                .or_insert((unit, Vec::new()))
                .1
                .push(value.parse()?);
        }
    }
    Ok(values
        .into_iter()
        .map(|(name, (unit, mut all))| (name, (unit, median(&mut all))))
        .collect())
}

/// Median of the milliseconds that a program says its work took.
pub fn said(
    count: usize,
    say: fn(&str) -> Option<f64>,
    command: impl Fn() -> Command,
) -> Result<f64> {
    let one = || -> Result<f64> {
        let outcome = succeed(&mut command())?;
        let text = [outcome.stderr, outcome.stdout]
            .map(|t| String::from_utf8_lossy(&t).into_owned())
            .join("\n");
        say(&text).context("the program did not say how long it took")
    };
    let mut values = runs(count, one)?;
    Ok(median(&mut values))
}

/// `... in 12.5ms`, as Rust prints durations.
pub fn in_duration(text: &str) -> Option<f64> {
    let word = text
        .lines()
        .find_map(|l| l.rsplit_once(" in ").map(|(_, word)| word))?;
    let units = [("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6), ("s", 1e3)];
    units
        .iter()
        .find_map(|(unit, scale)| Some(word.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

/// `0.012345 seconds spent searching`, as `rg --stats` prints it.
pub fn ripgrep_seconds(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|l| l.ends_with("seconds total") || l.ends_with("seconds"))?;
    Some(line.split(' ').next()?.parse::<f64>().ok()? * 1000.0)
}

/// Megabytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Private to the monitor: all mappings but the guest's memory and the image.
    pub monitor_private: f64,
    /// Proportional set size of the whole process, guest included.
    pub pss: f64,
}

/// Looks at the process while hello waits for input.
pub fn memory(tools: &Tools, image: &Path) -> Result<Memory> {
    memory_with(tools, image, &[])
}

/// The same with further flags of the monitor.
pub fn memory_with(tools: &Tools, image: &Path, flags: &[&str]) -> Result<Memory> {
    let mut run = tools.monitor();
    run.arg("run")
        .args(flags)
        .arg(image)
        .args(["--", "--echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = run.spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut input = child.stdin.take().context("no input")?;
    let mut line = String::new();
    writeln!(input, "here")?;
    while !line.contains("here") {
        line.clear();
        ensure!(
            output.read_line(&mut line)? > 0,
            "hello ended before it echoed"
        );
    }
    let memory = of_process(child.id());
    drop(input);
    child.wait()?;
    memory
}

/// Memory of the monitor with this process id.
pub fn of_process(id: u32) -> Result<Memory> {
    let maps = std::fs::read_to_string(format!("/proc/{id}/smaps"))?;
    Ok(add_up(&maps))
}

/// One mapping of `/proc/PID/smaps`; sizes in KiB.
#[derive(Clone, Debug, Default)]
struct Mapping {
    from: u64,
    to: u64,
    image: bool,
    pss: u64,
    private: u64,
}

/// The guest's memory is the run of mappings without a gap in which the image lies.
fn add_up(maps: &str) -> Memory {
    let all = mappings(maps);
    let image = all.iter().position(|m| m.image);
    let joined = |pair: &[Mapping]| pair[0].to == pair[1].from;
    let guest = image.map(|at| {
        let before = all[..=at]
            .windows(2)
            .rev()
            .take_while(|p| joined(p))
            .count();
        let after = all[at..].windows(2).take_while(|p| joined(p)).count();
        at - before..=at + after
    });
    let own = |n: &usize| !guest.as_ref().is_some_and(|g| g.contains(n));
    let private: u64 = (0..all.len()).filter(own).map(|n| all[n].private).sum();
    let pss: u64 = all.iter().map(|m| m.pss).sum();
    Memory {
        monitor_private: private as f64 * 1024.0 / 1e6,
        pss: pss as f64 * 1024.0 / 1e6,
    }
}

fn mappings(maps: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let value = words.next().and_then(|v| v.parse::<u64>().ok());
        match (first, all.last_mut(), value) {
            ("Pss:", Some(mapping), Some(kib)) => mapping.pss = kib,
            ("Private_Clean:" | "Private_Dirty:", Some(mapping), Some(kib)) => {
                mapping.private += kib
            }
            (range, ..) if !range.ends_with(':') => all.extend(header(range, line)),
            _ => {}
        }
    }
    all
}

fn header(range: &str, line: &str) -> Option<Mapping> {
    let (from, to) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping {
        from: address(from)?,
        to: address(to)?,
        image: line.ends_with(".unik"),
        ..Mapping::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn what_programs_say() {
        assert_eq!(in_duration("x\n100000 rows in 12.5ms\n"), Some(12.5));
        assert_eq!(in_duration("100000 rows in 1.5s"), Some(1500.0));
        assert_eq!(
            ripgrep_seconds("0.5 seconds spent searching\n0.25 seconds total\n"),
            Some(250.0)
        );
    }

    #[test]
    fn maps_are_told_apart() {
        let maps = "1000-2000 r--p 0 00:00 0 /x/unik-vmm\nSize: 8 kB\nPss: 4 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 0 kB\n\
            5000-6000 rw-p 0 00:00 0\nSize: 65536 kB\nPss: 100 kB\nPrivate_Dirty: 100 kB\n\
            6000-7000 rw-p 0 00:00 0 /x/hello.unik\nSize: 1000 kB\nPss: 10 kB\nPrivate_Dirty: 10 kB\n";
        let memory = add_up(maps);
        assert!((memory.pss - 114.0 * 1.024e-3).abs() < 1e-9);
        assert!((memory.monitor_private - 4.0 * 1.024e-3).abs() < 1e-9);
    }
}
