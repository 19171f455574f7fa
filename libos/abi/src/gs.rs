//! Slots of the per-vCPU block (the block that `gs` points to in ring 3) that rewritten program code uses.
//!
//! A rewritten `syscall` site jumps to a trampoline:
//!
//! ```text
//!     <displaced instructions that stood before the syscall>
//!     lea  back(%rip), %rcx
//!     jmp  *%gs:SYSCALL_ENTRY          # 65 ff 24 25 disp32
//!     syscall                          # never run by falling through
//! back:
//!     <displaced instructions that stood after it>
//!     jmp  end-of-window
//! ```
//!
//! Where the instructions before the `syscall` alone make room (most sites), the `syscall` stays in its place, `back` is the original
//! address after it, and the trampoline ends with the `jmp *%gs:`. Either way the two bytes before the return address are a
//! `syscall`: going back by two and restoring rax repeats the call, as after a real one, at the same address as on Linux for kept sites.
//!
//! A rewritten `cpuid` site (all registers but eax, ebx, ecx, edx must survive, the red zone too):
//!
//! ```text
//!     <displaced before>
//!     movb $1, %gs:MASKED
//!     mov  %r11, %gs:CPUID_R11
//!     lea  back(%rip), %r11
//!     jmp  *%gs:CPUID_ENTRY            # answers in eax, ebx, ecx, edx and does jmp *%r11
//! back:
//!     mov  %gs:CPUID_R11, %r11
//!     movb $0, %gs:MASKED
//!     <displaced after>
//!     jmp  end-of-window
//! ```
//!
//! Arithmetic flags do not survive either (the System V ABI lets nobody rely on them across inline assembly).

/// Offset of the 8-byte pointer to the system-call entry. Call convention as after `syscall`: rcx = return address.
pub const SYSCALL_ENTRY: u32 = 0;
/// Offset of the 8-byte pointer to the cpuid entry.
pub const CPUID_ENTRY: u32 = 8;
/// Offset of the byte that masks upcalls while it is not 0.
pub const MASKED: u32 = 16;
/// Offset of the 8-byte slot that keeps r11 across a rewritten `cpuid`.
pub const CPUID_R11: u32 = 24;
