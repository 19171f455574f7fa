//! Debian's packages whose programs a command runs: what is missing is installed where this user may, else the command to type is said.

use crate::sh;
use anyhow::{Result, bail, ensure};
use std::process::Command;

/// A package, and a program of it that shows whether it is there.
type Package = (&'static str, &'static str);

/// For the laboratory. Its kernel, busybox and e2fsck are downloaded, not installed.
pub const LAB: &[Package] = &[
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("e2fsprogs", "mke2fs"),
];

/// For the figures of the network.
pub const BENCH_NET: &[Package] = &[("iproute2", "ip"), LAB[0], ("wrk", "wrk")];

/// For all checks.
pub const CI: &[Package] = &[
    LAB[0],
    LAB[1],
    ("gcc", "gcc"),
    ("g++", "c++"),
    ("git", "git"),
    ("golang-go", "go"),
    ("iproute2", "ip"),
    ("musl-tools", "musl-gcc"),
];

/// Sees to it that these are there.
pub fn need(packages: &[Package]) -> Result<()> {
    let missing = missing(packages, sh::found);
    if missing.is_empty() {
        return Ok(());
    }
    let hint = format!(
        "{} missing: sudo apt-get install --no-install-recommends {}",
        if missing.len() == 1 {
            "a package is"
        } else {
            "packages are"
        },
        missing.join(" ")
    );
    ensure!(sh::found("apt-get"), "{hint} (this is no Debian)");
    let root = rustix::process::geteuid().is_root();
    if !root && !may_sudo() {
        bail!(hint);
    }
    let admin = |words: &[&str]| {
        let mut command = Command::new(if root { "env" } else { "sudo" });
        command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
        command
    };
    // Without network the lists that are there may do.
    let lists = sh::run(&mut admin(&["apt-get", "update", "-qq"]));
    let install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    let installed = sh::run(admin(&install).args(&missing));
    if let Err(error) = lists.and(installed) {
        ensure!(
            self::missing(packages, sh::found).is_empty(),
            "{hint} ({error:#})"
        );
    }
    Ok(())
}

fn missing(packages: &[Package], found: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let missing = packages.iter().filter(|(_, program)| !found(program));
    missing.map(|(package, _)| *package).collect()
}

/// Whether this user becomes root without being asked for a password.
fn may_sudo() -> bool {
    let asked = Command::new("sudo").args(["-n", "true"]).output();
    asked.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert!(missing(CI, |_| true).is_empty());
        assert_eq!(missing(LAB, |program| program != "mke2fs"), ["e2fsprogs"]);
        assert!(missing(CI, |_| false).contains(&"g++"));
    }

    #[test]
    fn what_is_there_needs_no_apt() {
        need(&[("coreutils", "ls")]).unwrap();
    }
}
