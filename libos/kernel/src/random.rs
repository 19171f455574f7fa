//! Randomness: ChaCha20, keyed from the monitor's entropy, RDRAND and the time stamp counter; from virtio-rng where the monitor gave no
//! entropy, and again after every 16 MiB.

use crate::arch::rdtsc;
use crate::config;
use crate::console::{Bus, Dma};
use crate::lock::Locked;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use unik_virtio::mmio::{BatchedMmio, Prefetch, identify};
use unik_virtio::rng::{QUEUES, Rng};
use unik_virtio::{DeviceType, DriverError};

/// Bytes given out between two keys.
const REKEY: u64 = 16 << 20;
/// Looks for an answer of the device before it is given up.
const SPINS: usize = 1_000_000;

struct Generator {
    stream: ChaCha20Rng,
    /// Bytes until the next key.
    left: u64,
}

static GENERATOR: Locked<Option<Generator>> = Locked::new(None);

/// A value from RDRAND, or 0.
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

/// Keys the generator from `seed` (as many bytes as there are) and the processor.
pub fn init(seed: &[u8], has_rdrand: bool) {
    let mut key = [0u8; 32];
    mix(&mut key, seed);
    for chunk in key.chunks_exact_mut(8) {
        let more = rdrand(has_rdrand) ^ rdtsc().rotate_left(32);
        mix(chunk, &more.to_le_bytes());
    }
    // Without a seed the first use asks the device; bringing it up at boot would cost every start.
    let left = if seed.is_empty() { 0 } else { REKEY };
    *GENERATOR.get() = Some(Generator {
        stream: ChaCha20Rng::from_seed(key),
        left,
    });
}

fn mix(key: &mut [u8], more: &[u8]) {
    let len = key.len();
    for (index, byte) in more.iter().enumerate() {
        key[index % len] ^= byte;
    }
}

/// 32 bytes from virtio-rng, if there is one.
fn from_device() -> Result<[u8; 32], DriverError> {
    let windows: alloc::vec::Vec<u64> = config::get()
        .windows
        .iter()
        .map(|window| window.0)
        .collect();
    let kinds = identify(&Bus, &windows);
    let mut bytes = [0; 32];
    if let Some(at) = kinds
        .iter()
        .position(|kind| *kind == Some(DeviceType::EntropySource))
    {
        let prefetch = Prefetch {
            queues: QUEUES,
            config_words: 0,
            trust_type: true,
        };
        let transport = BatchedMmio::probe(Bus, windows[at], DeviceType::EntropySource, prefetch)?;
        Rng::<Dma, _>::new(transport)?.fill(&mut bytes, SPINS)?;
    }
    Ok(bytes)
}

impl Generator {
    fn rekey(&mut self) {
        let mut key = [0; 32];
        self.stream.fill_bytes(&mut key);
        mix(&mut key, &rdtsc().to_le_bytes());
        // A device that fails adds nothing and takes nothing away.
        mix(&mut key, &from_device().unwrap_or_default());
        self.stream = ChaCha20Rng::from_seed(key);
        self.left = REKEY;
    }
}

/// Fills `out`.
pub fn fill(out: &mut [u8]) {
    if let Some(generator) = GENERATOR.get().as_mut() {
        if generator.left == 0 {
            generator.rekey();
        }
        generator.stream.fill_bytes(out);
        generator.left = generator.left.saturating_sub(out.len() as u64);
    }
}

/// A random number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
