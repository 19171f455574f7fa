//! `cargo xtask lab --full`: a Debian root with systemd, made by debootstrap, on our monitor to its login prompt.
//!
//! The root is made on the host, as an ext4 disk that is kept with the packages; the laboratory's machine sees it as a virtio disk of its
//! own and hands it on to the guest. Needs root on the host (debootstrap does), network the first time, and a few minutes.

use super::build::Parts;
use super::linux::Files;
use super::outer::{Laboratory, Maker, Size};
use super::{MONITOR, debian, job, note};
use crate::sh;
use crate::tally::Tally;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the root holds besides Debian's smallest set.
const PACKAGES: &str = "--include=systemd-sysv,udev,kmod";

/// Bytes of the disk.
const DISK: u64 = 1 << 30;

/// From the monitor's start to its end.
const LIMIT: Duration = Duration::from_secs(900);

/// Logs in at the prompt and switches the machine off.
const AROUND: &str = r#"
mkfifo /tmp/in
"$@" < /tmp/in > /tmp/out 2>&1 & vm=$!
exec 3> /tmp/in
seen() { until grep -q "$1" /tmp/out; do kill -0 $vm || return; sleep 1; done; sleep 1; }
seen 'login:'; echo root >&3
seen 'root@guest'; echo 'echo $((6 * 7)) units; systemctl --failed; systemctl poweroff' >&3
wait $vm; code=$?
cat /tmp/out
/lab/e2fsck -f -n /dev/vda && echo "the disk is clean"
exit $code
"#;

/// What must have been seen.
const WANTED: [&str; 4] = [
    "guest login:",
    "42 units",
    "0 loaded units listed",
    "the disk is clean",
];

/// Boots it, logs in, switches it off, checks the disk.
pub fn test(parts: &Parts) -> Result<Tally> {
    let files = Files::make(parts)?;
    let maker = Maker {
        disk: Some(root()?),
        ..parts.maker.clone()
    };
    let lab = Laboratory::boot(&maker, &files.payload, Size::default())?;
    note(&lab);
    let monitor = format!(
        "{MONITOR} linux --kernel /lab/vmlinux --initrd /lab/initrd --memory 512M --disk /dev/vda --cmdline"
    );
    let around = ["sh", "-c", AROUND, "around"].into_iter();
    let words = around
        .chain(monitor.split(' '))
        .chain(["quiet lab.run=root"]);
    let words: Vec<String> = words.map(str::to_owned).collect();
    let done = lab.run(job(&words, LIMIT))?;
    let console = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{console}");
    let mut tally = Tally::default();
    let mut count = |what: &str, good| {
        println!("{:<4} debian: {what}", if good { "ok" } else { "FAIL" });
        let verdict = if good { Ok(()) } else { Err("not seen") };
        tally.count(format!("debian: {what}"), verdict);
    };
    WANTED
        .iter()
        .for_each(|wanted| count(wanted, console.contains(wanted)));
    count("switched itself off", done.code == 0 && done.late == 0);
    Ok(tally)
}

/// The disk with the root; made when it is not there yet.
fn root() -> Result<PathBuf> {
    let cache = debian::folder()?;
    let disk = cache.join("bookworm-systemd.ext4");
    if disk.is_file() {
        return Ok(disk);
    }
    ensure!(
        sh::found("debootstrap"),
        "the long test makes a Debian root with debootstrap: sudo apt-get install --no-install-recommends debootstrap"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "debootstrap must be run by root: run this command with sudo, or as root"
    );
    let work = tempfile::Builder::new().prefix("root").tempdir_in(&cache)?;
    let tree = work.path().join("tree");
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", PACKAGES, "bookworm"]);
    sh::run(make.arg(&tree))?;
    prepare(&tree)?;
    let stage = work.path().join("disk");
    std::fs::File::create(&stage)?.set_len(DISK)?;
    let mut format = Command::new("mke2fs");
    format.env("PATH", sh::path());
    sh::run(
        format
            .args(["-q", "-t", "ext4", "-d"])
            .arg(&tree)
            .arg(&stage),
    )?;
    std::fs::rename(&stage, &disk)?;
    Ok(disk)
}

/// A name, a root that is written to, a prompt on the serial line that asks for no password.
fn prepare(tree: &Path) -> Result<()> {
    let shadow = tree.join("etc/shadow");
    let text = std::fs::read_to_string(&shadow)?;
    std::fs::write(&shadow, text.replace("root:*:", "root::"))?;
    std::fs::write(tree.join("etc/hostname"), "guest\n")?;
    std::fs::write(tree.join("etc/fstab"), "/dev/vda / ext4 defaults 0 1\n")?;
    let wants = tree.join("etc/systemd/system/getty.target.wants");
    std::fs::create_dir_all(&wants)?;
    let prompt = wants.join("serial-getty@ttyS0.service");
    if !prompt.exists() {
        std::os::unix::fs::symlink("/lib/systemd/system/serial-getty@.service", prompt)?;
    }
    Ok(())
}
