//! The I/O APIC (Intel 82093AA): 24 pins, each turned into an interrupt message by its redirection entry.
//!
//! Edge-triggered pins send a message each time they are raised; one that is raised while masked is remembered and sent when
//! the pin is unmasked. Level-triggered pins send one and wait for the end of that interrupt ([`IoApic::end_of_interrupt`]) before
//! the next.

/// Number of pins.
pub const PINS: usize = 24;

/// Length of the register window in bytes.
pub const WINDOW_LEN: u64 = 0x1000;

/// Version register: 24 entries, version 0x11.
const VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;

const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR cannot be written.
const READ_ONLY: u64 = 1 << 12 | REMOTE_IRR;

/// A message to a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// What a register write asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// A message to be sent.
    pub send: Option<Message>,
    /// The set of level-triggered pins or their messages changed ([`IoApic::level_routes`]).
    pub routes_changed: bool,
}

/// All registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    select: u8,
    id: u32,
    entries: [u64; PINS],
    /// Lines that are up (level) or were raised while masked (edge).
    lines: u32,
}

/// The chip.
#[derive(Clone, Debug)]
pub struct IoApic {
    state: State,
}

impl Default for IoApic {
    fn default() -> Self {
        Self {
            state: State {
                select: 0,
                id: 0,
                entries: [MASKED; PINS],
                lines: 0,
            },
        }
    }
}

impl IoApic {
    /// The guest reads at `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            0x00 => self.state.select.into(),
            0x10 => self.register(),
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        for (out, byte) in data.iter_mut().zip(bytes.into_iter().chain([0; 4])) {
            *out = byte;
        }
    }

    fn register(&self) -> u32 {
        match self.state.select {
            0 | 2 => self.state.id,
            1 => VERSION,
            select => match self.entry(select) {
                Some(pin) => (self.state.entries[pin] >> (32 * (select & 1))) as u32,
                None => 0,
            },
        }
    }

    fn entry(&self, select: u8) -> Option<usize> {
        let pin = usize::from(select.checked_sub(0x10)? / 2);
        (pin < PINS).then_some(pin)
    }

    /// The guest writes at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut bytes = [0u8; 4];
        let len = data.len().min(4);
        bytes[..len].copy_from_slice(&data[..len]);
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x00 => self.state.select = value as u8,
            0x10 => return self.set_register(value),
            _ => {}
        }
        Effect::default()
    }

    fn set_register(&mut self, value: u32) -> Effect {
        let select = self.state.select;
        if select == 0 {
            self.state.id = value & 0x0f00_0000;
        }
        let Some(pin) = self.entry(select) else {
            return Effect::default();
        };
        let old = self.state.entries[pin];
        let shift = 32 * (select & 1);
        let written = (old & !(0xffff_ffff << shift) | u64::from(value) << shift) & !READ_ONLY;
        let mut new = written | old & READ_ONLY;
        if new & LEVEL == 0 {
            new &= !REMOTE_IRR;
        }
        self.state.entries[pin] = new;
        Effect {
            send: self.deliver(pin),
            routes_changed: old != new && (old | new) & LEVEL != 0,
        }
    }

    /// Raises the line of `pin`.
    pub fn raise(&mut self, pin: usize) -> Option<Message> {
        if pin >= PINS {
            return None;
        }
        self.state.lines |= 1 << pin;
        self.deliver(pin)
    }

    /// Lowers the line of `pin`.
    pub fn lower(&mut self, pin: usize) {
        if pin < PINS && self.state.entries[pin] & LEVEL != 0 {
            self.state.lines &= !(1 << pin);
        }
    }

    /// A local APIC finished the interrupt with `vector`: lines that are still up send again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> Vec<Message> {
        let mut again = Vec::new();
        for pin in 0..PINS {
            let entry = &mut self.state.entries[pin];
            if *entry as u8 == vector && *entry & LEVEL != 0 && *entry & REMOTE_IRR != 0 {
                *entry &= !REMOTE_IRR;
                again.extend(self.deliver(pin));
            }
        }
        again
    }

    /// The message of `pin` if its line is up and nothing holds it back.
    fn deliver(&mut self, pin: usize) -> Option<Message> {
        let entry = self.state.entries[pin];
        if self.state.lines & 1 << pin == 0 || entry & (MASKED | REMOTE_IRR) != 0 {
            return None;
        }
        if entry & LEVEL != 0 {
            self.state.entries[pin] |= REMOTE_IRR;
        } else {
            self.state.lines &= !(1 << pin);
        }
        Some(message(entry))
    }

    /// Unmasked level-triggered pins and their messages: whoever owns the local APICs must report the end of these.
    pub fn level_routes(&self) -> Vec<(u32, Message)> {
        let level = |(_, entry): &(usize, &u64)| **entry & (LEVEL | MASKED) == LEVEL;
        let route = |(pin, entry): (usize, &u64)| (pin as u32, message(*entry));
        self.state
            .entries
            .iter()
            .enumerate()
            .filter(level)
            .map(route)
            .collect()
    }
}

/// Vector, delivery mode, destination mode and destination in the places where a message has them.
fn message(entry: u64) -> Message {
    let destination = entry >> 56;
    let logical = entry >> 11 & 1;
    let level = if entry & LEVEL != 0 {
        1 << 15 | 1 << 14
    } else {
        0
    };
    Message {
        address: 0xfee0_0000 | destination << 12 | logical << 2,
        data: (entry & 0x7ff) as u32 | level,
    }
}

#[cfg(test)]
mod tests;
