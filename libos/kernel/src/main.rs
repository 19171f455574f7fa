//! The Unik library OS: runs one unmodified static Linux program in ring 3 of a virtual machine.
//!
//! Way in: `arch/nucleus.s` (`pvh_entry`, ring 0) -> `arch/entry.s` (`libos_start`, ring 3) -> [`boot`] -> [`process`] (the program's first
//! thread) -> [`sched::idle`]. The program comes back through `arch/entry.s` into [`sys`] (system calls) and [`traps`] (faults, interrupts).
//!
//! - [`arch`]: processor, nucleus, entries. [`mm`]: memory. [`sched`]: threads. [`signal`]: signals. [`sys`]: system calls.
//! - [`vfs`]: the file systems joined. [`net`]: the network joined. [`console`]: standard streams. [`file`]: what file systems need of us. [`time`], [`random`], [`config`], [`power`]: small services.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod boot;
mod config;
mod console;
mod errno;
mod file;
mod interrupts;
mod lock;
mod mem_functions;
mod mm;
mod net;
mod power;
mod process;
mod random;
mod sched;
mod signal;
mod sys;
mod time;
mod traps;
mod vfs;
