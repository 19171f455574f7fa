//! `siginfo_t` (sigaction(2)): what comes with a signal, and its 128 bytes in the program's layout.

/// Address not mapped.
pub const SEGV_MAPERR: i32 = 1;
/// Access not allowed.
pub const SEGV_ACCERR: i32 = 2;
/// Misaligned.
pub const BUS_ADRALN: i32 = 1;
/// Beyond the end of a file.
pub const BUS_ADRERR: i32 = 2;
/// Division by zero or overflow.
pub const FPE_INTDIV: i32 = 1;
/// Illegal operand.
pub const ILL_ILLOPN: i32 = 2;
/// Single step.
pub const TRAP_TRACE: i32 = 2;
/// Sent by the kernel.
pub const SI_KERNEL: i32 = 0x80;
/// kill(2).
pub const SI_USER: i32 = 0;
/// tgkill(2).
pub const SI_TKILL: i32 = -6;
/// A POSIX timer.
pub const SI_TIMER: i32 = -2;

/// A signal with its information.
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    /// Number, 1..=64.
    pub signo: u32,
    /// SI_* or a code of the signal.
    pub code: i32,
    /// The union, from byte 16 of `siginfo_t` on.
    pub payload: [u64; 3],
}

impl Info {
    /// A fault at `address`.
    pub fn fault(signo: u32, code: i32, address: u64) -> Self {
        Self {
            signo,
            code,
            payload: [address, 0, 0],
        }
    }

    /// From the kernel.
    pub fn kernel(signo: u32) -> Self {
        Self {
            signo,
            code: SI_KERNEL,
            payload: [0; 3],
        }
    }

    /// From a process (pid and uid in the union).
    pub fn user(signo: u32, code: i32, pid: u32) -> Self {
        Self {
            signo,
            code,
            payload: [pid as u64, 0, 0],
        }
    }

    /// From a POSIX timer.
    pub fn timer(signo: u32, id: i32, value: u64) -> Self {
        Self {
            signo,
            code: SI_TIMER,
            payload: [id as u32 as u64, value, 0],
        }
    }

    /// The program's 128 bytes.
    pub fn to_bytes(self) -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[..4].copy_from_slice(&self.signo.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        for (chunk, word) in bytes[16..40].chunks_exact_mut(8).zip(self.payload) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From the program's bytes (rt_sigqueueinfo).
    pub fn from_bytes(signo: u32, bytes: &[u8; 128]) -> Self {
        let word = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0u64, |word, &byte| word << 8 | byte as u64)
        };
        Self {
            signo,
            code: word(8) as u32 as i32,
            payload: [word(16), word(24), word(32)],
        }
    }
}
