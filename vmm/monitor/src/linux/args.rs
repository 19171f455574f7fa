//! The arguments of `unik-vmm linux`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use unik_devices::vsock::GUEST_CID;

use crate::cli::{TimingsFormat, parse_size};
use crate::net::NetArgs;

/// The arguments.
#[derive(Clone, Debug, Args)]
pub struct LinuxArgs {
    /// The kernel: a bzImage (vmlinuz) or an ELF vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// A raw disk image or a block device; with `:ro` the guest cannot write to it. Its format is never guessed
    #[arg(long = "disk", value_name = "FILE[:ro]")]
    pub disks: Vec<OsString>,
    /// Streams between guest and host: who connects to the Unix socket PATH and sends `CONNECT port` reaches that port of
    /// the guest; the guest's connections go to the Unix socket PATH_port. N is the guest's context id
    #[arg(long, value_name = "PATH[,cid=N]", value_parser = parse_vsock)]
    pub vsock: Option<Vsock>,
    /// A balloon: the guest gives back memory that it does not use
    #[arg(long)]
    pub balloon: bool,
    /// Take commands at this Unix socket, one a line: `balloon SIZE` (memory that the guest shall do without), `stats`, `power`
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// The network; without these flags there is no card.
    #[command(flatten)]
    pub network: NetArgs,
    /// The kernel command line, after what the monitor says itself
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cmdline: String,
    /// Only what --cmdline says
    #[arg(long)]
    pub bare_cmdline: bool,
    /// Guest memory, for example 256M or 2G; the host gives only what the guest touches
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "512M")]
    pub memory: u64,
    /// Number of vCPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u32,
    /// How to enter the kernel
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub entry: EntryChoice,
    /// Print the time from the monitor's start until the guest writes the byte 123 to physical address 0xcffff000
    #[arg(long)]
    pub boot_timer: bool,
    /// Print one line for each phase of the run on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub timings: Option<TimingsFormat>,
}

/// What `--vsock` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vsock {
    /// The host's Unix socket.
    pub path: PathBuf,
    /// The guest's context id.
    pub cid: u32,
}

fn parse_vsock(text: &str) -> Result<Vsock, String> {
    let (path, cid) = match text.rsplit_once(",cid=") {
        Some((path, cid)) => (path, cid.parse().unwrap_or(0)),
        None => (text, GUEST_CID),
    };
    // 0 to 2 and the last are spoken for (specification 5.10.4).
    if (3..u32::MAX).contains(&cid) {
        let path = path.into();
        Ok(Vsock { path, cid })
    } else {
        Err("a guest's context id is a number from 3 to 4294967294".into())
    }
}

/// How `--entry` can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EntryChoice {
    /// PVH where the kernel offers it, else the 64-bit entry.
    Auto,
    /// PVH.
    Pvh,
    /// The 64-bit entry.
    Linux64,
}
