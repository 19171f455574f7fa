//! virtio-rng (specification 5.4): the host's entropy for the guest, a bounded amount for each request.

use vm_memory::GuestMemoryMmap;

use crate::virtio::mmio::Mmio;
use crate::virtio::ring::Ring;
use crate::virtio::{Broken, Device};

/// Most bytes for one request; a driver asks again for more.
const MOST: usize = 4096;

/// Most requests served for one ring of the bell, so that a guest cannot keep its host busy.
const REQUESTS: usize = 64;

/// Where the entropy comes from.
pub trait Entropy {
    /// Fills all of `bytes`; `false` when it cannot.
    fn fill(&mut self, bytes: &mut [u8]) -> bool;
}

/// There is nothing to remember between requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State;

/// A source of entropy.
#[derive(Debug)]
pub struct Rng<E: Entropy> {
    source: E,
    state: State,
}

impl<E: Entropy> Rng<E> {
    /// A device over `source`.
    pub fn new(source: E) -> Self {
        Self {
            source,
            state: State,
        }
    }
}

impl<E: Entropy> Device for Rng<E> {
    const KIND: u32 = 4;
    const FEATURES: u64 = 0;
    const QUEUES: &'static [u16] = &[64];

    fn reset(&mut self) {
        self.state = State;
    }
}

impl<E: Entropy> Mmio<Rng<E>> {
    /// Serves what the driver asked for. `true`: there is more, come back.
    pub fn serve(&mut self, mem: &GuestMemoryMmap) -> bool {
        self.work(|rng, rings| serve(rng, &mut rings[0], mem))
            .unwrap_or(false)
    }
}

fn serve<E: Entropy>(
    rng: &mut Rng<E>,
    ring: &mut Ring,
    mem: &GuestMemoryMmap,
) -> Result<(bool, bool), Broken> {
    let mut bytes = [0u8; MOST];
    for served in 0..REQUESTS {
        let Some(mut chain) = ring.pop(mem)? else {
            // With event indices the driver rings only for what it was asked to ring for.
            if ring.listen(mem)? {
                return Ok((true, served > 0 && ring.wants_interrupt(mem)?));
            }
            return Ok((false, served > 0 && ring.wants_interrupt(mem)?));
        };
        let room: u64 = chain.writable.iter().map(|s| u64::from(s.len())).sum();
        let wanted = room.min(MOST as u64) as usize;
        let mut written = 0;
        if rng.source.fill(&mut bytes[..wanted]) {
            for segment in &mut chain.writable {
                written += segment.write_front(mem, &bytes[written..wanted])?;
            }
        }
        ring.push(mem, chain.head, written as u32)?;
    }
    Ok((true, ring.wants_interrupt(mem)?))
}

#[cfg(test)]
mod tests;
