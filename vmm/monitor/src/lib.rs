//! The monitor: arguments -> plan -> machine -> run loop.
//!
//! - [`cli`]: text to arguments, errors to exit codes.
//! - [`plan`]: arguments and the image's manifest to one resolved [`plan::Plan`].
//! - [`loader`]: image files to guest memory.
//! - [`linux`]: everything that only a Linux guest needs.
//! - [`handover`] and [`config`]: what the guest finds in the boot area.
//! - [`machine`]: the builder of virtual machines, their bus, devices in their places and vCPU threads.
//! - [`net`]: which network cards a machine gets.
//! - [`streams`], [`input`], [`errors`]: the host's standard streams.
//! - [`terminal`]: what a program learns of the terminal that it is used from.
//! - [`run`]: one run and its event loop; signals in ([`signals`]), the end out.
//! - [`control`]: the page that guest and monitor share.
//! - [`report`]: how the guest ended, as words ([`symbols`], [`signal_names`]) and as an exit code ([`exit_codes`]).
//! - [`timings`]: what `--timings` prints.
//! - [`timezone`]: the host's time zone.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod error;
pub mod errors;
pub mod exit_codes;
pub mod handover;
pub mod input;
pub mod linux;
pub mod loader;
pub mod machine;
pub mod net;
pub mod plan;
pub mod report;
pub mod run;
pub mod signal_names;
pub mod signals;
pub mod streams;
pub mod symbols;
pub mod terminal;
pub mod timezone;
pub mod timings;
