//! Binds the system calls of a program to the library OS: replaces `syscall` and `cpuid` sites by jumps to trampolines.
//!
//! [`bind`] finds the sites (`sweep`), everything that might be jumped to near them (`targets`), chooses for each site a window of
//! whole instructions that nothing jumps into (`window`), and writes the jump and the trampoline (`trampoline`, shapes in
//! `unik_abi::gs`). A site without a safe window stays as it is: the processor's own `syscall` path gives the same answer, slowly.
//! So every rule here may err towards leaving a site alone, never the other way.

mod sweep;
mod targets;
mod trampoline;
pub(crate) use trampoline::Code;
mod window;

use serde::{Deserialize, Serialize};

use crate::program::Program;
use window::Window;

/// What a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SiteKind {
    /// `syscall`.
    Syscall,
    /// `cpuid`.
    Cpuid,
}

/// Why a site stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its neighbours cannot be moved, or something jumps between them.
    NoWindow,
    /// The trampolines are farther away than a jump reaches.
    OutOfReach,
    /// A signal return that unwinders recognise by its bytes.
    SignalReturn,
    /// Decoding from different places disagrees on whether it is an instruction.
    Uncertain,
}

impl Reason {
    /// In words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NoWindow => "its neighbours cannot be moved",
            Self::OutOfReach => "the program is larger than a jump reaches",
            Self::SignalReturn => "unwinders recognise a signal return by its bytes",
            Self::Uncertain => "it may be data",
        }
    }
}

/// Sites of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bound by moving instructions that stand before the site.
    pub before: usize,
    /// Bound by moving instructions that stand after it.
    pub after: usize,
    /// Left as they are.
    pub unbound: usize,
}

impl Counts {
    /// Bound sites.
    pub fn bound(self) -> usize {
        self.before + self.after
    }
}

/// A site left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbound {
    /// Its address in the program file.
    pub vaddr: u64,
    /// What it does.
    pub kind: SiteKind,
    /// Why.
    pub reason: Reason,
}

/// What was found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindReport {
    /// `syscall` sites.
    pub syscall: Counts,
    /// `cpuid` sites.
    pub cpuid: Counts,
    /// Every site left as it is.
    pub unbound: Vec<Unbound>,
}

impl BindReport {
    fn counts(&mut self, kind: SiteKind) -> &mut Counts {
        match kind {
            SiteKind::Syscall => &mut self.syscall,
            SiteKind::Cpuid => &mut self.cpuid,
        }
    }
}

/// Bytes to be written over the program's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Address in the program.
    pub vaddr: u64,
    /// New bytes.
    pub bytes: Vec<u8>,
}

/// A program's rewriting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Rewritten places, in address order, none overlapping.
    pub patches: Vec<Patch>,
    /// Code to be placed, read + execute, at the address given to [`bind`]; empty when nothing was bound.
    pub trampolines: Vec<u8>,
    /// Counts and reasons.
    pub report: BindReport,
}

/// Rewrites the sites of `program`, with trampolines at `trampolines_vaddr`.
pub fn bind(program: &Program<'_>, trampolines_vaddr: u64) -> Bound {
    let sweep = sweep::sweep(program);
    let targets = targets::find(program, &sweep);
    let mut bound = Bound::default();
    let mut occupied = 0;
    for site in &sweep.sites {
        let result = place(program, site, &targets, occupied).and_then(|window| {
            let at = trampolines_vaddr + bound.trampolines.len() as u64;
            let made = trampoline::make(site, &window, at).ok_or(Reason::OutOfReach)?;
            Ok((window, made))
        });
        match result {
            Ok((window, made)) => {
                occupied = window.end;
                let counts = bound.report.counts(site.kind);
                *if window.moves_before() {
                    &mut counts.before
                } else {
                    &mut counts.after
                } += 1;
                bound.trampolines.extend(made.trampoline);
                bound.patches.push(Patch {
                    vaddr: window.start,
                    bytes: made.patch,
                });
            }
            Err(reason) => {
                bound.report.counts(site.kind).unbound += 1;
                bound.report.unbound.push(Unbound {
                    vaddr: site.vaddr(),
                    kind: site.kind,
                    reason,
                });
            }
        }
    }
    bound
}

fn place(
    program: &Program<'_>,
    site: &sweep::Site,
    targets: &targets::Targets,
    occupied: u64,
) -> Result<Window, Reason> {
    if !site.certain {
        return Err(Reason::Uncertain);
    }
    if signal_return(program, site) {
        return Err(Reason::SignalReturn);
    }
    window::choose(site, targets, occupied).ok_or(Reason::NoWindow)
}

/// Whether the site is `mov $15,%rax; syscall` in a function without unwinding information: unwinders know the frame above
/// a signal handler by just these bytes (libgcc's and LLVM's fallback for x86-64).
fn signal_return(program: &Program<'_>, site: &sweep::Site) -> bool {
    const MOV_15_RAX: [u8; 7] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0];
    let start = site.vaddr().wrapping_sub(MOV_15_RAX.len() as u64);
    site.kind == SiteKind::Syscall
        && program.bytes_at(start, MOV_15_RAX.len()) == Some(&MOV_15_RAX[..])
        && !unwindable(program, start)
}

/// Whether a frame description starts at `at`, or one byte early as glibc's does (a return address minus one then finds it).
/// Not every linker writes a table of them, so this looks for the 4-byte distance that a description holds.
fn unwindable(program: &Program<'_>, at: u64) -> bool {
    let named = |vaddr: u64, word: &[u8; 4]| {
        at.wrapping_sub(vaddr.wrapping_add_signed(i64::from(i32::from_le_bytes(*word)))) <= 1
    };
    let data = program.segments.iter().filter(|s| !s.executable());
    data.flat_map(targets::aligned::<4>)
        .any(|(vaddr, word)| named(vaddr, word))
}
