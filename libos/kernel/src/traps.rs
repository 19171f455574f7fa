//! Upcalls: faults and interrupts of the program, and what happens before a program goes on.

use crate::arch::frame::Frame;
use crate::arch::vcpu::Vcpu;
use crate::errno::Errno;
use crate::mm::space::{Access, Fault, SPACE};
use crate::signal::{self, Info};
use crate::{interrupts, lock, power, sched};
use alloc::format;
use linux_raw_sys::general as linux;
use unik_abi::control::ExitReport;

/// "Interrupts are pending", the vector number the nucleus makes up.
const INTERRUPTS: u64 = 0x100;
const PAGE_FAULT: u64 = 14;

/// Entry from `entry.s`: the program was interrupted or faulted.
#[unsafe(no_mangle)]
extern "C" fn upcall_handler(frame: &mut Frame) {
    let vcpu = Vcpu::this();
    let (vector, error, address) = vcpu.fault();
    lock::acquire();
    if vector != INTERRUPTS {
        fault(frame, vector, error, address);
    }
    after_interrupts(frame);
    lock::release();
}

/// Entry from `entry.s`: interrupts came while the library OS ran.
#[unsafe(no_mangle)]
extern "C" fn pending_handler(frame: &mut Frame) {
    lock::acquire();
    after_interrupts(frame);
    lock::release();
}

/// Entry from `entry.s`: a new thread's first moment.
#[unsafe(no_mangle)]
extern "C" fn thread_begin(frame: &mut Frame) {
    sched::after_switch();
    before_return(frame, None);
    lock::release();
}

fn after_interrupts(frame: &mut Frame) {
    interrupts::dispatch(Vcpu::this().take_vectors());
    before_return(frame, None);
}

/// Everything that must happen before the program goes on: a due switch, signals. `errno`: what the system call answered.
/// Returns whether registers beyond rax changed.
pub fn before_return(frame: &mut Frame, errno: Option<Errno>) -> bool {
    sched::preempt_if_due();
    signal::deliver(frame, errno)
}

fn fault(frame: &mut Frame, vector: u64, error: u64, address: u64) {
    let info = match vector {
        PAGE_FAULT => match page_fault(error, address) {
            Ok(()) => return,
            Err(Fault::OutOfMemory) => out_of_memory(frame),
            Err(Fault::NotMapped) => Info::fault(linux::SIGSEGV, signal::SEGV_MAPERR, address),
            Err(Fault::Forbidden) => Info::fault(linux::SIGSEGV, signal::SEGV_ACCERR, address),
            Err(Fault::BeyondFile) => Info::fault(linux::SIGBUS, signal::BUS_ADRERR, address),
        },
        0 => Info::fault(linux::SIGFPE, signal::FPE_INTDIV, frame.rip),
        16 | 19 => Info::fault(linux::SIGFPE, 0, frame.rip),
        1 => Info::fault(linux::SIGTRAP, signal::TRAP_TRACE, frame.rip),
        3 => Info::kernel(linux::SIGTRAP),
        4 => Info::fault(linux::SIGSEGV, signal::SI_KERNEL, 0),
        6 => Info::fault(linux::SIGILL, signal::ILL_ILLOPN, frame.rip),
        17 => Info::fault(linux::SIGBUS, signal::BUS_ADRALN, 0),
        // 11, 12, 13 and the rest: Linux sends SIGSEGV with SI_KERNEL and address 0.
        _ => Info::fault(linux::SIGSEGV, signal::SI_KERNEL, 0),
    };
    signal::force(info, vector, error, address);
}

fn page_fault(error: u64, address: u64) -> Result<(), Fault> {
    let access = match error {
        e if e & 0x10 != 0 => Access::Execute,
        e if e & 2 != 0 => Access::Write,
        _ => Access::Read,
    };
    SPACE.get().fault(address, access)
}

fn out_of_memory(frame: &Frame) -> ! {
    let (free, total) = crate::mm::frames::stats();
    power::set_fault(PAGE_FAULT, 0, 0, frame.rip, frame.rsp);
    crate::console::drain_all();
    let resident = SPACE.get().resident() >> 20;
    power::die(
        ExitReport::OutOfMemory,
        &format!(
            "out of memory: the program uses {resident} MiB of {} MiB, {} KiB are free; give the machine more with --memory",
            total >> 8,
            free * 4
        ),
    )
}

/// Entry from `entry.s`: the library OS itself faulted.
#[unsafe(no_mangle)]
extern "C" fn libos_fault_handler(_rbp: u64) -> ! {
    let vcpu = Vcpu::this();
    let (vector, error, address) = vcpu.fault();
    let (rip, rsp) = vcpu.fault_at();
    power::set_fault(vector, error, address, rip, rsp);
    power::die(
        ExitReport::Panic,
        &format!(
            "the library OS faulted: vector {vector}, error {error:#x}, address {address:#x}, rip {rip:#x}, rsp {rsp:#x}"
        ),
    )
}
