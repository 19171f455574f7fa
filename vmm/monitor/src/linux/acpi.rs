//! ACPI tables: hardware-reduced, processors, one I/O APIC, and in the DSDT every device that is not found by itself.
//!
//! Stock kernels find virtio-mmio devices through `LNRO0005` devices and nothing else. Source: ACPI specification 6.5.

use acpi_tables::Aml;
use acpi_tables::aml::{
    self, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use unik_abi::layout::{IOAPIC_PADDR, VIRTIO_GSI_BASE, VIRTIO_MMIO_PADDR, VIRTIO_MMIO_STRIDE};

use super::layout;

const OEM: [u8; 6] = *b"UNIK  ";
const TABLE: [u8; 8] = *b"UNIKVMM ";
const REVISION: u32 = 1;
const LOCAL_APIC: u32 = 0xfee0_0000;

/// `IAPC_BOOT_ARCH`: no VGA, no MSI restriction, no CMOS clock.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;

/// The sleep type of "off" in [`layout::SLEEP_CONTROL`].
pub const SLEEP_TYPE_OFF: u8 = 5;

/// All tables for a machine with this many vCPUs and virtio devices, as they are to lie at `base`; the RSDP comes first.
pub fn tables(base: u64, cpus: u8, devices: usize) -> Vec<u8> {
    let mut area = Area {
        base,
        bytes: vec![0; Rsdp::len().next_multiple_of(16)],
    };
    let dsdt = area.put(&bytes(&dsdt(devices)));
    let fadt = area.put(&bytes(&fadt(dsdt)));
    let madt = area.put(&bytes(&madt(cpus)));
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.put(&bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    area.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    area.bytes
}

struct Area {
    base: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table and returns its address.
    fn put(&mut self, table: &[u8]) -> u64 {
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        at
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    table.to_aml_bytes(&mut out);
    out
}

fn port(address: u16) -> GAS {
    GAS::new(
        Space::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        address.into(),
    )
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Wbinvd);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(layout::RESET);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::SLEEP_CONTROL + 1);
    fadt.finalize()
}

fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM,
        TABLE,
        REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    for id in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(cpus, IOAPIC_PADDR as u32, 0));
    madt
}

fn dsdt(devices: usize) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    let mut body = Vec::new();
    (0..devices).for_each(|index| virtio(index, &mut body));
    serial(&mut body);
    panic_port(&mut body);
    power(&mut body);
    dsdt.append_slice(&body);
    dsdt
}

/// A virtio-mmio device: window and edge-triggered interrupt.
fn virtio(index: usize, out: &mut Vec<u8>) {
    let window = VIRTIO_MMIO_PADDR + index as u64 * VIRTIO_MMIO_STRIDE;
    let registers = Memory32Fixed::new(true, window as u32, VIRTIO_MMIO_STRIDE as u32);
    let interrupt = Interrupt::new(true, true, false, false, VIRTIO_GSI_BASE + index as u32);
    let (number, one) = (index as u32, aml::ONE);
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    let (hid, uid) = (
        Name::new("_HID".into(), &"LNRO0005"),
        Name::new("_UID".into(), &number),
    );
    let (coherent, settings) = (
        Name::new("_CCA".into(), &one),
        Name::new("_CRS".into(), &resources),
    );
    let path = format!("V{index:03}");
    in_system_bus(
        &Device::new(Path::new(&path), vec![&hid, &uid, &coherent, &settings]),
        out,
    );
}

fn serial(out: &mut Vec<u8>) {
    let ports = IO::new(layout::COM1, layout::COM1, 0, 8);
    let interrupt = Interrupt::new(true, true, false, false, layout::COM1_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let (id, zero) = (EISAName::new("PNP0501"), aml::ZERO);
    let (hid, uid) = (
        Name::new("_HID".into(), &id),
        Name::new("_UID".into(), &zero),
    );
    let settings = Name::new("_CRS".into(), &resources);
    in_system_bus(
        &Device::new("COM1".into(), vec![&hid, &uid, &settings]),
        out,
    );
}

fn panic_port(out: &mut Vec<u8>) {
    let ports = IO::new(layout::PANIC, layout::PANIC, 1, 1);
    let resources = ResourceTemplate::new(vec![&ports]);
    let (hid, settings) = (
        Name::new("_HID".into(), &"QEMU0001"),
        Name::new("_CRS".into(), &resources),
    );
    let (present, sta) = (0xfu8, "_STA");
    let status = Name::new(sta.into(), &present);
    in_system_bus(
        &Device::new("PVPN".into(), vec![&hid, &status, &settings]),
        out,
    );
}

/// The power button, the device that reports its press, and the sleep type of "off".
fn power(out: &mut Vec<u8>) {
    let (button, zero) = (EISAName::new("PNP0C0C"), aml::ZERO);
    let (hid, uid) = (
        Name::new("_HID".into(), &button),
        Name::new("_UID".into(), &zero),
    );
    in_system_bus(&Device::new("PWRB".into(), vec![&hid, &uid]), out);
    let interrupt = Interrupt::new(true, true, false, false, layout::BUTTON_GSI);
    let resources = ResourceTemplate::new(vec![&interrupt]);
    let (hid, settings) = (
        Name::new("_HID".into(), &"ACPI0013"),
        Name::new("_CRS".into(), &resources),
    );
    let (pressed, target) = (0x80u8, Path::new("\\_SB_.PWRB"));
    let notify = Notify::new(&target, &pressed);
    let event = Method::new("_EVT".into(), 1, true, vec![&notify]);
    in_system_bus(
        &Device::new("GED_".into(), vec![&hid, &uid, &settings, &event]),
        out,
    );
    let (kind, none) = (SLEEP_TYPE_OFF, aml::ZERO);
    let package = aml::Package::new(vec![&kind, &none, &none, &none]);
    Name::new("_S5_".into(), &package).to_aml_bytes(out);
}

fn in_system_bus(device: &Device<'_>, out: &mut Vec<u8>) {
    Scope::new("\\_SB_".into(), vec![device]).to_aml_bytes(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_and_has_a_right_sum() {
        let area = tables(layout::ACPI, 16, 19);
        assert!(area.len() as u64 <= layout::HIGH_START - layout::ACPI);
        let at = |address: u64| &area[(address - layout::ACPI) as usize..];
        let word =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let table = |address: u64| {
            let bytes = at(address);
            let len = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
            assert_eq!(sum(&bytes[..len]), 0, "{:?}", &bytes[..4]);
            bytes[..len].to_vec()
        };
        assert_eq!((&area[..8], sum(&area[..36])), (&b"RSD PTR "[..], 0));
        let xsdt = table(word(&area, 24));
        let (fadt, madt) = (table(word(&xsdt, 36)), table(word(&xsdt, 44)));
        let dsdt = table(word(&fadt, 140));
        assert_eq!(
            (&fadt[..4], &madt[..4], &dsdt[..4]),
            (&b"FACP"[..], &b"APIC"[..], &b"DSDT"[..])
        );
        assert_eq!(dsdt.windows(8).filter(|w| w == b"LNRO0005").count(), 19);
        assert_eq!(madt.len(), 44 + 16 * 8 + 12);
    }
}
