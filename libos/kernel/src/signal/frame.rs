//! The signal frame on the program's stack (Linux x86-64: `struct rt_sigframe`) and the way back from it.

use super::{Action, Info, UNBLOCKABLE, bit};
use crate::arch::fpu;
use crate::arch::frame::{Frame, NO_SYSCALL, RFLAGS, RFLAGS_USER, USER_CS, USER_SS};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::sched;
use linux_raw_sys::general as linux;
use unik_abi::layout::USER_TOP;

/// Return address, ucontext, siginfo.
const SIZE: u64 = 8 + UCONTEXT + 128;
const UCONTEXT: u64 = 304;
const RED_ZONE: u64 = 128;
const FXSAVE: usize = 512;
const SW_RESERVED: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;

/// The part of `ucontext` up to the floating-point pointer, and the mask.
#[derive(Clone, Copy)]
#[repr(C)]
struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    r8_15: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    segments: u64,
    error: u64,
    vector: u64,
    old_mask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
    mask: u64,
}
const _: () = assert!(size_of::<Context>() as u64 == UCONTEXT);
// SAFETY: integers without padding.
unsafe impl user::Plain for Context {}

/// SS_* flags as sigaltstack reports them.
pub fn stack_flags(rsp: u64, (base, size, flags): (u64, u64, u32)) -> u32 {
    if size == 0 {
        linux::SS_DISABLE
    } else if rsp.wrapping_sub(base) < size && flags & linux::SS_AUTODISARM == 0 {
        linux::SS_ONSTACK | flags
    } else {
        flags
    }
}

/// Puts a frame on the stack and makes the program go on in the handler.
pub fn push(frame: &mut Frame, info: &Info, action: &Action) -> Result<()> {
    if action.flags & linux::SA_RESTORER as u64 == 0 {
        return Err(Errno::EFAULT);
    }
    let thread = sched::current();
    let (alt, blocked, saved) = {
        let own = thread.signals.borrow();
        (own.alt_stack, own.blocked, own.saved_mask)
    };
    let wants_alt = action.flags & linux::SA_ONSTACK as u64 != 0
        && stack_flags(frame.rsp, alt) & (linux::SS_DISABLE | linux::SS_ONSTACK) == 0;
    let top = if wants_alt {
        alt.0 + alt.1
    } else {
        frame.rsp.wrapping_sub(RED_ZONE)
    };
    let has_xsave = fpu::components() != 0;
    let fp_len = fpu::size() as u64 + if has_xsave { 4 } else { 0 };
    let fpstate = top.checked_sub(fp_len).ok_or(Errno::EFAULT)? & !63;
    let at = (fpstate.checked_sub(SIZE).ok_or(Errno::EFAULT)? & !15) - 8;
    if top > USER_TOP || (wants_alt && at < alt.0) {
        return Err(Errno::EFAULT);
    }
    save_vector_state(frame, fpstate, fp_len, has_xsave)?;
    let f = &*frame;
    let (_, error, cr2) = crate::arch::vcpu::Vcpu::this().fault();
    let context = Context {
        flags: if has_xsave { UC_FLAGS } else { UC_FLAGS & !1 },
        link: 0,
        stack: [alt.0, stack_flags(f.rsp, alt) as u64, alt.1],
        r8_15: [f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15],
        rdi: f.rdi,
        rsi: f.rsi,
        rbp: f.rbp,
        rbx: f.rbx,
        rdx: f.rdx,
        rax: f.rax,
        rcx: f.rcx,
        rsp: f.rsp,
        rip: f.rip,
        rflags: f.rflags,
        segments: USER_CS | USER_SS << 48,
        error: if info.code > 0 { error } else { 0 },
        vector: trap_number(info),
        old_mask: blocked,
        cr2: if info.signo == linux::SIGSEGV || info.signo == linux::SIGBUS {
            cr2
        } else {
            0
        },
        fpstate,
        reserved: [0; 8],
        mask: saved.unwrap_or(blocked),
    };
    user::put(at, action.restorer)?;
    user::put(at + 8, context)?;
    user::put(at + 8 + UCONTEXT, info.to_bytes())?;
    let mut own = thread.signals.borrow_mut();
    own.saved_mask = None;
    own.blocked |= action.mask & !UNBLOCKABLE;
    if action.flags & linux::SA_NODEFER as u64 == 0 {
        own.blocked |= bit(info.signo);
    }
    if wants_alt && alt.2 & linux::SS_AUTODISARM != 0 {
        own.alt_stack = (0, 0, 0);
    }
    drop(own);
    frame.rdi = info.signo as u64;
    frame.rsi = at + 8 + UCONTEXT;
    frame.rdx = at + 8;
    frame.rax = 0;
    frame.rip = action.handler;
    frame.rsp = at;
    frame.rflags = RFLAGS;
    frame.orig_rax = NO_SYSCALL;
    Ok(())
}

fn trap_number(info: &Info) -> u64 {
    match info.signo {
        linux::SIGSEGV if info.code == super::SI_KERNEL => 13,
        linux::SIGSEGV => 14,
        linux::SIGFPE => 0,
        linux::SIGILL => 6,
        linux::SIGTRAP => 3,
        _ => 0,
    }
}

/// Writes the state in XSAVE format with Linux's marks around it (`struct _fpx_sw_bytes`).
fn save_vector_state(frame: &Frame, address: u64, len: u64, has_xsave: bool) -> Result<()> {
    let mut state = fpu::State::new();
    state.save();
    let bytes = state.bytes_mut();
    for (chunk, xmm) in bytes[160..160 + 256].chunks_exact_mut(16).zip(frame.xmm) {
        chunk.copy_from_slice(&xmm.to_le_bytes());
    }
    let size = bytes.len();
    if has_xsave {
        let mark = |bytes: &mut [u8], at: usize, value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value)
        };
        mark(bytes, SW_RESERVED, &MAGIC1.to_le_bytes());
        mark(bytes, SW_RESERVED + 4, &(len as u32).to_le_bytes());
        mark(bytes, SW_RESERVED + 8, &fpu::components().to_le_bytes());
        mark(bytes, SW_RESERVED + 16, &(size as u32).to_le_bytes());
        bytes[FXSAVE] |= 2; // the xmm part is valid
    }
    let out = user::slice_mut(address, len)?;
    out[..size].copy_from_slice(bytes);
    if has_xsave {
        out[size..].copy_from_slice(&MAGIC2.to_le_bytes());
    }
    Ok(())
}

/// Whether `rip` is where a program can be interrupted on its way into or out of a system call, with all its registers its own: at the first
/// instruction of an entry, or after the last restored register of the fast exit. Going on there is going on with the program.
fn is_entry(rip: u64) -> bool {
    unsafe extern "C" {
        fn lstar_entry();
        fn lstar_shim();
        fn syscall_entry();
        fn upcall_entry();
    }
    let inside = |start: unsafe extern "C" fn(), end: unsafe extern "C" fn()| {
        (start as *const () as u64..end as *const () as u64).contains(&rip)
    };
    inside(lstar_entry, lstar_shim) || inside(syscall_entry, upcall_entry)
}

/// rt_sigreturn: the program's registers become what its frame says, as far as they are harmless.
pub fn pop(frame: &mut Frame) -> Result<()> {
    // The restorer's call popped the return address: the context starts at rsp.
    let context: Context = user::get(frame.rsp)?;
    restore_vector_state(frame, context.fpstate)?;
    let c = &context;
    if c.rip >= USER_TOP && !is_entry(c.rip) {
        return Err(Errno::EFAULT);
    }
    [
        frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15,
    ] = c.r8_15;
    (frame.rdi, frame.rsi, frame.rbp, frame.rbx) = (c.rdi, c.rsi, c.rbp, c.rbx);
    (frame.rdx, frame.rax, frame.rcx, frame.rsp, frame.rip) = (c.rdx, c.rax, c.rcx, c.rsp, c.rip);
    frame.rflags = c.rflags & RFLAGS_USER | RFLAGS;
    frame.orig_rax = NO_SYSCALL;
    let mut own = sched::current().signals.borrow_mut();
    own.blocked = c.mask & !UNBLOCKABLE;
    let (base, flags, size) = (c.stack[0], c.stack[1] as u32, c.stack[2]);
    if flags & linux::SS_DISABLE == 0 && size >= linux::MINSIGSTKSZ as u64 {
        own.alt_stack = (base, size, flags & linux::SS_AUTODISARM);
    }
    Ok(())
}

fn restore_vector_state(frame: &mut Frame, address: u64) -> Result<()> {
    if address == 0 {
        return Ok(());
    }
    let mut state = fpu::State::new();
    let has_xsave = fpu::components() != 0;
    let size = state.bytes().len() as u64;
    let saved = user::slice(address, FXSAVE as u64)?;
    let magic = u32::from_le_bytes([
        saved[SW_RESERVED],
        saved[SW_RESERVED + 1],
        saved[SW_RESERVED + 2],
        saved[SW_RESERVED + 3],
    ]);
    if has_xsave && magic == MAGIC1 {
        state
            .bytes_mut()
            .copy_from_slice(user::slice(address, size)?);
    } else {
        state.bytes_mut()[..FXSAVE].copy_from_slice(saved);
        if has_xsave {
            state.bytes_mut()[FXSAVE] = 3;
        }
    }
    state.sanitize();
    for (chunk, xmm) in state.bytes()[160..160 + 256]
        .chunks_exact(16)
        .zip(frame.xmm.iter_mut())
    {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(chunk);
        *xmm = u128::from_le_bytes(bytes);
    }
    state.load();
    Ok(())
}
