//! The errors of each stage, folded here into exit codes.

use unik_host::disk::DiskError;
use unik_host::kvm::KvmError;
use unik_host::memory::MemoryError;

use crate::exit_codes;
use crate::handover::HandoverError;
use crate::linux::LinuxError;
use crate::loader::LoadError;
use crate::loader::linux::KernelError;
use crate::net::NetError;
use crate::plan::PlanError;

/// What can stop a run before the guest does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The wishes.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A Linux kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Wishes for a Linux machine.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The boot area.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Another refusal of the host.
    #[error("the host refused to {what}: {source}")]
    Host {
        /// What was wanted.
        what: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps a host error with what was wanted.
    pub(crate) fn host(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Host { what, source }
    }

    /// The exit code of this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Load(LoadError::Open { .. } | LoadError::Read { .. }) => exit_codes::NO_INPUT,
            Self::Disk(DiskError::Open { .. }) | Self::Kernel(KernelError::Read { .. }) => {
                exit_codes::NO_INPUT
            }
            Self::Net(error) | Self::Plan(PlanError::Net(error)) => error.exit_code(),
            Self::Load(_)
            | Self::Kernel(KernelError::Foreign { .. } | KernelError::Damaged { .. }) => {
                exit_codes::DATA
            }
            Self::Plan(_)
            | Self::Handover(_)
            | Self::Kernel(_)
            | Self::Linux(_)
            | Self::Disk(_) => exit_codes::CONFIG,
            Self::Memory(MemoryError::Outside { .. } | MemoryError::Size(_)) => exit_codes::CONFIG,
            Self::Kvm(
                KvmError::Missing | KvmError::Denied | KvmError::Open(_) | KvmError::Capability(_),
            ) => exit_codes::UNAVAILABLE,
            Self::Kvm(KvmError::Call { .. }) | Self::Memory(_) | Self::Host { .. } => {
                exit_codes::HOST
            }
        }
    }
}
