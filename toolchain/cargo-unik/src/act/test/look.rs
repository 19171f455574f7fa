//! Cargo's words around test binaries: labels before, a verdict after.

use super::root;
use crate::act::cargo::Built;
use crate::exit_codes;
use crate::shell::Shell;
use cargo_metadata::{Package, TargetKind};

/// `unittests src/lib.rs`, `tests/x.rs`: cargo's words for a test binary.
pub fn label(built: &Built, package: &Package) -> String {
    let source = built.target.src_path.as_std_path();
    let source = source
        .strip_prefix(root(package))
        .unwrap_or(source)
        .display();
    let unit = [TargetKind::Test, TargetKind::Bench]
        .iter()
        .all(|k| !built.target.kind.contains(k));
    if unit {
        format!("unittests {source}")
    } else {
        source.to_string()
    }
}

/// Cargo's order of test binaries: by package, then library, binaries, tests, benchmarks, examples, then by name.
pub fn order(built: &Built) -> (String, usize, String) {
    let rank = match built.target.kind.first() {
        Some(TargetKind::Bin) => 1,
        Some(TargetKind::Test) => 2,
        Some(TargetKind::Bench) => 3,
        Some(TargetKind::Example) => 4,
        _ => 0,
    };
    (built.package.repr.clone(), rank, built.target.name.clone())
}

/// The flag that names this test binary to cargo.
fn flag(built: &Built) -> String {
    let name = &built.target.name;
    match built.target.kind.first() {
        Some(TargetKind::Bin) => format!("--bin {name}"),
        Some(TargetKind::Test) => format!("--test {name}"),
        Some(TargetKind::Bench) => format!("--bench {name}"),
        Some(TargetKind::Example) => format!("--example {name}"),
        _ => "--lib".to_owned(),
    }
}

/// Cargo's last words, and the exit code: the test's own when one failed at once, 101 after `--no-fail-fast`.
pub fn report(failed: &[(&Built, u8)], all: bool, shell: &Shell) -> u8 {
    let Some(((first, code), count)) = failed.first().map(|f| (f, failed.len())) else {
        return exit_codes::OK;
    };
    if all {
        let list: String = failed
            .iter()
            .map(|(built, _)| format!("\n    `{}`", flag(built)))
            .collect();
        shell.error(format_args!(
            "{count} target{} failed:{list}",
            if count == 1 { "" } else { "s" }
        ));
        return exit_codes::CARGO;
    }
    shell.error(format_args!("test failed, to rerun pass `{}`", flag(first)));
    *code
}
