//! Ports and the control page: how a guest reports and a monitor signals.

/// Debug console: a byte written here is early or last-words text (QEMU: `isa-debugcon`, port 0xe9).
pub const PORT_DEBUG: u16 = 0xe9;

/// Exit port: a 32-bit write ends the virtual machine (QEMU: `isa-debug-exit,iobase=0xf4,iosize=4`).
/// The value is an [`ExitReport`] packed by [`ExitReport::to_u32`]. Under a monitor other than Unik's (no `monitor=unik` in the configuration) the library OS
/// first writes the line `\nunik-exit: VALUE\n` (decimal) to [`PORT_DEBUG`], because QEMU's own status keeps only 7 bits.
pub const PORT_EXIT: u16 = 0xf4;

/// Yield port: a 32-bit write says that this vCPU spins on a lock whose holder does not run; the monitor gives the rest of its
/// time slice to others. A monitor that does not know the port ignores it.
pub const PORT_YIELD: u16 = 0xfc;

/// Register batch port, under a monitor that announces it by the configuration record `batch`: a 32-bit write of the physical address of
/// a [`RegisterBatch`] performs all its accesses in one exit. Elsewhere the accesses are made one by one.
pub const PORT_BATCH: u16 = 0xf8;

/// The most accesses of one batch.
pub const BATCH_LEN: usize = 64;

/// One access of a batch to a device register: 32 bits wide.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RegisterAccess {
    /// Physical address of the register.
    pub paddr: u64,
    /// What to write; after a read, what was read.
    pub value: u32,
    /// 1 = write, 0 = read.
    pub write: u32,
}

/// What [`PORT_BATCH`] points to: below 4 GiB, 8-byte aligned. The accesses are made in order, exactly as if the vCPU made them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RegisterBatch {
    /// Number of valid entries in `accesses`, at most [`BATCH_LEN`].
    pub count: u32,
    /// 0.
    pub reserved: u32,
    /// The accesses.
    pub accesses: [RegisterAccess; BATCH_LEN],
}

/// Interrupt vector by which the monitor says "look at the signal mailbox" (sent as an MSI to APIC id 0).
pub const CONTROL_VECTOR: u8 = 0x21;

/// Vector of global system interrupt 0; GSI `n` is routed by the library OS to `+ n` through the I/O APIC.
pub const GSI_VECTOR_BASE: u8 = 0x30;

/// How a virtual machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReport {
    /// The program exited with this code (`exit_group`).
    Exited(u8),
    /// The program was killed by this signal.
    Signaled(u8),
    /// The library OS panicked; text in the control page.
    Panic,
    /// Memory ran out: the program was killed; text in the control page.
    OutOfMemory,
    /// Ring-0 code met an exception it cannot handle; registers in the control page.
    NucleusFault,
    /// The library OS refused to start; text in the control page.
    Refused,
}

impl ExitReport {
    /// Packs as `kind << 8 | code`.
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::Exited(code) => code as u32,
            Self::Signaled(signal) => 0x100 | signal as u32,
            Self::Panic => 0x200,
            Self::OutOfMemory => 0x300,
            Self::NucleusFault => 0x400,
            Self::Refused => 0x500,
        }
    }

    /// Undoes [`Self::to_u32`]; `None` for a value no library OS writes.
    pub const fn from_u32(value: u32) -> Option<Self> {
        let code = (value & 0xff) as u8;
        match (value >> 8, code) {
            (0, _) => Some(Self::Exited(code)),
            (1, 1..=64) => Some(Self::Signaled(code)),
            (2, 0) => Some(Self::Panic),
            (3, 0) => Some(Self::OutOfMemory),
            (4, 0) => Some(Self::NucleusFault),
            (5, 0) => Some(Self::Refused),
            _ => None,
        }
    }
}

/// Boot phases that the guest stamps with its TSC into [`ControlPage::phases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// First ring-0 instruction in 64-bit mode.
    Entered = 0,
    /// First ring-3 instruction of the library OS.
    LibosStart = 1,
    /// The library OS is ready and about to jump to the program's entry point.
    LibosReady = 2,
    /// The program's `main` (its first system call after libc's start-up where `main` cannot be seen).
    Main = 3,
    /// The program ended.
    Exit = 4,
}

/// Number of phases.
pub const PHASES: usize = 5;

/// Bytes of text in the control page.
pub const MESSAGE_LEN: usize = 1024;

/// The page at `layout::CONTROL_PAGE_PADDR`. A monitor reads it after the guest ended and believes none of it
/// (it is text and numbers to print, lengths are clamped).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ControlPage {
    /// TSC at each [`Phase`], 0 when not reached.
    pub phases: [u64; PHASES],
    /// Bit `n-1` set by the monitor: deliver signal `n` to the program. Cleared by the library OS with an atomic exchange. Then [`CONTROL_VECTOR`] is raised.
    pub signals: u64,
    /// Signals that the program handles or ignores itself (set by the library OS on rt_sigaction), same bits.
    pub handled: u64,
    /// Faulting instruction pointer of a crash.
    pub fault_rip: u64,
    /// Faulting address (CR2).
    pub fault_addr: u64,
    /// Exception vector.
    pub fault_vector: u64,
    /// Exception error code.
    pub fault_error: u64,
    /// Stack pointer.
    pub fault_rsp: u64,
    /// Load base of the program (0 unless position independent), for symbols.
    pub program_base: u64,
    /// Length of the text.
    pub message_len: u64,
    /// What happened, UTF-8.
    pub message: [u8; MESSAGE_LEN],
    /// Bit `n` set by the monitor: nobody reads what the program writes to descriptor `n` (1 or 2) any more; such a write fails with
    /// EPIPE. Then [`CONTROL_VECTOR`] is raised. Never cleared.
    pub hangups: u64,
}
