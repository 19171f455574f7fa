//! Arguments and the image's manifest to one resolved plan. Flags win over the manifest, the manifest over defaults.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use unik_abi::{MAX_VCPUS, PAGE_SIZE, layout};

use crate::cli::{RunArgs, TimingsFormat};
use crate::config::{Records, last};
use crate::loader::Image;
use crate::net::{self, Card, NetError, Wishes};
use crate::terminal;

/// Guest memory when nobody says otherwise. Backed lazily: a reservation costs nothing.
const DEFAULT_MEMORY: u64 = 1 << 30;

/// The most that one guest can have: what the library OS's physical map covers.
const MAX_MEMORY: u64 = 256 << 30;

/// Wishes that cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Number of vCPUs out of range.
    #[error("cannot start {0} vCPUs: give --cpus a number from 1 to {MAX_VCPUS}")]
    Cpus(u64),
    /// Memory out of range.
    #[error("{wanted} bytes of memory do not do for this image: give --memory from {}M to {}G", least >> 20, MAX_MEMORY >> 30)]
    Memory {
        /// Bytes asked for.
        wanted: u64,
        /// The least that can work, a multiple of a megabyte.
        least: u64,
    },
    /// An environment setting without `=` or without a name.
    #[error("`{}` sets no environment variable: write -e NAME=VALUE", .0.display())]
    Env(OsString),
    /// The manifest asks for something unreadable.
    #[error("the image's manifest has `{key}={}`, which is not a number: rebuild the image", value.display())]
    Manifest {
        /// Which record.
        key: &'static str,
        /// Its value.
        value: OsString,
    },
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A value with a NUL byte.
    #[error("an argument or environment variable contains a NUL byte")]
    Nul,
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program's name for messages.
    pub name: String,
    /// Bytes of RAM, a multiple of the page size.
    pub memory: u64,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Network cards.
    pub cards: Vec<Card>,
    /// `--pcap`.
    pub pcap: Option<PathBuf>,
    /// The part of the run configuration that does not depend on the machine.
    pub records: Records,
    /// `--timings`.
    pub timings: Option<TimingsFormat>,
    /// `--quiet`.
    pub quiet: bool,
}

impl Plan {
    /// Resolves `args` for `image`.
    pub fn new(args: &RunArgs, image: &Image) -> Result<Self, PlanError> {
        let manifest = image.manifest.as_deref().unwrap_or_default();
        let exe =
            last(manifest, "exe").unwrap_or_else(|| image.path.file_stem().unwrap_or_default());
        let name = Path::new(exe).file_name().unwrap_or(exe);
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            memory: memory(args, manifest, image.end())?,
            cpus: cpus(args, manifest)?,
            cards: net::resolve(&args.network, &Wishes::of(manifest)?)?,
            pcap: args.network.pcap.clone(),
            records: records(args, manifest, name)?,
            timings: args.timings,
            quiet: args.quiet,
        })
    }
}

fn memory(args: &RunArgs, manifest: &[u8], image_end: u64) -> Result<u64, PlanError> {
    let wanted = match args.memory {
        Some(bytes) => bytes,
        None => {
            number(manifest, "memory")?.unwrap_or(DEFAULT_MEMORY.max(image_end.saturating_mul(2)))
        }
    };
    let least = (image_end.max(layout::IMAGE_PADDR) + (1 << 20)).next_multiple_of(1 << 20);
    if wanted < least || wanted > MAX_MEMORY {
        return Err(PlanError::Memory { wanted, least });
    }
    Ok(wanted / PAGE_SIZE * PAGE_SIZE)
}

fn cpus(args: &RunArgs, manifest: &[u8]) -> Result<u8, PlanError> {
    let wanted = match args.cpus {
        Some(count) => u64::from(count),
        None => number(manifest, "cpus")?.unwrap_or(1),
    };
    match u8::try_from(wanted) {
        Ok(count) if count >= 1 && usize::from(count) <= MAX_VCPUS => Ok(count),
        _ => Err(PlanError::Cpus(wanted)),
    }
}

fn number(manifest: &[u8], key: &'static str) -> Result<Option<u64>, PlanError> {
    let Some(value) = last(manifest, key) else {
        return Ok(None);
    };
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| PlanError::Manifest {
        key,
        value: value.into(),
    })
}

fn records(args: &RunArgs, manifest: &[u8], name: &OsStr) -> Result<Records, PlanError> {
    let mut records = Records::default();
    terminal::describe(&mut records, manifest);
    let mut add = |key: &str, value: &OsStr| {
        if records.add(key, value) {
            Ok(())
        } else {
            Err(PlanError::Nul)
        }
    };
    let argv0 = unik_abi::config::records(manifest)
        .find(|(key, _)| *key == b"arg")
        .map(|(_, v)| OsStr::from_bytes(v));
    if !args.args.is_empty() || argv0.is_none() {
        add("arg", argv0.unwrap_or(name))?;
        args.args.iter().try_for_each(|arg| add("arg", arg))?;
    }
    for setting in &args.env {
        if !matches!(
            setting.as_bytes().iter().position(|&b| b == b'='),
            Some(1..)
        ) {
            return Err(PlanError::Env(setting.clone()));
        }
        add("env", setting)?;
    }
    if let Some(hostname) = &args.hostname {
        add("hostname", hostname.as_ref())?;
    }
    if args.syscall_summary {
        add("syscall_summary", "1".as_ref())?;
    }
    Ok(records)
}
