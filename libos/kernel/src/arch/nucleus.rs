//! The services of the ring-0 nucleus. Each call costs ~30 us on a paravirtual KVM: batch what can be batched.

unsafe extern "C" {
    fn nucleus_call(a: u64, b: u64, number: u32) -> u64;
}

/// One 32-bit access to a device register, made by the nucleus.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RegisterOp {
    /// Virtual address (the physmap).
    pub address: u64,
    /// Value to write, or the value read.
    pub value: u32,
    /// 1 to write, 0 to read.
    pub write: u32,
}

/// One CPUID query.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuidQuery {
    pub leaf: u32,
    pub subleaf: u32,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Leaves the armed deadline as it is.
pub const KEEP_DEADLINE: u64 = u64::MAX;

/// Arms the TSC deadline timer (0: none).
pub fn arm(deadline: u64) {
    // SAFETY: service 0 takes a TSC value.
    unsafe { nucleus_call(deadline, 0, 0) };
}

/// Arms the deadline (unless [`KEEP_DEADLINE`]) and halts until an interrupt comes; returns at once if one is pending.
pub fn halt(deadline: u64) {
    // SAFETY: service 1 takes a TSC value.
    unsafe { nucleus_call(deadline, 0, 1) };
}

/// Flushes this vCPU's TLB.
pub fn flush_tlb() {
    // SAFETY: service 2 reloads CR3.
    unsafe { nucleus_call(0, 0, 2) };
}

/// Writes the x2APIC interrupt command register.
pub fn send_ipi(command: u64) {
    // SAFETY: service 3; callers build valid commands.
    unsafe { nucleus_call(command, 0, 3) };
}

/// 32-bit write to an I/O port.
pub fn out32(port: u16, value: u32) {
    // SAFETY: service 4; a port write cannot harm memory safety here.
    unsafe { nucleus_call(port as u64, value as u64, 4) };
}

/// Runs device register accesses in order.
pub fn registers(ops: &mut [RegisterOp]) {
    // SAFETY: service 5 touches exactly `ops` and the registers they name.
    unsafe { nucleus_call(ops.as_mut_ptr() as u64, ops.len() as u64, 5) };
}

/// Runs CPUID queries.
pub fn cpuid(queries: &mut [CpuidQuery]) {
    if !queries.is_empty() {
        // SAFETY: service 6 fills exactly `queries`.
        unsafe { nucleus_call(queries.as_mut_ptr() as u64, queries.len() as u64, 6) };
    }
}

/// Writes a model-specific register.
pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: service 7; callers write APIC and system-call registers only.
    unsafe { nucleus_call(msr as u64, value, 7) };
}

/// Writes text to the debug port.
pub fn debug_write(text: &[u8]) {
    // SAFETY: service 8 reads exactly `text`.
    unsafe { nucleus_call(text.as_ptr() as u64, text.len() as u64, 8) };
}
