//! The end: reports to the monitor and does not come back.

use crate::arch::nucleus;
use crate::mm::frames;
use alloc::format;
use unik_abi::control::{ControlPage, ExitReport, MESSAGE_LEN, PORT_EXIT, Phase};
use unik_abi::layout::CONTROL_PAGE_PADDR;

/// The page shared with the monitor.
pub fn control_page() -> *mut ControlPage {
    frames::virt(CONTROL_PAGE_PADDR) as *mut ControlPage
}

/// Stamps a boot phase.
pub fn stamp(phase: Phase, tsc: u64) {
    // SAFETY: the page is mapped for ever; only the monitor reads it meanwhile.
    unsafe { (&raw mut (*control_page()).phases[phase as usize]).write_volatile(tsc) };
}

/// Stamps a phase unless it was stamped before.
pub fn stamp_once(phase: Phase) {
    // SAFETY: as above.
    if unsafe { (&raw const (*control_page()).phases[phase as usize]).read_volatile() } == 0 {
        stamp(phase, crate::arch::rdtsc());
    }
}

/// Leaves a text for the monitor.
pub fn set_message(text: &str) {
    let len = text.len().min(MESSAGE_LEN);
    // SAFETY: as above; the text field holds MESSAGE_LEN bytes.
    unsafe {
        let page = control_page();
        core::ptr::copy_nonoverlapping(text.as_ptr(), (&raw mut (*page).message).cast(), len);
        (&raw mut (*page).message_len).write_volatile(len as u64);
    }
}

/// Notes where something crashed.
pub fn set_fault(vector: u64, error: u64, address: u64, rip: u64, rsp: u64) {
    // SAFETY: as above.
    unsafe {
        let page = control_page();
        (&raw mut (*page).fault_vector).write_volatile(vector);
        (&raw mut (*page).fault_error).write_volatile(error);
        (&raw mut (*page).fault_addr).write_volatile(address);
        (&raw mut (*page).fault_rip).write_volatile(rip);
        (&raw mut (*page).fault_rsp).write_volatile(rsp);
    }
}

/// Ends the machine after all output went out.
pub fn exit(report: ExitReport) -> ! {
    stamp(Phase::Exit, crate::arch::rdtsc());
    crate::console::drain_all();
    end(report)
}

/// Ends the machine now.
pub fn end(report: ExitReport) -> ! {
    let value = report.to_u32();
    if !crate::config::get().own_monitor {
        nucleus::debug_write(format!("\nunik-exit: {value}\n").as_bytes());
    }
    nucleus::out32(PORT_EXIT, value);
    loop {
        nucleus::halt(0);
    }
}

/// Ends the machine with a text: for the monitor in the control page, for others on the debug port.
pub fn die(report: ExitReport, text: &str) -> ! {
    set_message(text);
    if !crate::config::get().own_monitor {
        nucleus::debug_write(b"unik: ");
        nucleus::debug_write(text.as_bytes());
    }
    end(report)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    die(ExitReport::Panic, &format!("{info}"))
}
