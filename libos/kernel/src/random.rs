//! Randomness: ChaCha20 seeded from the monitor's entropy, RDRAND and the time stamp counter.

use crate::arch::rdtsc;
use crate::lock::Locked;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

static GENERATOR: Locked<Option<ChaCha20Rng>> = Locked::new(None);

/// Whether the processor has RDRAND, and one value from it.
fn rdrand(available: bool) -> u64 {
    if !available {
        return 0;
    }
    for _ in 0..10 {
        let (value, ok): (u64, u8);
        // SAFETY: CPUID says that RDRAND is there.
        unsafe {
            core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack))
        };
        if ok != 0 {
            return value;
        }
    }
    0
}

/// Seeds the generator from `seed` (as many bytes as there are) and the processor.
pub fn init(seed: &[u8], has_rdrand: bool) {
    let mut key = [0u8; 32];
    for (index, byte) in seed.iter().enumerate() {
        key[index % 32] ^= byte;
    }
    for chunk in key.chunks_exact_mut(8) {
        let mixed = rdrand(has_rdrand) ^ rdtsc().rotate_left(32);
        chunk
            .iter_mut()
            .zip(mixed.to_le_bytes())
            .for_each(|(byte, more)| *byte ^= more);
    }
    *GENERATOR.get() = Some(ChaCha20Rng::from_seed(key));
}

/// Fills `out`.
pub fn fill(out: &mut [u8]) {
    if let Some(generator) = GENERATOR.get().as_mut() {
        generator.fill_bytes(out);
    }
}

/// A random number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
