//! Every exit code of `unik-vmm`, in one place.
//!
//! | code | meaning |
//! |---|---|
//! | 0 to 255 | the program's own exit code |
//! | 128 + N | the program was killed by signal N; 137 also when memory ran out, as on Linux |
//! | 64 | the command line was wrong |
//! | 65 | the image is not one that can be booted, or needs another version |
//! | 66 | the image cannot be read |
//! | 69 | KVM is missing or may not be used |
//! | 70 | the guest crashed in a way that is not the program's: library OS panic, triple fault, unknown instruction |
//! | 71 | the host refused something: memory, threads, a KVM call |
//! | 73 | a file cannot be written: the copy of the traffic |
//! | 75 | a Linux guest asked for a reset: `reboot`, or `panic=N` of a kernel without the pvpanic driver. 0 is a guest that switched itself off |
//! | 77 | ended from the terminal (Ctrl-A x) |
//! | 78 | the image and the wishes do not go together: arguments too long, memory too small, library OS refused to start |
//!
//! The tool's own codes (those of BSD's `sysexits.h`) can also be a program's; where it matters, the line on standard error tells.

/// Wrong command line.
pub const USAGE: u8 = 64;
/// Not a bootable image.
pub const DATA: u8 = 65;
/// The image cannot be read.
pub const NO_INPUT: u8 = 66;
/// No KVM.
pub const UNAVAILABLE: u8 = 69;
/// The guest crashed, and not through the program's own signal.
pub const CRASH: u8 = 70;
/// The host refused something.
pub const HOST: u8 = 71;
/// A file cannot be written.
pub const NO_OUTPUT: u8 = 73;
/// The guest asked for a reset.
pub const GUEST_RESET: u8 = 75;
/// The user ended the guest from the terminal.
pub const STOPPED: u8 = 77;
/// Image and wishes do not go together.
pub const CONFIG: u8 = 78;

/// The code for a program killed by `signal`.
pub const fn signal(signal: u8) -> u8 {
    128u8.wrapping_add(signal)
}

/// The code for a guest that ran out of memory: what Linux's out-of-memory killer leaves (SIGKILL).
pub const OUT_OF_MEMORY: u8 = signal(9);
