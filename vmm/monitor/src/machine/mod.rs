//! The builder of virtual machines and what it builds: memory, vCPUs with their threads, the bus.
//!
//! [`Machine::build`] creates the parts that every guest needs, in the order that starts fastest; the loader and the hand-over
//! then fill memory, and [`Machine::start`] sets the vCPUs going.

pub mod bus;
pub mod vcpus;

use std::sync::Arc;
use std::thread::JoinHandle;

use unik_abi::layout;
use unik_host::cpuid::{self, Policy};
use unik_host::kvm::{self, Kvm, KvmError, Vm};
use unik_host::memory::GuestRam;
use unik_host::vcpu::Vcpu;

use crate::error::Error;
use crate::handover::Placed;
use bus::Bus;
use vcpus::Running;

/// How large a machine is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of RAM.
    pub memory: u64,
    /// Number of vCPUs.
    pub cpus: u8,
}

/// Asks KVM what it supports on a thread of its own, because that takes as long as everything else together.
pub struct Capabilities {
    kvm: Arc<Kvm>,
    policy: JoinHandle<Result<Policy, KvmError>>,
}

impl Capabilities {
    /// Opens `/dev/kvm` and starts asking.
    pub fn ask() -> Result<Self, Error> {
        let kvm = Arc::new(kvm::open()?);
        let asked = Arc::clone(&kvm);
        let policy = std::thread::Builder::new()
            .name("unik-cpuid".into())
            .stack_size(64 << 10)
            .spawn(move || {
                Ok(Policy::new(
                    &cpuid::supported(&asked)?,
                    cpuid::this_processor,
                ))
            })
            .map_err(Error::host("start a thread"))?;
        Ok(Self { kvm, policy })
    }
}

/// A machine that does not run yet.
pub struct Machine {
    /// The virtual machine.
    pub vm: Arc<Vm>,
    /// Its memory.
    pub ram: GuestRam,
    /// Ports and devices.
    pub bus: Arc<Bus>,
    vcpus: Vec<Vcpu>,
    policy: JoinHandle<Result<Policy, KvmError>>,
}

impl Machine {
    /// Creates memory, interrupt controllers and vCPUs.
    pub fn build(capabilities: Capabilities, size: Size) -> Result<Self, Error> {
        let ram = GuestRam::reserve(size.memory, layout::MMIO_HOLE_START, layout::MMIO_HOLE_END)?;
        let vm = Vm::new(&capabilities.kvm)?;
        vm.add_ram(&ram)?;
        vm.split_irqchip()?;
        let vcpus = (0..size.cpus)
            .map(|id| vm.create_vcpu(id))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            vm: Arc::new(vm),
            ram,
            bus: Arc::new(Bus::new()),
            vcpus,
            policy: capabilities.policy,
        })
    }

    /// Frequency of the guest's time stamp counter in kHz.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.vcpus.first().and_then(Vcpu::tsc_khz)
    }

    /// The first vCPU.
    pub fn boot_vcpu(&self) -> &Vcpu {
        &self.vcpus[0]
    }

    /// Starts the first vCPU at the PVH entry point; the others wait until the guest starts them.
    pub fn start(self, entry: u32, placed: Placed) -> Result<Running, Error> {
        let policy = match self.policy.join() {
            Ok(policy) => policy?,
            Err(_) => {
                return Err(Error::host("ask for the CPU's features")(
                    std::io::Error::other("a thread panicked"),
                ));
            }
        };
        let count = self.vcpus.len() as u8;
        for vcpu in &self.vcpus {
            vcpu.set_cpuid(&policy.vcpu(vcpu.id(), count)?)?;
        }
        self.vcpus[0].enter_pvh(entry, placed.start_info, placed.stack, policy.xcr0())?;
        Running::start(self.vm, self.bus, self.vcpus)
    }
}
