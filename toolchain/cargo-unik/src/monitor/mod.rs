//! Starting a monitor on an image: which one, and the child process around it.
//!
//! - [`unik`]: our own, this very binary started again under the name `unik-vmm`.
//! - [`qemu`]: `qemu-system-x86_64 -M microvm`, with KVM or emulated.
//! - [`cards`]: its network cards.
//! - [`relay`]: the standard streams of QEMU's consoles.
//! - [`child`]: signals in, exit code out.
//! - [`config`]: the run configuration that QEMU hands over as first module (our monitor writes its own).

pub mod cards;
pub mod child;
pub mod config;
pub mod kvm;
pub mod qemu;
pub mod relay;
pub mod tsc;
pub mod unik;

use crate::args::Monitor;
use crate::args::run::RunArgs;
use crate::exit_codes;
use crate::shell::Shell;
use std::ffi::OsString;
use std::path::Path;

/// Why a program was not run.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A child process.
    #[error("cannot start `{program}`: {source}{hint}")]
    Start {
        /// Its name.
        program: String,
        /// The reason.
        source: std::io::Error,
        /// What to do, with the punctuation before it.
        hint: &'static str,
    },
    /// Neither KVM nor QEMU.
    #[error(
        "/dev/kvm {0}, and qemu-system-x86_64 is not installed; `cargo unik doctor` shows the command that mends it"
    )]
    Nothing(&'static str),
    /// Signals, temporary files, pipes.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The image.
    #[error("cannot read `{path}`: {reason}")]
    Image {
        /// The image file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// A wish that the monitor cannot fulfil.
    #[error("{0}")]
    Wish(String),
}

impl MonitorError {
    /// See [`exit_codes`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { .. } | Self::Host { .. } => exit_codes::HOST,
            Self::Nothing(_) => exit_codes::UNAVAILABLE,
            Self::Image { .. } => exit_codes::NO_INPUT,
            Self::Wish(_) => exit_codes::CONFIG,
        }
    }
}

/// One run of one image.
#[derive(Debug)]
pub struct Job<'a> {
    /// The image file.
    pub image: &'a Path,
    /// The machine.
    pub machine: &'a RunArgs,
    /// The environment beside the image's own; the later of the same name wins. (`machine.env` is in here.)
    pub env: Vec<(OsString, OsString)>,
    /// The program's arguments; `None` leaves those of the image.
    pub args: Option<&'a [OsString]>,
}

/// Boots the image, waits for its end and returns the exit code.
pub fn run(job: &Job<'_>, shell: &Shell) -> Result<u8, MonitorError> {
    match choose(job.machine, shell)? {
        Chosen::Unik => unik::run(job, shell),
        Chosen::Qemu { kvm } => qemu::run(job, kvm, shell),
    }
}

/// What was chosen.
enum Chosen {
    Unik,
    Qemu { kvm: bool },
}

fn choose(machine: &RunArgs, shell: &Shell) -> Result<Chosen, MonitorError> {
    let accel = machine.qemu_accel.as_deref();
    match (machine.monitor, accel, kvm::probe()) {
        (Some(Monitor::Unik), ..) | (None, _, Ok(_)) => Ok(Chosen::Unik),
        (Some(Monitor::Qemu), Some(accel), _) => Ok(Chosen::Qemu {
            kvm: accel == "kvm",
        }),
        (Some(Monitor::Qemu), None, Ok(_)) => Ok(Chosen::Qemu { kvm: true }),
        (_, _, Err(why)) if !qemu::installed() => Err(MonitorError::Nothing(why.words())),
        (_, _, Err(why)) => {
            let words = why.words();
            shell.note(format_args!(
                "/dev/kvm {words}; running under QEMU's emulation, which is slow"
            ));
            Ok(Chosen::Qemu { kvm: false })
        }
    }
}

/// One sentence for what this version does not have; said before anything is built.
pub fn refuse_volumes(machine: &RunArgs) -> Result<(), MonitorError> {
    match machine.volume.first() {
        None => Ok(()),
        Some(volume) => Err(MonitorError::Wish(format!(
            "cannot share {volume}: this version packs files into the image instead (--files)"
        ))),
    }
}
