//! `cargo unik doctor`: a table of what this machine offers, and for each missing thing the command that mends it.
//!
//! Exit code 0 when programs can be built and run here, [`exit_codes::UNAVAILABLE`] when not.

use crate::exit_codes;
use crate::monitor::{kvm, qemu, tsc};
use raw_cpuid::CpuId;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One line of the table.
#[derive(Debug)]
struct Line {
    name: &'static str,
    grade: Grade,
    found: String,
    mend: String,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Good,
    /// Works, but slower or with less.
    Fair,
    /// Nothing works without it.
    Missing,
}

/// Prints the table on standard output and returns the exit code.
pub fn doctor() -> u8 {
    let lines = [
        kvm_line(),
        acceleration(),
        cpu(),
        counter(),
        huge_pages(),
        memory(),
        qemu_line(),
        cargo(),
        target(),
        compiler(),
        libc(),
    ];
    lines.iter().for_each(print);
    let usable = |grade| lines.iter().all(|l| l.grade != grade);
    let runs = lines[0].grade == Grade::Good || qemu::installed();
    let verdict = match (runs && usable(Grade::Missing), usable(Grade::Fair)) {
        (true, true) => "programs can be built and run here",
        (true, false) => {
            "programs can be built and run here; the lines marked `~` would make it better"
        }
        (false, _) => "something is missing: the lines marked `!` say what mends it",
    };
    anstream::println!("\n{verdict}");
    if runs && usable(Grade::Missing) {
        exit_codes::OK
    } else {
        exit_codes::UNAVAILABLE
    }
}

fn print(line: &Line) {
    use anstyle::{AnsiColor, Style};
    let (mark, color) = match line.grade {
        Grade::Good => ("+", AnsiColor::Green),
        Grade::Fair => ("~", AnsiColor::Yellow),
        Grade::Missing => ("!", AnsiColor::Red),
    };
    let style: Style = color.on_default().bold();
    anstream::println!("{style}{mark}{style:#} {:<18} {}", line.name, line.found);
    if line.grade != Grade::Good && !line.mend.is_empty() {
        anstream::println!("{:21}{}", "", line.mend);
    }
}

fn line(
    name: &'static str,
    grade: Grade,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Line {
    Line {
        name,
        grade,
        found: found.into(),
        mend: mend.into(),
    }
}

fn kvm_line() -> Line {
    let fallback = if qemu::installed() {
        Grade::Fair
    } else {
        Grade::Missing
    };
    match kvm::probe() {
        Ok(found) => line(
            "/dev/kvm",
            Grade::Good,
            format!("API version {}, up to {} vCPUs", found.api, found.max_vcpus),
            "",
        ),
        Err(why @ kvm::Missing::Denied) => line(
            "/dev/kvm",
            fallback,
            why.words(),
            "sudo usermod -aG kvm $USER, then log in again",
        ),
        Err(why @ kvm::Missing::Absent) => line(
            "/dev/kvm",
            fallback,
            why.words(),
            "sudo modprobe kvm_intel (or kvm_amd); in a virtual machine: ask its owner for nested virtualization",
        ),
        Err(why) => line(
            "/dev/kvm",
            fallback,
            why.words(),
            "look at `dmesg | grep -i kvm`",
        ),
    }
}

/// The processor's virtualization flags: without them a KVM must be paravirtual.
fn acceleration() -> Line {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| {
        flags
            .lines()
            .any(|l| l.starts_with("flags") && l.split_whitespace().any(|w| w == flag))
    };
    let found = match (has("vmx"), has("svm"), kvm::probe().is_ok()) {
        (true, ..) => "hardware (VT-x)",
        (_, true, _) => "hardware (SVM)",
        (.., true) => {
            "no VT-x or SVM: this KVM works without them, guests run in ring 3 at full speed"
        }
        _ => "no VT-x or SVM",
    };
    line("virtualization", Grade::Good, found, "")
}

fn cpu() -> Line {
    let brand = CpuId::new()
        .get_processor_brand_string()
        .map(|b| b.as_str().trim().to_owned());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    line(
        "processor",
        Grade::Good,
        format!(
            "{}, {count} CPUs",
            brand.unwrap_or_else(|| "unknown".into())
        ),
        "",
    )
}

fn counter() -> Line {
    let khz = kvm::tsc_khz().map_or_else(tsc::khz, u64::from);
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let steady = flags.contains("constant_tsc");
    let found = format!(
        "{}.{:03} MHz{}",
        khz / 1000,
        khz % 1000,
        if steady { ", constant" } else { "" }
    );
    line(
        "time stamp counter",
        if steady { Grade::Good } else { Grade::Fair },
        found,
        "the counter's speed may change: clocks inside a guest may drift",
    )
}

fn huge_pages() -> Line {
    let text =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let setting = text
        .split('[')
        .nth(1)
        .and_then(|t| t.split(']').next())
        .unwrap_or("not supported");
    let grade = if matches!(setting, "always" | "madvise") {
        Grade::Good
    } else {
        Grade::Fair
    };
    line(
        "huge pages",
        grade,
        setting,
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

fn memory() -> Line {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    match kib {
        Some(kib) if kib < 128 << 10 => line(
            "memory",
            Grade::Fair,
            format!("{} MiB free", kib >> 10),
            "close something: machines may run out of memory",
        ),
        Some(kib) => line("memory", Grade::Good, format!("{} MiB free", kib >> 10), ""),
        None => line("memory", Grade::Fair, "unknown", ""),
    }
}

fn qemu_line() -> Line {
    let version = output("qemu-system-x86_64", &["--version"]);
    match version.as_deref().and_then(|v| v.lines().next()) {
        Some(version) => line("QEMU", Grade::Good, version, ""),
        None => line(
            "QEMU",
            Grade::Fair,
            "not installed (`--monitor qemu`, and all runs where /dev/kvm is missing)",
            "sudo apt-get install qemu-system-x86",
        ),
    }
}

fn cargo() -> Line {
    match output(
        &std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()),
        &["--version"],
    ) {
        Some(version) => line("cargo", Grade::Good, version.trim(), ""),
        None => line(
            "cargo",
            Grade::Missing,
            "not found",
            "install Rust as https://rustup.rs says",
        ),
    }
}

fn target() -> Line {
    let sysroot = output("rustc", &["--print", "sysroot"]).unwrap_or_default();
    let found = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(crate::plan::DEFAULT_TARGET)
        .join("lib")
        .is_dir();
    match !sysroot.is_empty() && found {
        true => line("Rust target", Grade::Good, crate::plan::DEFAULT_TARGET, ""),
        false => line(
            "Rust target",
            Grade::Missing,
            format!("{} is not installed", crate::plan::DEFAULT_TARGET),
            format!("rustup target add {}", crate::plan::DEFAULT_TARGET),
        ),
    }
}

fn compiler() -> Line {
    match output("cc", &["--version"])
        .as_deref()
        .and_then(|v| v.lines().next())
    {
        Some(version) => line("linker (cc)", Grade::Good, version, ""),
        None => line(
            "linker (cc)",
            Grade::Missing,
            "not installed",
            "sudo apt-get install gcc",
        ),
    }
}

/// Static linking needs glibc's archive; `cc` knows where it looks for it.
fn libc() -> Line {
    let path = output("cc", &["-print-file-name=libc.a"]).unwrap_or_default();
    match Path::new(path.trim()).is_absolute() {
        true => line("static glibc", Grade::Good, path.trim(), ""),
        false => line(
            "static glibc",
            Grade::Missing,
            "libc.a is not installed",
            "sudo apt-get install libc6-dev (Fedora: sudo dnf install glibc-static)",
        ),
    }
}

/// Standard output of a command that succeeds.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
