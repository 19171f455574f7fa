//! The own test suites of well-known crates, run by `cargo unik test`.
//!
//! A suite is what the crate publishes. `xtask/suites` names the versions: its manifest those of the crates, its lock file those of what they
//! use, and `locks/` those of what their tests use, for crates that are published without a lock file.

use super::Args;
use super::tools::Tools;
use crate::sh;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A crate and how its tests are run.
struct Suite {
    name: &'static str,
    /// Flags for `cargo unik test`.
    flags: &'static [&'static str],
    /// Tests to leave out, with the reason beside them in [`SUITES`].
    skip: &'static [&'static str],
    /// A test that is run with no other beside it, with the reason in [`SUITES`].
    alone: Option<&'static str>,
}

const fn suite(name: &'static str) -> Suite {
    Suite {
        name,
        flags: &[],
        skip: &[],
        alone: None,
    }
}

/// The package that names the versions.
const FOLDER: &str = "xtask/suites";

/// The longest that a suite may take, building included.
const LIMIT: Duration = Duration::from_secs(900);

/// The suites.
const SUITES: &[Suite] = &[
    Suite {
        // It counts the heap of the whole process: on Linux, too, it fails with others beside it, once in 15 runs.
        alone: Some("select2::main"),
        ..suite("crossbeam-channel")
    },
    suite("crossbeam-deque"),
    suite("crossbeam-epoch"),
    suite("crossbeam-queue"),
    suite("crossbeam-utils"),
    suite("parking_lot"),
    suite("memchr"),
    suite("regex"),
    suite("tempfile"),
    suite("mini-redis"),
    Suite {
        flags: TOKIO_NET,
        // It starts a process.
        skip: &["anon_pipe_spawn_echo"],
        ..suite("tokio")
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
    let sources = sources()?;
    for suite in wanted {
        let counts = match one(tools, &sources, suite) {
            Ok(counts) => counts,
            Err(error) => {
                tally.error(format!("suite/{}", suite.name), &error);
                continue;
            }
        };
        let style = if counts.failed.is_empty() {
            sh::GOOD
        } else {
            sh::FAIL
        };
        anstream::println!("{style}suite{style:#} {}: {counts}", suite.name);
        tally.add(counts);
    }
    Ok(tally)
}

fn one(tools: &Tools, sources: &HashMap<String, PathBuf>, suite: &Suite) -> Result<Tally> {
    let source = sources
        .get(suite.name)
        .with_context(|| format!("{FOLDER}/Cargo.toml does not name it"))?;
    let folder = own_copy(tools, source, suite.name)?;
    let run = |choice: &[&str]| -> Result<Tally> {
        let mut test = tools.unik(&["--quiet", "test", "--no-fail-fast"]);
        test.arg("--manifest-path")
            .arg(folder.join("Cargo.toml"))
            .args(suite.flags);
        test.arg("--target-dir")
            .arg(tools.scratch.join("suites-target"))
            .current_dir(&folder)
            // Less to build and to link; backtraces stay.
            .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
            .env("CARGO_INCREMENTAL", "0")
            .arg("--")
            .args(choice);
        let (text, status) = sh::tee(&mut test, LIMIT)?;
        let what = format!("suite/{}", suite.name);
        Ok(Tally::of_test_output(&what, &text, status.success()))
    };
    let left_out = suite.skip.iter().copied().chain(suite.alone);
    let left_out: Vec<_> = left_out.flat_map(|name| ["--skip", name]).collect();
    let mut tally = run(&left_out)?;
    if let Some(name) = suite.alone {
        let alone = run(&["--exact", name])?;
        ensure!(alone != Tally::default(), "there is no test {name}");
        tally.add(alone);
    }
    Ok(tally)
}

/// Where the sources of each crate are, by name. Cargo downloads what is missing.
fn sources() -> Result<HashMap<String, PathBuf>> {
    let metadata = MetadataCommand::new()
        .manifest_path(sh::root().join(FOLDER).join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", sh::TARGET].map(str::to_owned))
        .exec()?;
    let graph = metadata.resolve.as_ref().context("no dependency graph")?;
    let ours = graph.root.as_ref().map(|root| &metadata[root].id);
    let node = graph.nodes.iter().find(|node| Some(&node.id) == ours);
    let packages = node.into_iter().flat_map(|node| &node.dependencies);
    let source = |id| {
        let package = &metadata[id];
        let folder = package.manifest_path.parent()?.as_std_path().to_owned();
        Some((package.name.to_string(), folder))
    };
    Ok(packages.filter_map(source).collect())
}

/// A copy that is a workspace of its own.
fn own_copy(tools: &Tools, source: &Path, name: &str) -> Result<PathBuf> {
    let folder = source.file_name().context("a source without a name")?;
    let copy = tools.scratch.join("suites").join(folder);
    copy_tree(source, &copy).with_context(|| format!("sources of {name}"))?;
    let lock = sh::root().join(FOLDER).join(format!("locks/{name}.lock"));
    if lock.is_file() {
        std::fs::copy(lock, copy.join("Cargo.lock"))?;
    }
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
