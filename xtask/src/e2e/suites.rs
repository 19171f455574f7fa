//! The own test suites of well-known crates, run by `cargo unik test`.
//!
//! Sources come from crates.io through `cargo vendor`, so a suite is what the crate publishes.

use super::Args;
use super::tools::Tools;
use crate::sh;
use crate::tally::Tally;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A crate and how its tests are run.
struct Suite {
    name: &'static str,
    version: &'static str,
    /// Flags for `cargo unik test`.
    flags: &'static [&'static str],
    /// Tests to leave out, with the reason beside them in [`SUITES`].
    skip: &'static [&'static str],
}

const fn suite(name: &'static str, version: &'static str) -> Suite {
    Suite {
        name,
        version,
        flags: &[],
        skip: &[],
    }
}

/// The longest that a suite may take, building included.
const LIMIT: Duration = Duration::from_secs(900);

/// The suites.
const SUITES: &[Suite] = &[
    suite("crossbeam-channel", "=0.5.17"),
    suite("crossbeam-deque", "=0.8.6"),
    suite("crossbeam-epoch", "=0.9.18"),
    suite("crossbeam-queue", "=0.3.14"),
    suite("crossbeam-utils", "=0.8.21"),
    suite("parking_lot", "=0.12.5"),
    suite("memchr", "=2.8.3"),
    // The packages of later versions leave out files that their own tests need.
    suite("regex", "=1.11.1"),
    suite("tempfile", "=3.27.0"),
    suite("mini-redis", "=0.4.1"),
    Suite {
        name: "tokio",
        version: "=1.54.1",
        flags: TOKIO_NET,
        // It starts a process.
        skip: &["anon_pipe_spawn_echo"],
    },
];

/// What tokio tests of its network. mio's crate comes without tests.
const TOKIO_NET: &[&str] = &[
    "--features=full",
    "--test=net_bind_resource",
    "--test=net_lookup_host",
    "--test=net_panic",
    "--test=net_quickack",
    "--test=net_unix_pipe",
    "--test=tcp_*",
    "--test=udp",
    "--test=uds_*",
];

/// Runs those that the filter leaves; their tests count one by one.
pub fn run(tools: &Tools, args: &Args) -> Result<Tally> {
    let wanted: Vec<_> = SUITES
        .iter()
        .filter(|s| {
            args.filter
                .iter()
                .all(|f| format!("suite/{}", s.name).contains(f.as_str()))
        })
        .collect();
    let mut tally = Tally::default();
    if wanted.is_empty() {
        return Ok(tally);
    }
    let vendor = vendor(tools)?;
    for suite in wanted {
        let counts = one(tools, &vendor, suite)?;
        let style = if counts.failed == 0 {
            sh::GOOD
        } else {
            sh::FAIL
        };
        anstream::println!("{style}suite{style:#} {}: {counts}", suite.name);
        tally.add(counts);
    }
    Ok(tally)
}

fn one(tools: &Tools, vendor: &Path, suite: &Suite) -> Result<Tally> {
    let folder = own_copy(tools, vendor, suite)?;
    let mut test = tools.unik(&["--quiet", "test", "--no-fail-fast"]);
    test.arg("--manifest-path")
        .arg(folder.join("Cargo.toml"))
        .args(suite.flags);
    test.arg("--target-dir")
        .arg(tools.scratch.join("suites-target"))
        .current_dir(&folder)
        .arg("--");
    suite
        .skip
        .iter()
        .for_each(|name| _ = test.args(["--skip", name]));
    let (text, status) = sh::tee(&mut test, LIMIT)?;
    let mut tally = Tally::of_test_output(&text);
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Downloads the sources, with everything that their tests need, through a scratch package.
fn vendor(tools: &Tools) -> Result<PathBuf> {
    let folder = tools.scratch.join("suites");
    std::fs::create_dir_all(folder.join("src"))?;
    std::fs::write(folder.join("src/lib.rs"), "")?;
    let mut manifest = "[package]\nname = \"suites\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n".to_owned();
    for suite in SUITES {
        writeln!(manifest, "{} = \"{}\"", suite.name, suite.version)?;
    }
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    let vendor = folder.join("vendor");
    sh::output(
        sh::cargo(&["vendor", "--quiet", "--versioned-dirs"])
            .current_dir(&folder)
            .arg(&vendor),
    )?;
    Ok(vendor)
}

/// A copy that is a workspace of its own.
fn own_copy(tools: &Tools, vendor: &Path, suite: &Suite) -> Result<PathBuf> {
    let name = format!("{}-{}", suite.name, suite.version.trim_start_matches('='));
    let copy = tools.scratch.join("suites").join(&name);
    copy_tree(&vendor.join(&name), &copy).with_context(|| format!("sources of {name}"))?;
    let path = copy.join("Cargo.toml");
    let mut manifest = std::fs::read_to_string(&path)?;
    if !manifest.contains("[workspace]") {
        manifest.push_str("\n[workspace]\n");
        std::fs::write(&path, manifest)?;
    }
    Ok(copy)
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(|_| ())?,
        }
    }
    Ok(())
}
