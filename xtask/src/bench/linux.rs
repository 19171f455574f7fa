//! `cargo xtask bench linux`: a stock Linux guest in the laboratory, on our monitor and on QEMU's microvm with KVM, in one boot of it.
//!
//! Both get the same kernel, RAM disk, disk and words for the kernel (besides those that each says by itself); the times of both are taken by the same program inside, from the
//! start of the monitor's process to the first line of the guest's `/init`. One run that does not count, then medians. A run that fails
//! is repeated, loudly: the emulator brings down a guest now and then, QEMU's as well as ours.

use super::measure::{median, runs};
use super::{Figure, figure};
use crate::e2e::tools::Tools;
use crate::lab::build::{self, Parts};
use crate::lab::linux::Files;
use crate::lab::outer::{Breakdown, Laboratory, Payload, Size};
use crate::lab::repeat::{Machines, SPARES};
use crate::lab::{MONITOR, job, note};
use crate::sh;
use anyhow::{Context, Result, ensure};
use lab_agent::Done;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `bench linux`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Runs of each measurement
    #[arg(long, default_value_t = 8)]
    pub runs: usize,
    /// Use the programs of the last build
    #[arg(long)]
    pub no_build: bool,
}

/// Memory of the guests.
const MEMORY: &str = "128M";

/// The kernel's words; behind them comes the name of a script of [`crate::lab::guest::TESTS`].
const WORDS: &str = "console=ttyS0 quiet lab.run=";

/// Bytes of the disk.
const DISK: u64 = 64 << 20;

/// How the unikernel differs on QEMU: a console, which its configuration names, entropy, and a way to end.
const HELLO: &str = ",acpi=off,isa-serial=off,graphics=off,usb=off -kernel /lab/hello.unik -initrd /lab/hello.config \
     -global virtio-mmio.force-legacy=false -chardev stdio,id=console -device virtio-serial-device,id=serial,bus=virtio-mmio-bus.0,max_ports=1 \
     -device virtconsole,chardev=console,bus=serial.0 -device virtio-rng-device,bus=virtio-mmio-bus.1 -device isa-debug-exit,iobase=0xf4,iosize=4";

/// The configuration: the console is in the machine's first window.
const HELLO_CONFIG: &[u8] = b"console=0xfeb00000\0monitor=qemu\0";

/// What QEMU's exit device makes of the guest's 0.
const QEMU_DONE: u64 = 1;

/// How often a run may be made.
const ATTEMPTS: u32 = 4;

const KVM: Duration = Duration::from_secs(120);

/// A monitor to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Monitor {
    Ours,
    Qemu,
}

impl Monitor {
    /// The command that runs the guest's script `test`.
    fn words(self, test: &str) -> Vec<String> {
        let cmdline = format!("{WORDS}{test}");
        let words = match self {
            Self::Ours => format!(
                "{MONITOR} linux --boot-timer --timings=json --memory {MEMORY} --kernel /lab/vmlinux \
                 --initrd /lab/initrd --disk /tmp/disk --cmdline"
            ),
            Self::Qemu => on_qemu(
                " -serial stdio -kernel /lab/vmlinux -initrd /lab/initrd -device virtio-blk-device,drive=disk \
                 -drive if=none,id=disk,format=raw,file=/tmp/disk -append",
            ),
        };
        let words = words.split_whitespace().map(str::to_owned);
        words.chain([cmdline]).collect()
    }
}

/// QEMU's microvm with KVM; `rest` goes on with the settings of the machine.
fn on_qemu(rest: &str) -> String {
    format!(
        "/lab/qemu/ld.so --library-path /lab/qemu /lab/qemu/qemu-system-x86_64 -L /lab/qemu -accel kvm -cpu host \
         -nodefaults -no-user-config -no-reboot -display none -m {MEMORY} -M microvm,x-option-roms=off,pit=off,pic=off,rtc=off{rest}"
    )
}

/// What one boot says, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Boot {
    /// To the first line of `/init`.
    init: f64,
    /// To the guest's first instruction; ours only.
    entered: Option<f64>,
}

/// Measures and returns the lines of the table.
pub fn figures(args: &Args) -> Result<Vec<Figure>> {
    let parts = build::parts(!args.no_build)?;
    let files = Files::make(&parts)?;
    let disk = parts.maker.scratch.join("bench.disk");
    std::fs::File::create(&disk)?.set_len(DISK)?;
    let mut payload = files.payload.clone();
    payload.push(Payload::new("/tmp/disk", &disk));
    let config = parts.maker.scratch.join("hello.config");
    std::fs::write(&config, HELLO_CONFIG)?;
    payload.push(Payload::new("/lab/hello.config", &config));
    payload.push(Payload::new(
        "/lab/hello.unik",
        &hello(&parts, args.no_build)?,
    ));
    payload.extend(qemu()?);
    let mut spares = SPARES;
    let mut machines = Machines::new(&mut spares, || {
        let lab = Laboratory::boot(&parts.maker, &payload, Size::default())?;
        note(&lab);
        fill(&lab)?;
        Ok(lab)
    })?;
    let mut lines = Vec::new();
    for (title, part) in PARTS {
        anstream::eprintln!("{}{:>12}{:#} {title}", sh::NOTE, "Measuring", sh::NOTE);
        lines.extend(machines.run(title, |lab| part(lab, args.runs))?);
    }
    Ok(lines)
}

type Part = fn(&Laboratory, usize) -> Result<Vec<Figure>>;

/// What is measured, in order; each part in a fresh machine when its machine breaks down.
const PARTS: [(&str, Part); 4] = [
    ("boots", boots),
    ("memory", |lab, _| patiently(|| memory(lab))),
    ("the unikernel", unikernel),
    ("disks", disks),
];

/// The hello example as an image.
fn hello(parts: &Parts, no_build: bool) -> Result<PathBuf> {
    let target = parts.maker.scratch.join("examples");
    let image = target.join("unik/release/hello.unik");
    if no_build && image.is_file() {
        return Ok(image);
    }
    let tools = Tools::build(true)?;
    let manifest = sh::root().join("examples/Cargo.toml");
    let mut build = tools.unik(&["--quiet", "build", "--release", "--package", "hello"]);
    build.arg("--manifest-path").arg(manifest);
    sh::run(build.env("CARGO_TARGET_DIR", &target))?;
    Ok(image)
}

/// QEMU with its libraries and firmware.
fn qemu() -> Result<Vec<Payload>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join("qemu-system-x86_64"))
        .find(|program| program.is_file())
        .context("qemu-system-x86_64 is not installed")?;
    let libraries = sh::output(Command::new("ldd").arg(&program))?;
    let files = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    let firmware = [
        "bios-microvm.bin",
        "qboot.rom",
        "pvh.bin",
        "kvmvapic.bin",
        "linuxboot_dma.bin",
    ]
    .map(|name| Path::new("/usr/share/qemu").join(name));
    let mut payload = Vec::new();
    for file in files.chain(firmware).chain([program]) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let inside = match name.starts_with("ld-linux") {
            true => "ld.so".into(),
            false => name,
        };
        payload.push(Payload::new(&format!("/lab/qemu/{inside}"), &file));
    }
    Ok(payload)
}

/// Writes all of the disk, so that reading it is not reading holes.
fn fill(lab: &Laboratory) -> Result<()> {
    let words = ["dd", "if=/dev/urandom", "of=/tmp/disk", "bs=1M"].map(str::to_owned);
    let mut words = words.to_vec();
    words.push(format!("count={}", DISK >> 20));
    run(lab, &words).map(|_| ())
}

fn run(lab: &Laboratory, words: &[String]) -> Result<Done> {
    let done = lab.run(job(words, KVM))?;
    let text = || {
        let all = [&done.stdout[..], &done.stderr].concat();
        String::from_utf8_lossy(&all).into_owned()
    };
    ensure!(
        done.late == 0 && done.code == 0,
        "{words:?} ended with {}:\n{}",
        done.code,
        text()
    );
    Ok(done)
}

/// Does something that the emulator may spoil until it succeeds, not for ever.
fn patiently<T>(once: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match once() {
            Err(error) if !error.is::<Breakdown>() => {
                anstream::eprintln!("{}REPEATED{:#} {error:#}", sh::FAIL, sh::FAIL);
            }
            result => return result,
        }
    }
    once()
}

/// Runs a guest; gives what it and its monitor said.
fn guest(lab: &Laboratory, monitor: Monitor, test: &str) -> Result<String> {
    let mut words = ["/bin/lab-probe", "until", "guest: init"]
        .map(str::to_owned)
        .to_vec();
    words.extend(monitor.words(test));
    let done = run(lab, &words)?;
    Ok(String::from_utf8_lossy(&[&done.stdout[..], &done.stderr].concat()).into_owned())
}

/// The number after `key`.
fn number(text: &str, key: &str) -> Option<f64> {
    let after = &text[text.find(key)? + key.len()..];
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.');
    after[..end.unwrap_or(after.len())].parse().ok()
}

fn boot(lab: &Laboratory, monitor: Monitor) -> Result<Boot> {
    let text = guest(lab, monitor, "nothing")?;
    Ok(Boot {
        init: number(&text, "probe: the line came after ").context("the guest said nothing")?,
        entered: number(&text, "\"guest_entered_us\":").map(|us| us / 1000.0),
    })
}

fn boots(lab: &Laboratory, count: usize) -> Result<Vec<Figure>> {
    let (mut ours, mut qemu, mut entered) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that both see the same neighbours.
    for (first, second) in runs(count, || {
        let once = |monitor| patiently(|| boot(lab, monitor));
        Ok((once(Monitor::Ours)?, once(Monitor::Qemu)?))
    })? {
        ours.push(first.init);
        entered.extend(first.entered);
        qemu.push(second.init);
    }
    let (init, start) = (median(&mut ours), median(&mut entered));
    Ok(vec![
        figure(
            "monitor start to the guest's /init",
            "ms",
            init,
            Some(median(&mut qemu)),
            "QEMU microvm",
            "<= 2300 where Firecracker takes 2580",
        ),
        figure(
            "monitor start to first guest instruction",
            "ms",
            start,
            None,
            "",
            "<= 1/3 of Firecracker's 280-345",
        ),
    ])
}

/// The monitor's memory while the guest sleeps.
fn memory(lab: &Laboratory) -> Result<Vec<Figure>> {
    let script = r#""$@" > /tmp/out & vm=$!
        until grep -q 'guest: sleeping' /tmp/out; do sleep 0.1; done
        cat /proc/$vm/smaps; kill -9 $vm"#;
    let mut words = ["sh", "-c", script, "around"].map(str::to_owned).to_vec();
    words.extend(Monitor::Ours.words("sleep"));
    let done = lab.run(job(&words, KVM))?;
    let (anonymous, resident) = own_memory(&String::from_utf8_lossy(&done.stdout), 128 << 20)?;
    Ok(vec![
        figure(
            "the monitor's anonymous memory, without the guest's",
            "KB",
            anonymous,
            None,
            "",
            "<= 300",
        ),
        figure(
            "the monitor's resident memory, without the guest's",
            "KB",
            resident,
            None,
            "",
            "<= 3000",
        ),
    ])
}

/// A mapping of `/proc/PID/smaps`; sizes in KiB.
#[derive(Clone, Debug, Default)]
struct Mapping {
    from: u64,
    to: u64,
    initrd: bool,
    resident: u64,
    anonymous: u64,
}

/// Anonymous and resident KB (1000 bytes) outside the guest's memory: its `guest` bytes end with the mapped RAM disk.
fn own_memory(maps: &str, guest: u64) -> Result<(f64, f64)> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        match (first, all.last_mut(), first.split_once('-')) {
            ("Rss:", Some(last), _) => last.resident = second.parse()?,
            ("Anonymous:", Some(last), _) => last.anonymous = second.parse()?,
            (_, _, Some((from, to))) if !first.ends_with(':') => all.push(Mapping {
                from: u64::from_str_radix(from, 16)?,
                to: u64::from_str_radix(to, 16)?,
                initrd: line.ends_with("/initrd"),
                ..Mapping::default()
            }),
            _ => {}
        }
    }
    let end = all
        .iter()
        .find(|m| m.initrd)
        .context("no RAM disk is mapped")?
        .to;
    let own = all
        .iter()
        .filter(|m| m.to <= end.saturating_sub(guest) || m.from >= end);
    let (resident, anonymous) =
        own.fold((0, 0), |sum, m| (sum.0 + m.resident, sum.1 + m.anonymous));
    Ok((anonymous as f64 * 1.024, resident as f64 * 1.024))
}

fn unikernel(lab: &Laboratory, count: usize) -> Result<Vec<Figure>> {
    let words = [MONITOR, "run", "--timings=json", "/lab/hello.unik"].map(str::to_owned);
    let qemu = on_qemu(HELLO);
    let qemu: Vec<_> = qemu.split_whitespace().map(str::to_owned).collect();
    let milliseconds = |done: &Done| done.nanos as f64 / 1e6;
    let once = || {
        let done = run(lab, &words)?;
        let text = String::from_utf8_lossy(&done.stderr);
        let main = number(&text, "\"main_reached_us\":");
        let main = main.with_context(|| format!("no time of main(): {text}"))?;
        let other = lab.run(job(&qemu, KVM))?;
        ensure!(
            other.code == QEMU_DONE && other.stdout == done.stdout,
            "QEMU ended with {}: {}",
            other.code,
            String::from_utf8_lossy(&[other.stdout, other.stderr].concat())
        );
        Ok([main / 1000.0, milliseconds(&done), milliseconds(&other)])
    };
    let times = runs(count, || patiently(once))?;
    let middle = |at: usize| median(&mut times.iter().map(|t| t[at]).collect::<Vec<_>>());
    Ok(vec![
        figure(
            "unikernel hello, monitor start to main()",
            "ms",
            middle(0),
            None,
            "",
            "<= 60",
        ),
        figure(
            "unikernel hello, whole run",
            "ms",
            middle(1),
            Some(middle(2)),
            "QEMU microvm",
            "",
        ),
    ])
}

/// Reads of the disk, by a program in the guest that goes past its page cache.
fn disks(lab: &Laboratory, count: usize) -> Result<Vec<Figure>> {
    let keys = ["probe: random ", "probe: sequential "];
    let read = |monitor| -> Result<[f64; 2]> {
        let text = guest(lab, monitor, "io")?;
        let value =
            |key| number(&text, key).with_context(|| format!("no figure of the disk: {text}"));
        Ok([value(keys[0])?, value(keys[1])?])
    };
    let (mut ours, mut qemu) = (Vec::new(), Vec::new());
    let once = |monitor| patiently(|| read(monitor));
    for pair in runs(count, || Ok((once(Monitor::Ours)?, once(Monitor::Qemu)?)))? {
        ours.push(pair.0);
        qemu.push(pair.1);
    }
    let line = |at: usize, what, unit| {
        let middle = |all: &[[f64; 2]]| median(&mut all.iter().map(|v| v[at]).collect::<Vec<_>>());
        figure(
            what,
            unit,
            middle(&ours),
            Some(middle(&qemu)),
            "QEMU microvm",
            ">= 1.0 of QEMU",
        )
    };
    Ok(vec![
        line(0, "virtio-blk, 4 KiB random reads, 8 at a time", "1/s"),
        line(
            1,
            "virtio-blk, 128 KiB sequential reads, 4 at a time",
            "MB/s",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_left_out() {
        let maps = "1000-3000 r-xp 0 00:00 0 /lab/unik-vmm\nRss: 8 kB\nAnonymous: 0 kB\n\
            8000-10000 rw-p 0 00:00 0\nRss: 4 kB\nAnonymous: 4 kB\n\
            10000-20000 rw-p 0 00:00 0\nRss: 64 kB\nAnonymous: 64 kB\n20000-30000 rw-p 0 00:00 0 /lab/initrd\nRss: 64 kB\n";
        let (anonymous, resident) = own_memory(maps, 0x2_0000).unwrap();
        assert!((anonymous - 4.096).abs() < 1e-9 && (resident - 12.288).abs() < 1e-9);
        assert_eq!(number("a:12.5 b:7", "a:"), Some(12.5));
        assert_eq!(number("a:12.5 b:7", "b:"), Some(7.0));
    }
}
