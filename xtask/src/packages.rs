//! The Debian packages that tests and laboratory use; everything else comes from crates.io.

use crate::sh;
use crate::tally::Tally;
use anyhow::Result;
use std::process::Command;

/// Debian packages, and a program of each that shows whether it is there.
const PACKAGES: [(&str, &str); 6] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("gcc", "gcc"),
    ("musl-tools", "musl-gcc"),
    ("golang-go", "go"),
    ("busybox-static", "busybox"),
    ("e2fsprogs", "mke2fs"),
];

/// Installs what is missing, where this user may.
pub fn install() -> Result<Tally> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(_, program)| !sh::found(program))
        .map(|(package, _)| *package)
        .collect();
    let done = Tally {
        passed: 1,
        ..Tally::default()
    };
    if missing.is_empty() {
        return Ok(done);
    }
    let admin = |words: &[&str]| {
        let mut command = Command::new(if rustix::process::geteuid().is_root() {
            "env"
        } else {
            "sudo"
        });
        command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
        command
    };
    sh::run(&mut admin(&["apt-get", "update", "-qq"]))?;
    sh::run(admin(&["apt-get", "install", "-y", "-qq", "--no-install-recommends"]).args(missing))?;
    Ok(done)
}
