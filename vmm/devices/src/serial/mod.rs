//! A 16550 serial port (rust-vmm's model) that only sends: for the last words of guests that know no better console.
//!
//! Every byte costs an exit. Nothing is ever received, and no interrupt is raised.

use std::convert::Infallible;
use std::io::Write;

use vm_superio::{Serial, Trigger};

/// First port of COM1.
pub const COM1: u16 = 0x3f8;
/// Number of ports.
pub const PORTS: u16 = 8;

struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The port; text goes to `W`.
pub struct SerialPort<W: Write> {
    model: Serial<NoInterrupt, vm_superio::serial::NoEvents, W>,
}

/// Its registers.
pub type State = vm_superio::SerialState;

impl<W: Write> SerialPort<W> {
    /// A port whose text goes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            model: Serial::new(NoInterrupt, out),
        }
    }

    /// The guest writes `data` to the port `offset` from the first.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for &byte in data {
            // An error of the stream is nobody's concern, least of all the guest's.
            let _ = self.model.write(offset as u8, byte);
        }
    }

    /// The guest reads there.
    pub fn read(&mut self, offset: u16, data: &mut [u8]) {
        for byte in data {
            *byte = self.model.read(offset as u8);
        }
    }

    /// All registers.
    pub fn state(&self) -> State {
        self.model.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_out_and_the_line_is_always_free() {
        let mut text = Vec::new();
        let mut port = SerialPort::new(&mut text);
        let mut status = [0];
        port.read(5, &mut status);
        assert_eq!(status[0] & 0x20, 0x20);
        port.write(0, b"panic");
        drop(port);
        assert_eq!(text, b"panic");
    }

    #[test]
    fn every_register_is_harmless() {
        let mut port = SerialPort::new(std::io::sink());
        for offset in 0..PORTS {
            for value in 0..=255 {
                port.write(offset, &[value]);
                port.read(offset, &mut [0]);
            }
        }
        // Looped back bytes wait in a buffer of bounded length.
        port.write(4, &[0x10]);
        port.write(0, &[7; 1000]);
        assert!(port.state().in_buffer.len() <= 64);
    }
}
