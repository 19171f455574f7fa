//! The one big lock, and the cell for what it protects.
//!
//! Nearly all of the library OS runs with the lock held; a thread that blocks hands it over to the thread that runs next.
//! Upcalls are masked while it is held, so its holder is never preempted by the library OS itself.

use core::cell::{RefCell, RefMut};
use core::sync::atomic::{AtomicBool, Ordering};
use unik_abi::control::PORT_YIELD;

static LOCKED: AtomicBool = AtomicBool::new(false);

/// Looks at a taken lock before the holder is taken for preempted by the host (each look ~50-150 cycles).
const PATIENCE: u32 = 2000;

/// Takes the big lock.
#[inline]
pub fn acquire() {
    while LOCKED
        .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        wait_until_free();
    }
}

#[cold]
fn wait_until_free() {
    loop {
        for _ in 0..PATIENCE {
            if !LOCKED.load(Ordering::Relaxed) {
                return;
            }
            crate::arch::pause();
        }
        crate::arch::nucleus::out32(PORT_YIELD, 0);
    }
}

/// Gives the big lock back. The caller holds it.
#[inline]
pub fn release() {
    LOCKED.store(false, Ordering::Release);
}

/// Runs `work` without the big lock, which the caller holds, as it does again afterwards. In between others change what it protects:
/// `work` touches none of it, and the caller keeps no borrow of it.
pub fn unlocked(work: impl FnOnce()) {
    release();
    work();
    acquire();
}

/// A value that only the holder of the big lock touches.
pub struct Locked<T>(RefCell<T>);

// SAFETY: every use happens with the big lock held (or before further vCPUs start), so never on two vCPUs at once.
unsafe impl<T> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Where the value is, for assembly that reads it.
    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// The value. The caller holds the big lock, and does not block or call back while it keeps the borrow.
    #[track_caller]
    pub fn get(&self) -> RefMut<'_, T> {
        debug_assert!(LOCKED.load(Ordering::Relaxed));
        self.0.borrow_mut()
    }
}
