//! What the guest's `cpuid` answers: what KVM offers, the topology of this machine, and what ring 3 would see anyway.
//!
//! Under a paravirtual KVM ring 3 of the guest runs natively and its `cpuid` shows the host's feature bits whatever was set,
//! while KVM does not offer XSAVE for the emulated ring 0. Two truths in one guest break programs, so where the host's own
//! user space has extended state that KVM does not offer, the feature leaves take the host's user-mode bits too. Nothing
//! that KVM offers is dropped.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

use crate::kvm::{KvmError, failed};

/// Leaf 1 ECX.
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX.
const HTT: u32 = 1 << 28;

/// A word whose bits at these places are set.
const fn bits(places: &[u32]) -> u32 {
    let (mut word, mut i) = (0, 0);
    while i < places.len() {
        word |= 1 << places[i];
        i += 1;
    }
    word
}

/// Instructions of user mode, leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE,
/// AVX, F16C, RDRAND.
const USER_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 7.0 EBX: FSGSBASE, BMI1, AVX2, BMI2, ERMS, AVX512F, AVX512DQ, RDSEED, ADX, AVX512IFMA, CLFLUSHOPT, CLWB, AVX512PF, AVX512ER,
/// AVX512CD, SHA, AVX512BW, AVX512VL.
const USER_7_EBX: u32 = bits(&[
    0, 3, 5, 8, 9, 16, 17, 18, 19, 21, 23, 24, 26, 27, 28, 29, 30, 31,
]);
/// Leaf 7.0 ECX: AVX512_VBMI, AVX512_VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512_VNNI, AVX512_BITALG, AVX512_VPOPCNTDQ, RDPID.
const USER_7_ECX: u32 = bits(&[1, 6, 8, 9, 10, 11, 12, 14, 22]);
/// Leaf 7.0 EDX: AVX512_4VNNIW, AVX512_4FMAPS, FSRM, AVX512_VP2INTERSECT, SERIALIZE, AVX512_FP16.
const USER_7_EDX: u32 = bits(&[2, 3, 4, 8, 14, 23]);
/// Leaf 7.1 EAX: AVX_VNNI, AVX512_BF16, fast zero-length and short string operations.
const USER_7_1_EAX: u32 = bits(&[4, 5, 10, 11, 12]);
/// Leaf 0x80000001 ECX: LZCNT.
const USER_EXTENDED_ECX: u32 = bits(&[5]);

/// State components that programs use without asking: x87, SSE, AVX, AVX-512. Not AMX, which needs a system call.
const XCR0_WANTED: u64 = 0xe7;

/// What one machine's vCPUs share; see [`Policy::vcpu`].
pub struct Policy {
    entries: Vec<kvm_cpuid_entry2>,
    xcr0: Option<u64>,
}

/// A processor's own `cpuid`: leaf and sub-leaf to registers.
pub type Processor = fn(u32, u32) -> CpuidResult;

/// The `cpuid` instruction of the processor we run on.
pub fn this_processor(leaf: u32, index: u32) -> CpuidResult {
    __cpuid_count(leaf, index)
}

/// What KVM can offer a guest (slow: more than half a millisecond).
pub fn supported(kvm: &Kvm) -> Result<CpuId, KvmError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("tell which CPUID it supports"))
}

impl Policy {
    /// Decides for the machine from what KVM offers and what the host's processor answers in user mode.
    pub fn new(offered: &CpuId, host: Processor) -> Self {
        let mut entries = offered.as_slice().to_vec();
        let host_1 = host(1, 0);
        let native = host_1.ecx & OSXSAVE != 0;
        let offers_xsave = entries
            .iter()
            .any(|e| e.function == 1 && e.ecx & XSAVE != 0);
        if native && !offers_xsave {
            add_user_mode_features(&mut entries, host_1, host);
        }
        let xcr0 = entries
            .iter()
            .find(|e| e.function == 0xd && e.index == 0)
            .map(|e| (u64::from(e.edx) << 32 | u64::from(e.eax)) & XCR0_WANTED)
            .filter(|&value| value & 1 != 0);
        Self { entries, xcr0 }
    }

    /// The value of XCR0 that switches on all state the guest may use; `None` without XSAVE.
    pub fn xcr0(&self) -> Option<u64> {
        self.xcr0
    }

    /// The table for vCPU `id` of `count` (one socket, one thread a core, APIC ids from 0).
    pub fn vcpu(&self, id: u8, count: u8) -> Result<CpuId, KvmError> {
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            set_topology(entry, id, count);
        }
        add_extended_topology(&mut entries, id, count);
        CpuId::from_entries(&entries).map_err(|_| KvmError::Capability("room for the CPUID table"))
    }
}

/// Adds what ring 3 sees anyway. The processor is asked as little as possible: where `cpuid` traps it takes some 8 us.
fn add_user_mode_features(
    entries: &mut Vec<kvm_cpuid_entry2>,
    leaf_1: CpuidResult,
    host: Processor,
) {
    let leaf_7 = host(7, 0);
    let leaf_7_1 = if leaf_7.eax >= 1 { host(7, 1).eax } else { 0 };
    let extended = host(0x8000_0001, 0);
    for entry in entries.iter_mut() {
        match (entry.function, entry.index) {
            (0, _) => entry.eax = entry.eax.max(0xd),
            (1, _) => entry.ecx |= leaf_1.ecx & USER_1_ECX,
            (7, 0) => {
                entry.ebx |= leaf_7.ebx & USER_7_EBX;
                entry.ecx |= leaf_7.ecx & USER_7_ECX;
                entry.edx |= leaf_7.edx & USER_7_EDX;
                entry.eax = entry.eax.max(leaf_7.eax.min(1));
            }
            (0x8000_0001, _) => entry.ecx |= extended.ecx & USER_EXTENDED_ECX,
            _ => {}
        }
    }
    at(entries, 7, 1).eax |= leaf_7_1 & USER_7_1_EAX;
    add_state_leaves(entries, host);
}

/// The entry of this leaf, which is added when it is missing.
fn at(entries: &mut Vec<kvm_cpuid_entry2>, function: u32, index: u32) -> &mut kvm_cpuid_entry2 {
    let found = entries
        .iter()
        .position(|e| e.function == function && e.index == index);
    let place = found.unwrap_or(entries.len());
    if found.is_none() {
        let nothing = CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
        entries.push(indexed(function, index, nothing));
    }
    &mut entries[place]
}

/// Leaf 0xd: the layout of the XSAVE area is the processor's. What KVM offers is kept; components that it leaves out although the
/// processor has them are added, up to [`XCR0_WANTED`].
fn add_state_leaves(entries: &mut Vec<kvm_cpuid_entry2>, host: Processor) {
    if at(entries, 0xd, 0).eax == 0 {
        let main = host(0xd, 0);
        *at(entries, 0xd, 0) = indexed(0xd, 0, CpuidResult { edx: 0, ..main });
    }
    let main = at(entries, 0xd, 0);
    main.eax &= XCR0_WANTED as u32;
    let wanted = main.eax;
    let mut size = 576; // legacy area and header
    for index in (2..32).filter(|i| wanted & 1 << i != 0) {
        let component = at(entries, 0xd, index);
        if component.eax == 0 {
            *component = indexed(0xd, index, host(0xd, index));
        }
        size = size.max(component.ebx.saturating_add(component.eax));
    }
    let main = at(entries, 0xd, 0);
    (main.ebx, main.ecx) = (size, size);
    // XSAVEOPT, XSAVEC, XGETBV with ECX 1; XSAVES is for ring 0.
    at(entries, 0xd, 1).eax |= host(0xd, 1).eax & 0b111;
}

fn indexed(function: u32, index: u32, bits: CpuidResult) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: bits.eax,
        ebx: bits.ebx,
        ecx: bits.ecx,
        edx: bits.edx,
        ..Default::default()
    }
}

/// Intel SDM volume 2 "CPUID", AMD APM volume 3 appendix E.
fn set_topology(entry: &mut kvm_cpuid_entry2, id: u8, count: u8) {
    let (id, count) = (u32::from(id), u32::from(count.max(1)));
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
            entry.ecx |= HYPERVISOR | TSC_DEADLINE | X2APIC;
            entry.edx = if count > 1 {
                entry.edx | HTT
            } else {
                entry.edx & !HTT
            };
        }
        (4, _) if entry.eax & 0x1f != 0 => {
            // Caches of level 1 and 2 are a core's own, level 3 is everyone's; cores per package.
            let sharing = if entry.eax >> 5 & 7 >= 3 {
                count.next_power_of_two() - 1
            } else {
                0
            };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (count.next_power_of_two() - 1) << 26;
        }
        (0x8000_0008, _) => {
            entry.ecx = entry.ecx & !0xf0ff | (count - 1) | core_bits(count) << 12;
        }
        (0x8000_001e, _) => {
            entry.eax = id;
            entry.ebx = entry.ebx & !0xffff | id; // core id, one thread a core
            entry.ecx &= !0x7ff; // one node
        }
        _ => {}
    }
}

/// Bits of an APIC id that number the cores of a package.
fn core_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Leaves 0xb and 0x1f: thread level, core level, end.
fn add_extended_topology(entries: &mut Vec<kvm_cpuid_entry2>, id: u8, count: u8) {
    let (id, count) = (u32::from(id), u32::from(count.max(1)));
    let highest = entries
        .iter()
        .find(|e| e.function == 0)
        .map_or(0, |e| e.eax);
    entries.retain(|e| e.function != 0xb && e.function != 0x1f);
    for leaf in [0xb, 0x1f].into_iter().filter(|&leaf| leaf <= highest) {
        let level = |index, eax, ebx, kind: u32| {
            indexed(
                leaf,
                index,
                CpuidResult {
                    eax,
                    ebx,
                    ecx: kind << 8 | index,
                    edx: id,
                },
            )
        };
        entries.push(level(0, 0, 1, 1));
        entries.push(level(1, core_bits(count), count, 2));
        entries.push(level(2, 0, 0, 0));
    }
}

#[cfg(test)]
mod tests;
