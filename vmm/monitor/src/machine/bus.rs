//! Where guest accesses outside memory go: ports and device windows. Shared by all vCPU threads.

use std::io;
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use unik_abi::control::{
    BATCH_LEN, PORT_BATCH, PORT_DEBUG, PORT_EXIT, PORT_YIELD, RegisterAccess, RegisterBatch,
};
use unik_abi::layout;
use unik_devices::debug_port::{self, DebugPort};
use unik_devices::serial::{self, COM1, SerialPort};
use unik_devices::{exit_port, ioapic};
use unik_host::exit::Exit;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::interrupts::Interrupts;
use super::lock;
use super::slot::Window;
use crate::errors::Errors;

const COM1_END: u16 = COM1 + serial::PORTS;

/// What a kind of guest has at fixed places, in place of the usual ports.
pub trait Ports: Send + Sync {
    /// A guest's `out`; `Break` ends the machine.
    fn write(&self, port: u16, data: &[u8]) -> ControlFlow<ExitValue>;
    /// A guest's `in`; all of `data` is filled.
    fn read(&self, port: u16, data: &mut [u8]);
    /// A guest's write to an address where nothing is.
    fn memory_write(&self, address: u64, data: &[u8]);
}

/// How often vCPUs left the guest, by reason.
#[derive(Debug, Default)]
pub struct Exits {
    port: AtomicU64,
    window: AtomicU64,
    other: AtomicU64,
}

impl Exits {
    /// Counts one exit.
    pub fn count(&self, exit: &Exit<'_>) {
        let reason = match exit {
            Exit::IoOut { .. } | Exit::IoIn { .. } => &self.port,
            Exit::MmioRead { .. } | Exit::MmioWrite { .. } => &self.window,
            _ => &self.other,
        };
        reason.fetch_add(1, Ordering::Relaxed);
    }

    /// Reasons and counts.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [
            ("port", self.port.load(Ordering::Relaxed)),
            ("window", self.window.load(Ordering::Relaxed)),
            ("other", self.other.load(Ordering::Relaxed)),
        ]
    }
}

/// What ports and windows lead to.
pub struct Bus {
    /// How often each was used.
    pub exits: Arc<Exits>,
    ports: Option<Arc<dyn Ports>>,
    errors: Errors,
    debug: Mutex<DebugPort<Errors>>,
    serial: Mutex<SerialPort<Errors>>,
    interrupts: Arc<Interrupts>,
    windows: Vec<Arc<dyn Window>>,
    mem: GuestMemoryMmap,
}

/// The guest wrote this to its exit port.
pub type ExitValue = u32;

impl Bus {
    /// A bus with the fixed ports, the I/O APIC and these virtio windows, in the order of their addresses. Fails when the host has no
    /// more events.
    pub fn new(
        interrupts: Arc<Interrupts>,
        windows: Vec<Arc<dyn Window>>,
        mem: GuestMemoryMmap,
        ports: Option<Arc<dyn Ports>>,
    ) -> io::Result<Self> {
        let errors = Errors::new()?;
        Ok(Self {
            exits: Arc::default(),
            ports,
            debug: Mutex::new(DebugPort::new(errors.clone())),
            serial: Mutex::new(SerialPort::new(errors.clone())),
            errors,
            interrupts,
            windows,
            mem,
        })
    }

    /// A guest's `out`. Ports without a device swallow it, as on a PC.
    pub fn port_write(&self, port: u16, data: &[u8]) -> ControlFlow<ExitValue> {
        if let Some(ports) = &self.ports {
            return ports.write(port, data);
        }
        match port {
            PORT_DEBUG => lock(&self.debug).write(data),
            PORT_EXIT => return ControlFlow::Break(exit_port::value(data)),
            PORT_BATCH => self.batch(data),
            PORT_YIELD => std::thread::yield_now(),
            COM1..COM1_END => lock(&self.serial).write(port - COM1, data),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// Performs the [`RegisterBatch`] whose address the guest wrote. What does not lie in guest RAM ends the batch.
    fn batch(&self, data: &[u8]) {
        let Ok(address) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return;
        };
        let address = u64::from(address);
        let count: u32 = self.mem.read_obj(GuestAddress(address)).unwrap_or(0);
        let first = address + offset_of!(RegisterBatch, accesses) as u64;
        for i in 0..u64::from(count).min(BATCH_LEN as u64) {
            if self
                .access(first + i * size_of::<RegisterAccess>() as u64)
                .is_err()
            {
                return;
            }
        }
    }

    fn access(&self, at: u64) -> Result<(), GuestMemoryError> {
        let field = |offset: usize| GuestAddress(at + offset as u64);
        let value_at = field(offset_of!(RegisterAccess, value));
        let paddr: u64 = self
            .mem
            .read_obj(field(offset_of!(RegisterAccess, paddr)))?;
        let write: u32 = self
            .mem
            .read_obj(field(offset_of!(RegisterAccess, write)))?;
        let mut bytes = [0; 4];
        if write == 0 {
            self.mmio_read(paddr, &mut bytes);
            self.mem.write_slice(&bytes, value_at)
        } else {
            self.mem.read_slice(&mut bytes, value_at)?;
            self.mmio_write(paddr, &bytes);
            Ok(())
        }
    }

    /// A guest's `in`. Ports without a device read as all ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        if let Some(ports) = &self.ports {
            return ports.read(port, data);
        }
        match port {
            PORT_DEBUG => data.fill(debug_port::PRESENT),
            COM1..COM1_END => lock(&self.serial).read(port - COM1, data),
            _ => data.fill(0xff),
        }
    }

    /// A guest's write outside memory. Addresses without a device swallow it.
    pub fn mmio_write(&self, addr: u64, data: &[u8]) {
        match self.target(addr) {
            Some((Target::Window(window), offset)) => window.write(offset, data),
            Some((Target::IoApic, offset)) => self.interrupts.write(offset, data),
            None => {
                if let Some(ports) = &self.ports {
                    ports.memory_write(addr, data);
                }
            }
        }
    }

    /// A guest's read outside memory. Addresses without a device read as all ones.
    pub fn mmio_read(&self, addr: u64, data: &mut [u8]) {
        data.fill(0);
        match self.target(addr) {
            Some((Target::Window(window), offset)) => window.read(offset, data),
            Some((Target::IoApic, offset)) => self.interrupts.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A vCPU finished a level-triggered interrupt.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.interrupts.end_of_interrupt(vector);
    }

    fn target(&self, addr: u64) -> Option<(Target<'_>, u64)> {
        if let Some(offset) = addr.checked_sub(layout::IOAPIC_PADDR) {
            return (offset < ioapic::WINDOW_LEN).then_some((Target::IoApic, offset));
        }
        let offset = addr.checked_sub(layout::VIRTIO_MMIO_PADDR)?;
        let index = usize::try_from(offset / layout::VIRTIO_MMIO_STRIDE).ok()?;
        let window = self.windows.get(index)?;
        Some((
            Target::Window(window.as_ref()),
            offset % layout::VIRTIO_MMIO_STRIDE,
        ))
    }

    /// The machine is to stop: no vCPU waits any longer for somebody who reads standard error.
    pub fn give_up(&self) {
        self.errors.give_up();
    }

    /// Passes on text that waits for the end of its line.
    pub fn flush(&self) {
        lock(&self.debug).flush();
    }
}

enum Target<'a> {
    Window(&'a dyn Window),
    IoApic,
}
