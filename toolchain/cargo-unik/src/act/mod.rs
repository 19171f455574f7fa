//! The commands: each takes a plan and acts.

pub mod build;
pub mod cargo;
pub mod check;
pub mod doctor;
pub mod inspect;
pub mod link;
pub mod new;
pub mod pack;
pub mod run;
pub mod test;
