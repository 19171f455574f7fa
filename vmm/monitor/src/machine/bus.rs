//! Where guest accesses outside memory go: ports and device windows. Shared by all vCPU threads.

use std::io::Stderr;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use unik_abi::control::{PORT_DEBUG, PORT_EXIT};
use unik_devices::{debug_port, debug_port::DebugPort, exit_port};

/// What ports and windows lead to.
pub struct Bus {
    debug: Mutex<DebugPort<Stderr>>,
}

/// The guest wrote this to its exit port.
pub type ExitValue = u32;

impl Bus {
    /// A bus with the fixed ports.
    pub fn new() -> Self {
        Self {
            debug: Mutex::new(DebugPort::new(std::io::stderr())),
        }
    }

    /// A guest's `out`. Ports without a device swallow it, as on a PC.
    pub fn port_write(&self, port: u16, data: &[u8]) -> ControlFlow<ExitValue> {
        match port {
            PORT_DEBUG => lock(&self.debug).write(data),
            PORT_EXIT => return ControlFlow::Break(exit_port::value(data)),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// A guest's `in`. Ports without a device read as all ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(if port == PORT_DEBUG {
            debug_port::PRESENT
        } else {
            0xff
        });
    }

    /// A guest's write outside memory.
    pub fn mmio_write(&self, _addr: u64, _data: &[u8]) {}

    /// A guest's read outside memory.
    pub fn mmio_read(&self, _addr: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    /// Passes on text that waits for the end of its line.
    pub fn flush(&self) {
        lock(&self.debug).flush();
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

/// A device whose thread panicked is still worth asking: its state is plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
