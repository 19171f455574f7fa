//! The virtual machine as Linux sees it: memory slots, interrupt controllers, interrupt messages and doorbells.
//!
//! The chip set is split: the local APICs are the kernel's, the I/O APIC is a device model of ours. A split chip set is
//! created and destroyed several milliseconds faster than the kernel's whole one.

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_IRQ_ROUTING_MSI,
    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS, KvmIrqRouting,
    kvm_enable_cap, kvm_irq_routing_entry, kvm_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, VmFd};

pub use kvm_ioctls::Kvm;

use crate::EventFd;
use crate::memory::GuestRam;
use crate::vcpu::Vcpu;

/// Number of I/O APIC pins that the split chip set reserves.
pub const IOAPIC_PINS: u64 = 24;

/// Why KVM cannot be used or refused something.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no `/dev/kvm`.
    #[error(
        "this machine has no /dev/kvm: load the module (modprobe kvm_intel or kvm_amd) or switch virtualisation on in the \
         firmware or the cloud machine's type"
    )]
    Missing,
    /// `/dev/kvm` is there but not for this user.
    #[error(
        "no permission to open /dev/kvm: add yourself to its group (sudo usermod -aG kvm $USER) and log in again"
    )]
    Denied,
    /// `/dev/kvm` cannot be opened for another reason.
    #[error("cannot open /dev/kvm: {0}")]
    Open(kvm_ioctls::Error),
    /// Too old a KVM.
    #[error("this KVM has no {0}: Linux 4.7 or newer is needed")]
    Capability(&'static str),
    /// A call failed.
    #[error("KVM refused to {what}: {source}")]
    Call {
        /// What was wanted.
        what: &'static str,
        /// What the host said.
        source: kvm_ioctls::Error,
    },
}

/// Names the step of a failed call.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Call { what, source }
}

/// An interrupt as a message: where and what a device writes to reach a local APIC (Intel SDM volume 3, "Message signalled interrupts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Address: destination and its mode.
    pub address: u64,
    /// Data: vector, delivery mode, trigger mode.
    pub data: u32,
}

impl Msi {
    /// A fixed, edge-triggered interrupt with `vector` for the vCPU with this APIC id (below 255).
    pub fn fixed(apic_id: u8, vector: u8) -> Self {
        Self {
            address: 0xfee0_0000 | u64::from(apic_id) << 12,
            data: u32::from(vector),
        }
    }
}

/// Opens `/dev/kvm`.
pub fn open() -> Result<Kvm, KvmError> {
    Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Denied,
        _ => KvmError::Open(error),
    })
}

/// A virtual machine.
pub struct Vm {
    fd: VmFd,
}

impl Vm {
    /// Creates a machine without memory, interrupt controllers or vCPUs.
    pub fn new(kvm: &Kvm) -> Result<Self, KvmError> {
        // A signal during creation makes KVM answer EINTR.
        loop {
            match kvm.create_vm() {
                Ok(fd) => return Ok(Self { fd }),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(failed("create a virtual machine")(error)),
            }
        }
    }

    /// Gives all of `ram` to the guest, a slot for each region.
    pub fn add_ram(&self, ram: &GuestRam) -> Result<(), KvmError> {
        for (slot, region) in ram.regions().iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                guest_phys_addr: region.gpa,
                memory_size: region.len,
                userspace_addr: region.host,
                flags: 0,
            };
            // SAFETY: the region is mapped for the rest of the process's life, and regions do not overlap (both are
            // promises of `GuestRam`).
            unsafe { self.fd.set_user_memory_region(slot) }.map_err(failed("add guest memory"))?;
        }
        Ok(())
    }

    /// Puts the local APICs into the kernel and leaves the I/O APIC ([`IOAPIC_PINS`] pins) to us. Before the first vCPU.
    pub fn split_irqchip(&self) -> Result<(), KvmError> {
        let mut cap = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        cap.args[0] = IOAPIC_PINS;
        self.fd
            .enable_cap(&cap)
            .map_err(|_| KvmError::Capability("split interrupt chips"))
    }

    /// Lets interrupt messages reach APIC ids above 254. Needed only for that many vCPUs.
    pub fn wide_apic_ids(&self) -> Result<(), KvmError> {
        let mut cap = kvm_enable_cap {
            cap: KVM_CAP_X2APIC_API,
            ..Default::default()
        };
        cap.args[0] =
            u64::from(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
        self.fd
            .enable_cap(&cap)
            .map_err(failed("use wide APIC ids"))
    }

    /// Creates the vCPU with this APIC id.
    pub fn create_vcpu(&self, id: u8) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(id))
            .map_err(failed("create a vCPU"))?;
        Ok(Vcpu::new(fd, id))
    }

    /// The most vCPUs that this KVM gives one machine.
    pub fn max_vcpus(&self) -> u32 {
        self.fd.check_extension_int(Cap::MaxVcpus).max(1) as u32
    }

    /// Delivers an interrupt message now. `Ok(false)`: no APIC took it.
    pub fn signal(&self, msi: Msi) -> Result<bool, KvmError> {
        let message = kvm_msi {
            address_lo: msi.address as u32,
            address_hi: (msi.address >> 32) as u32,
            data: msi.data,
            ..Default::default()
        };
        Ok(self
            .fd
            .signal_msi(message)
            .map_err(failed("deliver an interrupt"))?
            > 0)
    }

    /// Tells the kernel which messages the pins of the I/O APIC send, so that it reports the end of those interrupts that are
    /// level-triggered ([`crate::exit::Exit::EndOfInterrupt`]). `routes` pairs pin and message.
    pub fn set_routes(&self, routes: &[(u32, Msi)]) -> Result<(), KvmError> {
        let mut table = KvmIrqRouting::new(routes.len())
            .map_err(|_| KvmError::Capability("room for the interrupt routes"))?;
        for (entry, (gsi, msi)) in table.as_mut_slice().iter_mut().zip(routes) {
            *entry = kvm_irq_routing_entry {
                gsi: *gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi.address_lo = msi.address as u32;
            entry.u.msi.address_hi = (msi.address >> 32) as u32;
            entry.u.msi.data = msi.data;
        }
        self.fd
            .set_gsi_routing(&table)
            .map_err(failed("route interrupts"))
    }

    /// Turns 4-byte guest writes of `value` to the physical address `gpa` into `event`, without an exit to user space.
    /// A machine that ever had one takes more than ten milliseconds to close: for doorbells that ring often.
    pub fn watch_doorbell(&self, event: &EventFd, gpa: u64, value: u32) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(gpa), value)
            .map_err(failed("watch a doorbell"))
    }
}
