//! What guests of a poor and of a rich KVM see.

use super::*;

fn leaf(function: u32, index: u32, regs: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = regs;
    indexed(function, index, CpuidResult { eax, ebx, ecx, edx })
}

/// What a KVM without XSAVE offers.
fn offered(xsave: bool) -> CpuId {
    let ecx = if xsave { XSAVE | 1 } else { 1 };
    CpuId::from_entries(&[
        leaf(0, 0, [0x1f, 0, 0, 0]),
        leaf(1, 0, [0, 0xffff_0800, ecx, HTT | 1]),
        leaf(4, 3, [0xfc00_4163, 0, 0, 0]),
        leaf(7, 0, [0, 1, 4, 1 << 26]),
        leaf(0xb, 0, [7, 7, 7, 7]),
        leaf(0x8000_0008, 0, [0x3930, 0, 0x70ff, 0]),
        leaf(0x4000_0000, 0, [1, 2, 3, 4]),
    ])
    .unwrap()
}

/// A processor with everything.
fn rich(function: u32, index: u32) -> CpuidResult {
    let all = CpuidResult {
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    match (function, index) {
        (0xd, 0) => CpuidResult {
            eax: 0x6_02e7,
            ebx: 0x2b00,
            ecx: 0x2b00,
            edx: 0,
        },
        (0xd, 2) => CpuidResult {
            eax: 0x100,
            ebx: 0x240,
            ecx: 0,
            edx: 0,
        },
        (0xd, 5) => CpuidResult {
            eax: 0x40,
            ebx: 0x440,
            ecx: 0,
            edx: 0,
        },
        (0xd, 6) => CpuidResult {
            eax: 0x200,
            ebx: 0x480,
            ecx: 0,
            edx: 0,
        },
        (0xd, 7) => CpuidResult {
            eax: 0x400,
            ebx: 0x680,
            ecx: 0,
            edx: 0,
        },
        _ => all,
    }
}

fn regs(table: &CpuId, function: u32, index: u32) -> [u32; 4] {
    let found = table
        .as_slice()
        .iter()
        .find(|e| e.function == function && e.index == index);
    found.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}

#[test]
fn ring_3_features_are_added_where_kvm_hides_xsave() {
    let policy = Policy::new(&offered(false), rich);
    let table = policy.vcpu(0, 1).unwrap();
    let [_, _, leaf_1, _] = regs(&table, 1, 0);
    assert_eq!(leaf_1 & (XSAVE | 1 << 28 | OSXSAVE), XSAVE | 1 << 28);
    let [_, ebx, ecx, edx] = regs(&table, 7, 0);
    assert_eq!(
        (ebx & 1 << 5, ebx & 1 << 7, ebx & 1 << 20),
        (1 << 5, 0, 0),
        "AVX2, not SMEP or SMAP"
    );
    assert_eq!(
        (ecx & 4, edx & 1 << 26),
        (4, 1 << 26),
        "what KVM offers stays"
    );
    assert_eq!(edx & (1 << 22 | 1 << 24 | 1 << 25), 0, "no AMX");
    assert_eq!(regs(&table, 0xd, 0), [0xe7, 0xa80, 0xa80, 0]);
    assert_eq!(regs(&table, 0xd, 6)[..2], [0x200, 0x480]);
    assert_eq!(policy.xcr0(), Some(0xe7));
}

#[test]
fn what_kvm_offers_is_enough_where_it_offers_xsave() {
    let policy = Policy::new(&offered(true), rich);
    let table = policy.vcpu(0, 1).unwrap();
    assert_eq!(regs(&table, 7, 0), [0, 1, 4, 1 << 26]);
    assert_eq!(regs(&table, 0x4000_0000, 0), [1, 2, 3, 4]);
    assert_eq!(policy.xcr0(), None);
}

#[test]
fn each_vcpu_knows_its_place() {
    let policy = Policy::new(&offered(true), rich);
    for (id, count, bits) in [(0, 1, 0), (2, 3, 2), (3, 4, 2), (15, 16, 4)] {
        let table = policy.vcpu(id, count).unwrap();
        let [_, ebx, ecx, edx] = regs(&table, 1, 0);
        assert_eq!(
            (ebx >> 24, ebx >> 16 & 0xff, ebx & 0xffff),
            (id.into(), count.into(), 0x800)
        );
        assert_eq!(
            ecx & (X2APIC | TSC_DEADLINE | HYPERVISOR),
            X2APIC | TSC_DEADLINE | HYPERVISOR
        );
        assert_eq!(edx & HTT != 0, count > 1);
        assert_eq!(regs(&table, 0xb, 1), [bits, count.into(), 0x201, id.into()]);
        assert_eq!(
            regs(&table, 0x8000_0008, 0)[2],
            (u32::from(count) - 1) | (bits << 12)
        );
    }
}

#[test]
fn the_real_table_is_accepted() {
    let Ok(kvm) = crate::kvm::open() else {
        eprintln!("\n!!! SKIPPED: no usable /dev/kvm here\n");
        return;
    };
    let policy = Policy::new(&supported(&kvm).unwrap(), this_processor);
    let vm = crate::kvm::Vm::new(&kvm).unwrap();
    vm.split_irqchip().unwrap();
    for id in 0..2 {
        let vcpu = vm.create_vcpu(id).unwrap();
        vcpu.set_cpuid(&policy.vcpu(id, 2).unwrap()).unwrap();
    }
}
