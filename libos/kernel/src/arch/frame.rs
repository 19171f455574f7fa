//! A program's registers as the entries save them on the thread's library-OS stack.

/// Saved registers; the layout that `entry.s` pushes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Frame {
    /// xmm0-15.
    pub xmm: [u128; 16],
    pad: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call's number; -1 (as u64) when this is no system call.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Frame>() == 432);

/// Ring-3 code segment.
pub const USER_CS: u64 = 0x33;
/// Ring-3 stack segment.
pub const USER_SS: u64 = 0x2b;
/// Interrupts enabled, and the bit that is always set.
pub const RFLAGS: u64 = 0x202;
/// Flags that a program may choose: CF PF AF ZF SF TF DF OF NT AC ID.
pub const RFLAGS_USER: u64 = 0x24_4dd5;
/// `orig_rax` of a frame that is no system call.
pub const NO_SYSCALL: u64 = u64::MAX;

impl Frame {
    /// Registers of a program that starts at `rip` with stack `rsp`, all else zero.
    pub const fn start(rip: u64, rsp: u64) -> Self {
        Self {
            xmm: [0; 16],
            pad: 0,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: NO_SYSCALL,
            rip,
            cs: USER_CS,
            rflags: RFLAGS,
            rsp,
            ss: USER_SS,
        }
    }
}
