//! Taking a vCPU out of the guest from another thread.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

use crate::kvm::{KvmError, failed};
use crate::signals;

/// Takes a vCPU out of the guest, also when it is just about to enter it: sets the shared page's `immediate_exit` and then
/// interrupts the thread.
pub struct Kicker {
    run: *mut kvm_run,
    thread: AtomicI32,
    kicked: AtomicBool,
}

// SAFETY: the only access through `run` is an atomic store to one byte.
unsafe impl Send for Kicker {}
// SAFETY: as for Send.
unsafe impl Sync for Kicker {}

impl Kicker {
    pub(crate) fn new(fd: &VcpuFd) -> Result<Self, KvmError> {
        // SAFETY: a second shared mapping of the vCPU's run page at an address of the kernel's choice; KVM allows any number
        // and keeps the page until the last is gone.
        let run = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if run == libc::MAP_FAILED {
            return Err(failed("map the vCPU's run page")(kvm_ioctls::Error::last()));
        }
        Ok(Self {
            run: run.cast(),
            thread: AtomicI32::new(0),
            kicked: AtomicBool::new(false),
        })
    }

    /// Says that the calling thread runs the vCPU. Before its first [`crate::vcpu::Vcpu::run`].
    pub fn attach(&self) {
        self.thread.store(signals::thread_id(), Ordering::Release);
    }

    /// Whether an interruption came from [`Self::kick`], not from some other signal.
    pub fn kicked(&self) -> bool {
        self.kicked.load(Ordering::Acquire)
    }

    /// Makes the current or next [`crate::vcpu::Vcpu::run`] return [`crate::exit::Exit::Interrupted`], and every later one.
    pub fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        // SAFETY: `run` stays mapped as long as `self`; the byte is only ever accessed as an atomic by us and by the kernel.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.run).immediate_exit) }
            .store(1, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::Acquire);
        if thread != 0 {
            signals::kick(thread);
        }
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        // SAFETY: undoes the mapping made in `new`; nobody else knows the address.
        unsafe { libc::munmap(self.run.cast(), size_of::<kvm_run>()) };
    }
}
