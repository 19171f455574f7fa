//! What the library OS knows of the processor: the nucleus and its services, the per-vCPU block, entry frames, vector state.
//!
//! - `nucleus.s`: all ring-0 code. `entry.s`: ring-3 entries and exits, the stack switch.
//! - [`vcpu`]: the per-vCPU block that `gs` points to. [`frame`]: the saved registers of a program.
//! - [`nucleus`]: the services behind `int3`. [`fpu`]: vector state beyond xmm. [`cpuid`]: the table for rewritten sites.
//! - [`kvmclock`]: the clock of monitors that say nothing else.
//! - [`apic`]: timer and inter-processor interrupts in whichever mode the processor offers. [`smp`]: starting further vCPUs.

use core::arch::{asm, global_asm};

pub mod apic;
pub mod cpuid;
pub mod fpu;
pub mod frame;
pub mod kvmclock;
pub mod nucleus;
pub mod smp;
pub mod vcpu;

global_asm!(
    include_str!("nucleus.s"),
    include_str!("entry.s"),
    options(att_syntax, raw)
);

/// The time stamp counter.
#[inline(always)]
pub fn rdtsc() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The program's thread pointer (fs base) on this vCPU.
#[inline(always)]
pub fn fs_base() -> u64 {
    let base: u64;
    // SAFETY: CR4.FSGSBASE is set by the nucleus.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nostack, preserves_flags, nomem)) };
    base
}

/// Sets the program's thread pointer. The library OS itself uses no thread-local storage.
#[inline(always)]
pub fn set_fs_base(base: u64) {
    // SAFETY: CR4.FSGSBASE is set; a non-canonical base is refused by the callers.
    unsafe { asm!("wrfsbase {}", in(reg) base, options(nostack, preserves_flags, nomem)) };
}

/// Gives the sibling hyperthread and the monitor a hint that this is a spin loop.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

/// Runs `work` on a stack of `bytes` bytes that lives as long as the call: for the few things that need more than a thread's library-OS
/// stack. `work` does not block, and needs well below `bytes`: nothing guards the end.
pub fn on_large_stack<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    extern "C" fn enter<F: FnMut()>(work: *mut F) {
        // SAFETY: `call` passes its own closure, which outlives the call.
        unsafe { (*work)() }
    }
    fn call<F: FnMut()>(bytes: usize, mut work: F) {
        let mut stack = alloc::vec::Vec::<u128>::with_capacity(bytes / size_of::<u128>());
        // SAFETY: one past the end of the allocation; the elements are 16 bytes, as is the alignment of stacks.
        let top = unsafe { stack.as_mut_ptr().add(stack.capacity()) };
        // SAFETY: the new stack is this call's alone, aligned, and left again before it is freed; r12 is kept by the callee.
        unsafe {
            asm!("mov r12, rsp", "mov rsp, {top}", "call {enter}", "mov rsp, r12", top = in(reg) top, enter = in(reg) enter::<F> as extern "C" fn(*mut F),
                in("rdi") &raw mut work, out("r12") _, clobber_abi("C"));
        }
    }
    let (mut work, mut result) = (Some(work), None);
    call(bytes, || result = work.take().map(|work| work()));
    result.expect("the closure was called once")
}
