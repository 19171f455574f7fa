//! Starting further vCPUs by INIT and SIPI (Intel SDM volume 3, 10.4.4).

use super::vcpu::{self, VCPU_BLOCKS};
use super::{apic, pause, rdtsc};
use crate::mm::{frames, kstack};
use crate::time;
use core::sync::atomic::{AtomicUsize, Ordering};
use unik_abi::layout::AP_START_PADDR;

static COUNT: AtomicUsize = AtomicUsize::new(1);
static STARTED: AtomicUsize = AtomicUsize::new(1);

/// Number of running vCPUs.
#[inline]
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

const INIT: u32 = 0x4500;
const SIPI: u32 = 0x4600;

/// Starts vCPUs 1..`wanted`, one after the other. A vCPU that does not answer within a second is left out.
pub fn start(wanted: usize) {
    unsafe extern "C" {
        static ap_start: u8;
        static ap_start_end: u8;
    }
    for index in 1..wanted {
        let Some(top) = kstack::alloc() else { return };
        vcpu::set_boot_stack(index, top);
        // SAFETY: the start code is position independent and ends with the vCPU index; the page is reserved for it (layout).
        unsafe {
            let (from, len) = (
                &raw const ap_start,
                (&raw const ap_start_end).offset_from(&raw const ap_start) as usize,
            );
            let to = frames::virt(AP_START_PADDR);
            core::ptr::copy_nonoverlapping(from, to, len);
            (to.add(len - 4) as *mut u32).write_unaligned(index as u32);
        }
        apic::command(index, INIT);
        apic::command(index, SIPI | (AP_START_PADDR >> 12) as u32);
        if !wait_for(index + 1, 100_000_000) {
            // The protocol sends SIPI twice; one that was not needed is ignored.
            apic::command(index, SIPI | (AP_START_PADDR >> 12) as u32);
            if !wait_for(index + 1, 1_000_000_000) {
                crate::console::warn(&alloc::format!(
                    "vCPU {index} did not start; going on with {index}"
                ));
                return;
            }
        }
        COUNT.store(index + 1, Ordering::SeqCst);
    }
}

fn wait_for(count: usize, limit_ns: u64) -> bool {
    let end = rdtsc() + time::ns_to_ticks(limit_ns);
    while STARTED.load(Ordering::SeqCst) < count {
        if rdtsc() > end {
            return false;
        }
        pause();
    }
    true
}

/// Called by a further vCPU once it is ready to take threads.
pub fn here_i_am(index: usize) {
    debug_assert!(index < VCPU_BLOCKS.len());
    STARTED.fetch_add(1, Ordering::SeqCst);
}
