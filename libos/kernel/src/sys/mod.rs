//! System calls: from number to function, by the one table in `unik_abi::syscalls`.
//!
//! A call is written as a function of its Linux name taking `u64` arguments and returning [`Result<u64>`], in the module of its
//! subject; its row in the table says how it is called. Functions run with the big lock held and may block ([`crate::sched::block`]),
//! but keep no `Locked` borrow across that.
//!
//! - [`io`], [`file`], [`names`], [`stat`], [`poll`], [`event`]: files. [`socket`]: sockets.
//! - [`rows`]: what there is to say about each call.
//! - [`memory`], [`thread`], [`signal`], [`time`], [`identity`], [`misc`]: everything that is not about files.

use crate::arch::frame::{Frame, NO_SYSCALL};
use crate::errno::{Errno, Result};
use crate::lock::{self, Locked};
use crate::sched;
use alloc::collections::BTreeMap;
use alloc::format;

pub mod event;
pub mod file;
pub mod futex;
pub mod identity;
pub mod io;
pub mod memory;
pub mod misc;
pub mod names;
pub mod poll;
mod rows;
pub mod signal;
pub mod socket;
pub mod stat;
pub mod thread;
pub mod time;

/// The functions of the table by their names, apart from everything else in scope.
mod calls {
    pub use super::{
        event::*, file::*, futex::*, identity::*, io::*, memory::*, misc::*, names::*, poll::*,
        signal::*, socket::*, stat::*, thread::*, time::*,
    };
}

/// An argument as its kind says: the upper half of a register that holds 32 bits is the caller's rubbish.
macro_rules! arg {
    (fd $v:expr) => {
        low($v)
    };
    (int $v:expr) => {
        low($v)
    };
    (hex $v:expr) => {
        low($v)
    };
    (oct $v:expr) => {
        low($v)
    };
    ($kind:tt $v:expr) => {
        $v
    };
}

fn low(register: u64) -> u64 {
    u64::from(register as u32)
}

macro_rules! call {
    ($name:ident, $f:ident,) => {
        calls::$name()
    };
    ($name:ident, $f:ident, $a:tt) => {
        calls::$name(arg!($a $f.rdi))
    };
    ($name:ident, $f:ident, $a:tt $b:tt) => {
        calls::$name(arg!($a $f.rdi), arg!($b $f.rsi))
    };
    ($name:ident, $f:ident, $a:tt $b:tt $c:tt) => {
        calls::$name(arg!($a $f.rdi), arg!($b $f.rsi), arg!($c $f.rdx))
    };
    ($name:ident, $f:ident, $a:tt $b:tt $c:tt $d:tt) => {
        calls::$name(arg!($a $f.rdi), arg!($b $f.rsi), arg!($c $f.rdx), arg!($d $f.r10))
    };
    ($name:ident, $f:ident, $a:tt $b:tt $c:tt $d:tt $e:tt) => {
        calls::$name(arg!($a $f.rdi), arg!($b $f.rsi), arg!($c $f.rdx), arg!($d $f.r10), arg!($e $f.r8))
    };
    ($name:ident, $f:ident, $a:tt $b:tt $c:tt $d:tt $e:tt $g:tt) => {
        calls::$name(arg!($a $f.rdi), arg!($b $f.rsi), arg!($c $f.rdx), arg!($d $f.r10), arg!($e $f.r8), arg!($g $f.r9))
    };
}

macro_rules! answer {
    (full $name:ident $number:literal $f:ident $($kind:tt)*) => { call!($name, $f, $($kind)*) };
    (partial $name:ident $number:literal $f:ident $($kind:tt)*) => { call!($name, $f, $($kind)*) };
    ($state:ident $name:ident $number:literal $f:ident $($kind:tt)*) => { missing($number, $f.rip) };
}

macro_rules! dispatch {
    ($($number:literal $name:ident($($arg:ident: $kind:tt),*) $state:ident $note:literal;)*) => {
        fn run(f: &Frame) -> Result<u64> {
            match f.orig_rax {
                $($number => answer!($state $name $number f $($kind)*),)*
                number => missing(number, f.rip),
            }
        }
    };
}

unik_abi::for_each_syscall!(dispatch);

/// Calls that need no lock: they read what never changes under the caller.
fn run_unlocked(f: &Frame) -> Option<u64> {
    match f.orig_rax {
        39 => Some(crate::process::PID as u64),
        186 => Some(sched::current().tid as u64),
        102 | 104 | 107 | 108 => Some(0),
        228 => time::clock_gettime_fast(f.rdi, f.rsi),
        309 => misc::getcpu_fast(f.rdi, f.rsi),
        _ => None,
    }
}

/// Counts of calls: implemented ones by number, and those that answered ENOSYS.
static COUNTS: Locked<BTreeMap<u64, u64>> = Locked::new(BTreeMap::new());
static REPORTED: Locked<BTreeMap<u64, u64>> = Locked::new(BTreeMap::new());

fn missing(number: u64, rip: u64) -> Result<u64> {
    let row = rows::find(number);
    if row.is_some_and(|row| row.quiet) {
        return Err(Errno::ENOSYS);
    }
    let first = {
        let mut reported = REPORTED.get();
        let count = reported.entry(number).or_insert(0);
        *count += 1;
        *count == 1
    };
    if first {
        let name = row.map_or("unknown", |row| row.name);
        let why = row.map_or("no such system call", |row| {
            if row.note.is_empty() {
                "not implemented"
            } else {
                row.note
            }
        });
        crate::console::warn(&format!(
            "system call {name} ({number}) at {rip:#x} answered ENOSYS: {why}"
        ));
    }
    Err(Errno::ENOSYS)
}

/// Prints what `--syscall-summary` asks for.
pub fn print_summary() {
    if !crate::config::get().syscall_summary {
        return;
    }
    crate::console::warn("system calls used:");
    let line = |number: u64, count: u64, what: &str| {
        let name = rows::find(number).map_or("unknown", |row| row.name);
        crate::console::warn(&format!("  {count:>10}  {name}{what}"));
    };
    let counts = core::mem::take(&mut *COUNTS.get());
    let reported = core::mem::take(&mut *REPORTED.get());
    for (number, count) in counts {
        line(
            number,
            count,
            if reported.contains_key(&number) {
                " (not implemented: ENOSYS)"
            } else {
                ""
            },
        );
    }
}

/// Entry from `entry.s`. Returns whether the program's registers changed beyond rax, so that the general exit must be taken.
#[unsafe(no_mangle)]
extern "C" fn syscall_handler(frame: &mut Frame) -> bool {
    if let Some(value) = run_unlocked(frame) {
        frame.rax = value;
        return false;
    }
    lock::acquire();
    if crate::config::get().syscall_summary {
        *COUNTS.get().entry(frame.orig_rax).or_insert(0) += 1;
    }
    let result = run(frame);
    frame.rax = match result {
        Ok(value) => value,
        Err(errno) => (-(errno.0 as i64)) as u64,
    };
    let general = crate::traps::before_return(frame, result.err());
    lock::release();
    // After rt_sigreturn the frame is the interrupted code's: rcx, r11 and the flags count, too.
    general || frame.orig_rax == NO_SYSCALL
}
