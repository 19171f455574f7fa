//! Drivers without any sense: random registers, random rings, random descriptors. Nothing may panic, hang or grow.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Device;
use super::mmio::{Effect, Mmio};
use super::testing::{RAM, bring_up, memory};
use crate::console::{BATCH, Console};
use crate::ioapic::IoApic;
use crate::rng::{Entropy, Rng};

/// A generator (xorshift64*), the same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// Small, plausible, at an edge, or anything.
    fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(17),
            1 => self.below(RAM),
            2 => RAM - self.below(40),
            3 => u64::MAX - self.below(40),
            _ => self.roll(),
        }
    }
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        true
    }
}

/// Lets a senseless driver act; `work` is what the monitor does in between.
fn storm<D: Device>(
    seed: u64,
    device: D,
    mut work: impl FnMut(&mut Mmio<D>, &GuestMemoryMmap, &mut Dice),
) {
    let (mut dice, mem) = (Dice(seed), memory());
    let mut mmio = Mmio::new(device);
    for round in 0..400 {
        if round % 4 != 0 {
            bring_up(&mut mmio, &mem, round % 2 == 0);
        }
        for _ in 0..40 {
            scribble(&mut dice, &mem);
            work(&mut mmio, &mem, &mut dice);
        }
        for _ in 0..40 {
            let (offset, value) = (dice.below(0x120) & !3, dice.value() as u32);
            let effect = mmio.write(offset, &value.to_le_bytes(), &mem);
            assert!(
                !matches!(effect, Effect::Doorbell(queue) if usize::from(queue) >= D::QUEUES.len())
            );
            mmio.read(dice.below(0x200), &mut [0; 4]);
            work(&mut mmio, &mem, &mut dice);
        }
        mmio.take_interrupt();
    }
}

/// Writes something into a descriptor, an index, a ring entry or anywhere.
fn scribble(dice: &mut Dice, mem: &GuestMemoryMmap) {
    let queue = 0x1_0000 * (1 + dice.below(2));
    match dice.below(4) {
        0 => {
            let at = queue + 16 * dice.below(8);
            let flags = dice.below(8) << 32 | dice.below(9) << 48;
            mem.write_obj(dice.value(), GuestAddress(at)).unwrap();
            mem.write_obj(dice.value() & 0xffff_ffff | flags, GuestAddress(at + 8))
                .unwrap();
        }
        1 => {
            let index: u16 = mem.read_obj(GuestAddress(queue + 0x4002)).unwrap();
            mem.write_obj(
                index.wrapping_add(dice.below(3) as u16),
                GuestAddress(queue + 0x4002),
            )
            .unwrap();
        }
        2 => mem
            .write_obj(
                dice.below(9) as u16,
                GuestAddress(queue + 0x4004 + 2 * dice.below(10)),
            )
            .unwrap(),
        _ => mem
            .write_obj(dice.roll(), GuestAddress(dice.below(RAM - 8)))
            .unwrap(),
    }
}

#[test]
fn console() {
    let mut out = Vec::new();
    for seed in 1..=8 {
        storm(seed, Console::new(80, 25), |mmio, mem, dice| {
            match dice.below(4) {
                0 => {
                    let _ = mmio.give_input(mem, b"some input");
                }
                1 => {
                    let _ = mmio.wants_input(mem);
                }
                2 if dice.below(20) == 0 => {
                    let _ = mmio.end_input(mem);
                }
                _ => {
                    out.clear();
                    mmio.collect_output(mem, &mut out);
                    assert!(out.len() <= BATCH);
                }
            }
            let _ = mmio.listen_for_input(mem);
        });
    }
    assert!(out.capacity() <= 2 * BATCH);
}

#[test]
fn entropy() {
    for seed in 1..=8 {
        storm(seed, Rng::new(Zeros), |mmio, mem, _| {
            for _ in 0..3 {
                if !mmio.serve(mem) {
                    break;
                }
            }
        });
    }
}

#[test]
fn ioapic() {
    let (mut chip, mut dice) = (IoApic::default(), Dice(7));
    for _ in 0..200_000 {
        match dice.below(5) {
            0 => {
                let _ = chip.write(
                    dice.below(0x20) & !0xf,
                    &(dice.value() as u32).to_le_bytes(),
                );
            }
            1 => {
                let _ = chip.raise(dice.below(30) as usize);
            }
            2 => chip.lower(dice.below(30) as usize),
            3 => {
                let _ = chip.end_of_interrupt(dice.roll() as u8);
            }
            _ => chip.read(dice.below(0x50), &mut [0; 8]),
        }
        assert!(chip.level_routes().len() <= 24);
    }
}
