//! The run configuration for QEMU, which hands it over as first PVH module (`unik_abi::config` lists the keys).
//!
//! Our own monitor writes its configuration itself; this one says the same with what QEMU's machine has.

use super::{Job, MonitorError, tsc};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};
use unik_abi::config::records;
use unik_monitor::config::{Records, variable};
use unik_monitor::terminal;

/// What QEMU's machine has.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Number of vCPUs.
    pub cpus: u32,
    /// Physical address of the console of standard input and output.
    pub console: u64,
    /// The same for standard error.
    pub console_err: u64,
    /// The bytes after which the input has ended.
    pub end_of_input: [u8; 32],
    /// The network cards: windows and addresses.
    pub cards: Vec<String>,
    /// The guest's time stamp counter; `None` when it has to be measured.
    pub tsc_khz: Option<u64>,
}

/// Builds the configuration. `manifest` is the image's own.
pub fn build(job: &Job<'_>, manifest: &[u8], hardware: &Hardware) -> Result<Vec<u8>, MonitorError> {
    let mut out = Writer(Records::default());
    terminal::describe(&mut out.0, manifest);
    if let Some(args) = job.args {
        let argv0 = first(manifest, b"arg").unwrap_or(b"program");
        out.add("arg", OsStr::from_bytes(argv0))?;
        args.iter().try_for_each(|arg| out.add("arg", arg))?;
    }
    for (name, value) in &job.env {
        out.add("env", variable(name, value))?;
    }
    out.add("cpus", hardware.cpus.to_string())?;
    out.add("monitor", "qemu")?;
    out.add("console", format!("{:#x}", hardware.console))?;
    out.add("console.err", format!("{:#x}", hardware.console_err))?;
    out.add("console.eof", hex(&hardware.end_of_input))?;
    hardware
        .cards
        .iter()
        .try_for_each(|card| out.add("net", card))?;
    out.add("wall_ns", wall_ns().to_string())?;
    out.add("seed", hex(&entropy()?))?;
    let khz = hardware.tsc_khz.unwrap_or_else(tsc::khz);
    out.add("tsc_khz", khz.to_string())?;
    if job.machine.syscall_summary {
        out.add("syscall_summary", "1")?;
    }
    Ok(out.0.as_bytes().to_vec())
}

/// The first value of `key` in a configuration.
pub fn first<'a>(config: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    records(config)
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

struct Writer(Records);

impl Writer {
    fn add(&mut self, key: &str, value: impl AsRef<OsStr>) -> Result<(), MonitorError> {
        match self.0.add(key, value) {
            true => Ok(()),
            false => Err(MonitorError::Wish(format!(
                "`{key}` holds a NUL character, which no program argument or variable can"
            ))),
        }
    }
}

fn wall_ns() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos())
}

/// 32 bytes of the host's entropy.
pub fn entropy() -> Result<[u8; 32], MonitorError> {
    let mut bytes = [0u8; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(|source| MonitorError::Host {
        what: "read /dev/urandom",
        source,
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
