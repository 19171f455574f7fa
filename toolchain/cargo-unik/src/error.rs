//! One error for the edge: every stage's error folds into [`Error`], and each has its exit code.

use crate::{act, exit_codes, monitor, plan};

/// Anything that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No plan.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// Cargo, or reading what it said.
    #[error(transparent)]
    Cargo(#[from] act::cargo::CargoError),
    /// No image.
    #[error(transparent)]
    Image(#[from] act::link::LinkError),
    /// Not shown.
    #[error(transparent)]
    Inspect(#[from] act::inspect::InspectError),
    /// Not run.
    #[error(transparent)]
    Monitor(#[from] monitor::MonitorError),
    /// No project written.
    #[error(transparent)]
    New(#[from] act::new::NewError),
    /// A flag's value that only makes sense later.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What the process returns for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Plan(error) => error.exit_code(),
            Self::New(error) => error.exit_code(),
            Self::Cargo(error) => error.exit_code(),
            Self::Image(error) => error.exit_code(),
            Self::Inspect(error) => error.exit_code(),
            Self::Monitor(error) => error.exit_code(),
            Self::Usage(_) => exit_codes::USAGE,
        }
    }

    /// Cargo has already told the user; nothing is to be added.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Cargo(act::cargo::CargoError::Failed { .. }))
    }
}
