//! Vector and floating-point state beyond what the entries save (xmm0-15): saved when a thread leaves a vCPU, and for signal frames.
//!
//! The library OS uses legacy SSE only, so the upper halves of ymm/zmm, the opmask registers, x87 and MXCSR are still the program's
//! while it runs. Layout and components: Intel SDM volume 1, chapter 13.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The components that are the program's to use, as XCR0 numbers them: x87, SSE, AVX, AVX-512. A processor may have more switched
/// on than this machine was given: on a paravirtual KVM, XCR0 in ring 3 is the host's own, with protection keys and AMX, for which
/// CPUID's size counts no room.
const USED: u64 = 0xe7;

/// The enabled components among [`USED`], or 0 where there is no XSAVE (then FXSAVE is used).
static MASK: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU32 = AtomicU32::new(512);

/// Finds out what state there is. `osxsave`: whether CR4.OSXSAVE is set; `size`: bytes for the enabled components (CPUID 0xd:0 EBX).
pub fn init(osxsave: bool, size: u32) {
    if osxsave {
        let (low, high): (u32, u32);
        // SAFETY: CR4.OSXSAVE is set.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack, nomem))
        };
        let enabled = low as u64 | (high as u64) << 32;
        MASK.store(enabled & USED, Ordering::Relaxed);
        SIZE.store(size.clamp(576, 16384), Ordering::Relaxed);
    }
}

/// The enabled components; 0 without XSAVE.
pub fn components() -> u64 {
    MASK.load(Ordering::Relaxed)
}

/// Bytes of a state.
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// A saved state in the standard (non-compacted) XSAVE format.
pub struct State {
    area: *mut u8,
}

impl State {
    fn layout() -> Layout {
        Layout::from_size_align(size().next_multiple_of(64), 64).expect("a small constant")
    }

    /// The state of a program at its start: everything initial, MXCSR and x87 control word as Linux sets them.
    pub fn new() -> Self {
        // SAFETY: the layout is not empty.
        let area = unsafe { alloc_zeroed(Self::layout()) };
        assert!(!area.is_null(), "no memory for vector state");
        let state = Self { area };
        // SAFETY: the area has at least 512 bytes; FCW is at 0, MXCSR at 24.
        unsafe {
            (area as *mut u16).write(0x37f);
            (area.add(24) as *mut u32).write(0x1f80);
        }
        state
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `area` has `size()` bytes and lives as long as self.
        unsafe { core::slice::from_raw_parts(self.area, size()) }
    }

    /// The bytes, to change. Callers keep the header valid ([`Self::sanitize`]).
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.area, size()) }
    }

    /// Makes foreign bytes safe to load: unknown components, reserved header bytes and MXCSR bits are cleared.
    pub fn sanitize(&mut self) {
        let mask = components();
        let bytes = self.bytes_mut();
        let mxcsr = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]) & 0xffff;
        bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        if mask != 0 {
            let mut header = [0; 8];
            header.copy_from_slice(&bytes[512..520]);
            let components = u64::from_le_bytes(header) & mask;
            bytes[512..520].copy_from_slice(&components.to_le_bytes());
            bytes[520..576].fill(0);
        }
    }

    /// Saves this vCPU's state. The xmm part is the library OS's own: see the entry frame for the program's.
    pub fn save(&mut self) {
        let mask = components();
        // SAFETY: the area is large enough for all enabled components and 64-byte aligned.
        unsafe {
            if mask == 0 {
                asm!("fxsave64 [{}]", in(reg) self.area, options(nostack));
            } else {
                asm!("xsave64 [{}]", in(reg) self.area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack));
            }
        }
    }

    /// Loads the state into this vCPU.
    pub fn load(&self) {
        let mask = components();
        // SAFETY: the area holds a valid state: from `new`, `save` or `sanitize`.
        unsafe {
            if mask == 0 {
                asm!("fxrstor64 [{}]", in(reg) self.area, clobber_abi("sysv64"), options(nostack));
            } else {
                asm!(
                    "xrstor64 [{}]", in(reg) self.area, inlateout("rax") mask => _, inlateout("rdx") mask >> 32 => _,
                    clobber_abi("sysv64"), options(nostack)
                );
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.area, Self::layout()) };
    }
}
