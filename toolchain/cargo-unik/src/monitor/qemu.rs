//! QEMU's microvm machine as monitor: with KVM, or emulated where there is none.
//!
//! The image boots through its PVH note, the run configuration comes as first module (`-initrd`), the standard streams
//! are two virtio consoles at known addresses, and the exit value is read from the debug console
//! (`unik_abi::control::PORT_EXIT` says why).

use super::child::{self, Ended};
use super::config::{self, Hardware};
use super::relay::{Relay, Running};
use super::{Job, MonitorError, cards, kvm};
use crate::exit_codes;
use crate::shell::Shell;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use unik_abi::control::{ExitReport, PORT_DEBUG, PORT_EXIT};

const QEMU: &str = "qemu-system-x86_64";
const HINT: &str = "; `cargo unik doctor` shows the command that installs it";

/// First virtio-mmio window of the machine and the distance to the next (`hw/i386/microvm.c`).
const VIRTIO_BASE: u64 = 0xfeb0_0000;
const VIRTIO_STRIDE: u64 = 0x200;

/// Window of the first network card: behind two consoles and the entropy.
pub const FIRST_CARD: usize = 3;

/// Physical address of window `n`.
fn window(n: usize) -> u64 {
    VIRTIO_BASE + VIRTIO_STRIDE * n as u64
}

/// The host's processor, but for a register (IA32_ARCH_CAPABILITIES) that QEMU copies from the host and that a KVM on AMD refuses to set:
/// QEMU would give up. It tells of ring 0's side channels, and nothing in the guest asks it.
const KVM_CPU: &str = "host,arch-capabilities=off";

/// Memory of the machine when nobody says otherwise: what `unik-vmm` gives.
const DEFAULT_MEMORY: u64 = 1 << 30;

/// Whether QEMU can be started.
pub fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(QEMU).is_file())
}

/// Boots the image under QEMU and returns the exit code, mapped as `unik-vmm` maps it.
pub fn run(job: &Job<'_>, with_kvm: bool, shell: &Shell) -> Result<u8, MonitorError> {
    if job.machine.timings.is_some() {
        shell.warn("QEMU reports no phases: --timings needs Unik's own monitor");
    }
    let host = |what| move |source| MonitorError::Host { what, source };
    let dir = tempfile::tempdir().map_err(host("make a temporary directory"))?;
    let (config, debug) = (dir.path().join("config"), dir.path().join("debug"));
    let manifest = manifest(job.image)?;
    let machine = Machine::new(job, &manifest, with_kvm);
    let cards = cards::of(job, &manifest)?;
    let hardware = Hardware {
        cpus: machine.cpus,
        console: window(0),
        console_err: window(1),
        end_of_input: config::entropy()?,
        cards: cards
            .iter()
            .enumerate()
            .map(|(n, card)| format!("{:#x}{}", window(FIRST_CARD + n), card.record))
            .collect(),
        tsc_khz: if with_kvm {
            kvm::tsc_khz().map(u64::from)
        } else {
            None
        },
    };
    let bytes = config::build(job, &manifest, &hardware)?;
    std::fs::write(&config, bytes).map_err(host("write the run configuration"))?;
    File::create(&debug).map_err(host("make the debug console's file"))?;

    let relay = Relay::new(dir.path()).map_err(host("make the files of the standard streams"))?;
    let mut command = Command::new(QEMU);
    command.args(machine.flags(job.image, &config, &debug, &relay));
    command.args(cards::flags(&cards, job.machine.pcap.as_deref())?);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    shell.verbose("Running", format_args!("{command:?}"));
    let mut running = None;
    let ended = child::run(&mut command, HINT, |child| {
        running = Some(relay.start(child, hardware.end_of_input));
    });
    if running.is_some_and(Running::finish) {
        return Ok(SIGPIPE_CODE);
    }
    let ended = ended?;
    let text = std::fs::read(&debug).map_err(host("read the debug console"))?;
    Ok(outcome(&String::from_utf8_lossy(&text), ended, shell))
}

/// What the debug console's text and QEMU's own exit code mean.
fn outcome(debug: &str, ended: Ended, shell: &Shell) -> u8 {
    let (said, value) = match debug.rsplit_once(EXIT_LINE) {
        Some((said, value)) => (
            said,
            value.trim().parse().ok().and_then(ExitReport::from_u32),
        ),
        None => (debug, None),
    };
    let said = said.trim();
    let crash = |what: &str| {
        let text = if said.is_empty() {
            "it said nothing"
        } else {
            said
        };
        shell.error(format_args!("{what}: {text}"));
    };
    match value {
        Some(ExitReport::Exited(code)) => code,
        Some(ExitReport::Signaled(signal)) => 128 + signal,
        Some(ExitReport::OutOfMemory) => {
            crash("the guest ran out of memory");
            128 + 9
        }
        Some(ExitReport::Refused) => {
            crash("the library OS refused to start");
            exit_codes::CONFIG
        }
        Some(ExitReport::Panic | ExitReport::NucleusFault) => {
            crash("the guest crashed");
            exit_codes::CRASH
        }
        None => without_report(ended, crash),
    }
}

/// QEMU takes SIGINT and SIGTERM itself and leaves in order, with code 0.
fn without_report(ended: Ended, crash: impl Fn(&str)) -> u8 {
    match (ended.signal, ended.exit_code()) {
        (Some(signal), _) => u8::try_from(128 + signal).unwrap_or(exit_codes::CRASH),
        (None, code) if code > 128 => code,
        (None, 0) => {
            crash("the guest stopped without saying how it ended");
            exit_codes::CRASH
        }
        (None, _) => exit_codes::HOST,
    }
}

/// The line before the exit value ([`PORT_EXIT`]).
const EXIT_LINE: &str = "unik-exit: ";

/// What a program gets that writes to a closed pipe.
const SIGPIPE_CODE: u8 = 128 + 13;

/// The image's own wishes.
fn manifest(image: &Path) -> Result<Vec<u8>, MonitorError> {
    let wrong = |reason: String| MonitorError::Image {
        path: image.display().to_string(),
        reason,
    };
    let bytes = std::fs::read(image).map_err(|e| wrong(e.to_string()))?;
    let manifest = unik_image::manifest_bytes(&bytes).map_err(|e| wrong(e.to_string()))?;
    Ok(manifest.to_vec())
}

/// The machine's size.
struct Machine {
    cpus: u32,
    memory: u64,
    kvm: bool,
}

impl Machine {
    /// Flags win over the image's wishes.
    fn new(job: &Job<'_>, manifest: &[u8], kvm: bool) -> Self {
        let wish = |key: &[u8]| {
            config::first(manifest, key)
                .and_then(|v| std::str::from_utf8(v).ok())
                .map(str::parse::<u64>)
        };
        let cpus = wish(b"cpus")
            .and_then(Result::ok)
            .and_then(|n| u32::try_from(n).ok());
        Self {
            cpus: job.machine.cpus.or(cpus).unwrap_or(1),
            memory: job
                .machine
                .memory
                .map(|m| m.0)
                .or(wish(b"memory").and_then(Result::ok))
                .unwrap_or(DEFAULT_MEMORY),
            kvm,
        }
    }

    fn flags(&self, image: &Path, config: &Path, debug: &Path, relay: &Relay) -> Vec<String> {
        let accel = if self.kvm {
            ["kvm", KVM_CPU]
        } else {
            ["tcg", "max"]
        };
        let text = |path: &Path| path.display().to_string().replace(',', ",,");
        let mut flags = strings(&[
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        flags.extend(strings(&["-M", "microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=off,graphics=off,usb=off"]));
        flags.extend(strings(&["-accel", accel[0], "-cpu", accel[1]]));
        flags.extend([
            "-smp".into(),
            self.cpus.to_string(),
            "-m".into(),
            format!("{}K", self.memory >> 10),
        ]);
        flags.extend([
            "-kernel".into(),
            image.display().to_string(),
            "-initrd".into(),
            config.display().to_string(),
        ]);
        flags.extend([
            "-chardev".into(),
            format!("file,id=debug,path={}", text(debug)),
        ]);
        flags.extend([
            "-device".into(),
            format!("isa-debugcon,iobase={PORT_DEBUG:#x},chardev=debug"),
        ]);
        flags.extend([
            "-device".into(),
            format!("isa-debug-exit,iobase={PORT_EXIT:#x},iosize=4"),
        ]);
        flags.extend(strings(&["-global", "virtio-mmio.force-legacy=false"]));
        flags.extend(console(0, &format!("pipe,path={}", text(&relay.stdio))));
        flags.extend(console(1, &format!("file,path={}", text(&relay.err))));
        flags.extend(strings(&[
            "-device",
            "virtio-rng-device,bus=virtio-mmio-bus.2",
        ]));
        flags
    }
}

/// A virtio console with one port in window `n`.
fn console(n: usize, chardev: &str) -> Vec<String> {
    vec![
        "-chardev".into(),
        format!("{chardev},id=stream{n}"),
        "-device".into(),
        format!("virtio-serial-device,id=serial{n},bus=virtio-mmio-bus.{n},max_ports=1"),
        "-device".into(),
        format!("virtconsole,chardev=stream{n},bus=serial{n}.0"),
    ]
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Verbosity;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn exit_lines() {
        let shell = Shell::new(Verbosity::Quiet, None);
        let code = |text: &str, qemu: i32, signal| {
            let status = ExitStatus::from_raw(qemu << 8);
            outcome(text, Ended { status, signal }, &shell)
        };
        assert_eq!(code("\nunik-exit: 101\n", 203, None), 101);
        assert_eq!(code("noise\nunik-exit: 267\n", 1, None), 128 + 11);
        assert_eq!(
            code("panic at x\nunik-exit: 512\n", 1, None),
            exit_codes::CRASH
        );
        assert_eq!(code("\nunik-exit: 768\n", 1, None), 137);
        assert_eq!(code("", 0, None), exit_codes::CRASH);
        assert_eq!(code("", 0, Some(2)), 130);
        assert_eq!(code("unik-exit: lots", 1, None), exit_codes::HOST);
    }
}
