//! The builder of virtual machines and what it builds: memory, interrupt chips, vCPUs, the bus with its devices.
//!
//! What every guest needs is here; what a kind of guest needs (which devices, what lies in memory, how the first vCPU
//! starts) is said by the caller: [`Machine::with_ram`], then [`Machine::attach`] for each device, then [`Machine::power_on`].
//! The order is the one that starts fastest: the slowest question to KVM is asked first, by the first vCPU's own
//! thread ([`vcpus::FirstVcpu`]), while this one creates everything else.

pub mod balloon;
pub mod bus;
pub mod console;
pub mod disk;
pub mod interrupts;
pub mod net;
pub mod rng;
pub mod slot;
pub mod socket;
pub mod vcpus;
pub mod vsock;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unik_abi::layout;
use unik_devices::rng::Rng;
use unik_host::kvm::{self, Vm};
use unik_host::memory::GuestRam;
use unik_host::seccomp::{self, Kind};
use unik_host::vcpu::Vcpu;

use crate::error::Error;
use bus::{Bus, Ports};
use interrupts::{Interrupts, Line};
use rng::{HostEntropy, RngWindow};
use slot::{Slot, Window};
use vcpus::{Entry, FirstVcpu, Running};

/// How large a machine is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of RAM.
    pub memory: u64,
    /// Number of vCPUs.
    pub cpus: u8,
}

/// Where a virtio device has its place.
#[derive(Clone)]
pub struct Place {
    /// Guest physical address of its window.
    pub window: u64,
    /// Its global system interrupt.
    pub gsi: u32,
    /// The wire to that interrupt.
    pub line: Line,
}

/// A machine that does not run yet.
pub struct Machine {
    /// The virtual machine.
    pub vm: Arc<Vm>,
    /// Its memory.
    pub ram: GuestRam,
    /// Frequency of the guests's time stamp counter in kHz, 0 when KVM does not know.
    pub tsc_khz: u32,
    /// Guest TSC minus host TSC.
    pub tsc_offset: i64,
    interrupts: Arc<Interrupts>,
    windows: Vec<Arc<dyn Window>>,
    ports: Option<Arc<dyn Ports>>,
    first: FirstVcpu,
    others: Vec<Vcpu>,
}

impl Machine {
    /// Creates interrupt chips and vCPUs around memory from [`reserve`] that may have been filled already.
    pub fn with_ram(mut first: FirstVcpu, size: Size, ram: GuestRam) -> Result<Self, Error> {
        // Memory before the first vCPU: a slot added while a vCPU is busy in KVM waits for it.
        let vm = Arc::new(Vm::new(first.kvm())?);
        vm.add_ram(&ram)?;
        vm.split_irqchip()?;
        let vcpu = vm.create_vcpu(0)?;
        let (tsc_khz, tsc_offset) = (vcpu.tsc_khz().unwrap_or(0), vcpu.tsc_offset());
        first.adopt(vcpu, size.cpus)?;
        let others = (1..size.cpus)
            .map(|id| vm.create_vcpu(id))
            .collect::<Result<Vec<_>, _>>()?;
        let interrupts = Arc::new(Interrupts::new(Arc::clone(&vm)));
        Ok(Self {
            vm,
            ram,
            tsc_khz,
            tsc_offset,
            interrupts,
            windows: Vec::new(),
            ports: None,
            first,
            others,
        })
    }

    /// The place that the next attached device gets.
    pub fn next_place(&self) -> Place {
        let index = self.windows.len() as u32;
        let gsi = layout::VIRTIO_GSI_BASE + index;
        Place {
            window: layout::VIRTIO_MMIO_PADDR + u64::from(index) * layout::VIRTIO_MMIO_STRIDE,
            gsi,
            line: Line::new(Arc::clone(&self.interrupts), gsi),
        }
    }

    /// The wire to the interrupt pin `gsi`, for a device at a fixed place.
    pub fn line(&self, gsi: u32) -> Line {
        Line::new(Arc::clone(&self.interrupts), gsi)
    }

    /// Replaces the usual ports.
    pub fn set_ports(&mut self, ports: Arc<dyn Ports>) {
        self.ports = Some(ports);
    }

    /// Number of vCPUs.
    pub fn cpus(&self) -> u8 {
        self.others.len() as u8 + 1
    }

    /// Number of attached devices.
    pub fn devices(&self) -> usize {
        self.windows.len()
    }

    /// Attaches a virtio-rng over the host's generator.
    pub fn attach_entropy(&mut self) {
        let place = self.next_place();
        let slot = Slot::new(Rng::new(HostEntropy), self.ram.view().clone(), place.line);
        self.attach(Arc::new(RngWindow(slot)));
    }

    /// Puts a device into [`Self::next_place`].
    pub fn attach(&mut self, window: Arc<dyn Window>) {
        self.windows.push(window);
    }

    /// Announcements of all attached devices for a kernel command line.
    pub fn device_cmdline(&self) -> String {
        let announce = |index: usize| {
            let window = layout::VIRTIO_MMIO_PADDR + index as u64 * layout::VIRTIO_MMIO_STRIDE;
            let gsi = layout::VIRTIO_GSI_BASE + index as u32;
            format!("virtio_mmio.device=4K@{window:#x}:{gsi}")
        };
        (0..self.windows.len())
            .map(announce)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Starts the first vCPU at `entry`; the others wait until the guest starts them.
    pub fn power_on(self, entry: Entry) -> Result<Running, Error> {
        let mem = self.ram.view().clone();
        let bus = Bus::new(self.interrupts, self.windows, mem, self.ports)
            .map_err(Error::host("create an event"))?;
        self.first.start(self.vm, Arc::new(bus), entry, self.others)
    }
}

/// Reserves `memory` bytes for a guest, with the hole for devices below 4 GiB.
pub fn reserve(memory: u64) -> Result<GuestRam, Error> {
    Ok(GuestRam::reserve(
        memory,
        layout::MMIO_HOLE_START,
        layout::MMIO_HOLE_END,
    )?)
}

/// Why a machine cannot exist here, if so: opens `/dev/kvm` and starts asking what it supports.
pub fn prepare() -> Result<FirstVcpu, Error> {
    FirstVcpu::spawn(Arc::new(kvm::open()?))
}

/// Confines this thread to the system calls that such a thread needs.
pub fn confine(kind: Kind) -> Result<(), Error> {
    seccomp::enter(kind).map_err(Error::host(
        "confine the monitor (seccomp; --no-seccomp runs without)",
    ))
}

/// Locks; a value whose thread panicked is still worth having: all of them are plain data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
