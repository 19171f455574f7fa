//! Ports by which a guest ends or reports: ACPI sleep and reset registers, keyboard controller, chip-set reset, panic.

use std::sync::atomic::{AtomicBool, Ordering};

use super::acpi::SLEEP_TYPE_OFF;
use super::layout;

/// How a guest ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    /// It switched itself off.
    Off = 0,
    /// It asked for a reset: `reboot`, or `panic=N` of a kernel that did not say that it panicked.
    Reset = 1,
    /// Its kernel panicked.
    Panic = 2,
}

impl End {
    /// Undoes `as u32`.
    pub fn from_u32(value: u32) -> Option<Self> {
        [Self::Off, Self::Reset, Self::Panic]
            .into_iter()
            .find(|end| *end as u32 == value)
    }
}

/// The ports' memory.
#[derive(Debug, Default)]
pub struct Power {
    panicked: AtomicBool,
}

impl Power {
    /// The guest writes `value` to `port`. `Some`: that was the end.
    pub fn write(&self, port: u16, value: u8) -> Option<End> {
        /// ACPI 4.8.3.7: sleep enable, and the type's place.
        const SLEEP_ENABLE: u8 = 1 << 5;
        match (port, value) {
            (layout::SLEEP_CONTROL, v) if v & SLEEP_ENABLE != 0 && v >> 2 & 7 == SLEEP_TYPE_OFF => {
                Some(End::Off)
            }
            (layout::RESET, layout::RESET_VALUE) | (layout::KEYBOARD_COMMAND, 0xfe) => {
                Some(self.reset())
            }
            (layout::RESET_CONTROL, v) if v & 4 != 0 => Some(self.reset()),
            (layout::PANIC, v) if v & 1 != 0 => {
                self.panicked.store(true, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }

    /// The guest reads from `port`; `None` when the port is not one of these.
    pub fn read(&self, port: u16) -> Option<u8> {
        match port {
            layout::SLEEP_CONTROL..=layout::RESET => Some(0),
            // pvpanic: which events it understands. Keyboard controller: ready for commands, no data.
            layout::PANIC => Some(1),
            layout::KEYBOARD_COMMAND => Some(0),
            _ => None,
        }
    }

    fn reset(&self) -> End {
        if self.panicked.load(Ordering::Relaxed) {
            End::Panic
        } else {
            End::Reset
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end() {
        let power = Power::default();
        assert_eq!(power.write(layout::SLEEP_CONTROL, 0x34), Some(End::Off));
        for (port, value) in [(layout::RESET, 1), (0x64, 0xfe), (0xcf9, 6)] {
            assert_eq!(power.write(port, value), Some(End::Reset));
        }
        for (port, value) in [
            (layout::SLEEP_CONTROL, 0x14),
            (layout::RESET, 0),
            (0x64, 0x20),
            (0xcf9, 2),
            (0x80, 0xff),
        ] {
            assert_eq!(power.write(port, value), None);
        }
        assert_eq!(power.write(layout::PANIC, 1), None);
        assert_eq!(power.write(layout::RESET, 1), Some(End::Panic));
        assert_eq!(End::from_u32(2), Some(End::Panic));
        assert_eq!(End::from_u32(3), None);
    }
}
