//! The monitor: arguments -> plan -> machine -> run loop.
//!
//! - [`cli`]: text to arguments, errors to exit codes.
//! - [`plan`]: arguments and the image's manifest to one resolved [`plan::Plan`].
//! - [`loader`]: image files to guest memory.
//! - [`handover`] and [`config`]: what the guest finds in the boot area.
//! - [`machine`]: the builder of virtual machines, their bus and vCPU threads.
//! - [`run`]: the event loop; signals in, the end out.
//! - [`report`]: how the guest ended, as words and as an exit code.
//! - [`timings`]: `--timings`.
//! - [`exit_codes`]: the table of exit codes.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod error;
pub mod exit_codes;
pub mod handover;
pub mod loader;
pub mod machine;
pub mod plan;
pub mod report;
pub mod run;
pub mod timings;
