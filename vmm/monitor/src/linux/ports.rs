//! The ports of a Linux machine: serial line, power; and the boot timer's address.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::layout::{BOOT_TIMER, BOOT_TIMER_VALUE, COM1};
use super::power::Power;
use super::serial::SerialLine;
use crate::machine::bus::{ExitValue, Ports};
use crate::timings::Clock;

/// Everything at fixed places.
pub struct LinuxPorts {
    /// The serial line.
    pub serial: Arc<SerialLine>,
    /// Ways to end.
    pub power: Power,
    /// Says when the guest came up, where that was asked for: from when on, in steps of how many kHz.
    pub boot_timer: Option<(Clock, u32)>,
}

impl Ports for LinuxPorts {
    fn write(&self, port: u16, data: &[u8]) -> ControlFlow<ExitValue> {
        if let Some(offset) = port.checked_sub(COM1).filter(|&offset| offset < 8) {
            self.serial.write(offset, data);
            return ControlFlow::Continue(());
        }
        let first = data.first().copied().unwrap_or(0);
        match self.power.write(port, first) {
            Some(end) => ControlFlow::Break(end as u32),
            None => ControlFlow::Continue(()),
        }
    }

    fn read(&self, port: u16, data: &mut [u8]) {
        if let Some(offset) = port.checked_sub(COM1).filter(|&offset| offset < 8) {
            self.serial.read(offset, data);
        } else {
            data.fill(self.power.read(port).unwrap_or(0xff));
        }
    }

    fn memory_write(&self, address: u64, data: &[u8]) {
        if let (BOOT_TIMER, [BOOT_TIMER_VALUE, ..], Some((clock, khz))) =
            (address, data, self.boot_timer)
        {
            crate::errors::say(&format!(
                "boot timer: {:.3} ms\n",
                clock.steps() as f64 / f64::from(khz.max(1))
            ));
        }
    }
}
