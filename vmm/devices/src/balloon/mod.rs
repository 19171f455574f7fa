//! virtio-balloon (specification 5.5): memory that the guest lends to its host, free pages that it tells of, its statistics.
//!
//! The host sets how many pages the guest shall do without ([`Mmio::set_target`]). What the guest gives up, and what it reports as free,
//! goes to a [`Host`] at once, before the guest may use it again. The guest takes pages back when it is told to, or by
//! itself before it would kill a process for want of memory.

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::virtio::mmio::Mmio;
use crate::virtio::ring::{Chain, Ring, take_bytes};
use crate::virtio::{Broken, Device};

/// Bytes of a balloon's page, whatever the guest's own pages are.
pub const PAGE: u64 = 4096;

/// Number of kinds of statistics.
pub const STATISTICS: usize = 10;

/// Names of the statistics, in the order of their tags (5.5.6.4).
pub const STATISTIC_NAMES: [&str; STATISTICS] = [
    "swapped_in_bytes",
    "swapped_out_bytes",
    "major_faults",
    "minor_faults",
    "free_bytes",
    "total_bytes",
    "available_bytes",
    "disk_cache_bytes",
    "huge_pages_allocated",
    "huge_pages_refused",
];

/// Bytes of one statistic: a tag and a value.
const ENTRY: usize = 10;

/// Most page numbers in one chain; Linux sends 256. With more, a guest could keep its host busy for hours.
const NUMBERS: usize = 1024;

/// Most chains served for one ring of the bell, so that a guest cannot keep its host busy.
const CHAINS: usize = 64;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;

mod feature {
    pub const STATISTICS: u64 = 1 << 1;
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub const REPORTING: u64 = 1 << 5;
}

/// Who takes memory.
pub trait Host {
    /// The guest does not need these bytes until it next writes to them, as far as they are whole pages of its RAM: it may have said anything.
    fn take(&mut self, mem: &GuestMemoryMmap, start: GuestAddress, len: u64);
}

/// Plain data of a balloon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Pages that the guest shall do without.
    target: u32,
    /// Pages that it says it does without.
    actual: u32,
    /// The chain for statistics, while nobody asks for them.
    waiting: Option<u16>,
    /// The last statistics, and how often some came.
    statistics: [Option<u64>; STATISTICS],
    updates: u64,
    /// Bytes that were reported as free so far.
    reported: u64,
    accepted: u64,
}

impl State {
    /// Bytes that the guest shall do without, and that it says it does without.
    pub fn bytes(&self) -> (u64, u64) {
        (u64::from(self.target) * PAGE, u64::from(self.actual) * PAGE)
    }

    /// The guest's last statistics, in the order of [`STATISTIC_NAMES`].
    pub fn statistics(&self) -> &[Option<u64>; STATISTICS] {
        &self.statistics
    }

    /// How often statistics came.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Bytes that the guest reported as free so far.
    pub fn reported(&self) -> u64 {
        self.reported
    }
}

/// A balloon.
#[derive(Debug)]
pub struct Balloon<H: Host> {
    host: H,
    state: State,
}

impl<H: Host> Balloon<H> {
    /// An empty one.
    pub fn new(host: H) -> Self {
        Self {
            host,
            state: State::default(),
        }
    }

    /// How it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn has(&self, feature: u64) -> bool {
        self.state.accepted & feature != 0
    }

    /// Drivers number the optional queues by those that both sides have.
    fn statistics_queue(&self) -> Option<usize> {
        self.has(feature::STATISTICS).then_some(2)
    }

    fn reporting_queue(&self) -> Option<usize> {
        let before = usize::from(self.has(feature::STATISTICS));
        self.has(feature::REPORTING).then_some(2 + before)
    }
}

impl<H: Host> Device for Balloon<H> {
    const KIND: u32 = 5;
    const FEATURES: u64 = feature::STATISTICS | feature::DEFLATE_ON_OOM | feature::REPORTING;
    const QUEUES: &'static [u16] = &[128, 128, 16, 128];

    /// `struct virtio_balloon_config`.
    fn config(&self) -> Vec<u8> {
        let mut bytes = [self.state.target, self.state.actual]
            .map(u32::to_le_bytes)
            .concat();
        bytes.resize(16, 0);
        bytes
    }

    fn set_config(&mut self, offset: u64, data: [u8; 4]) {
        if offset == 4 {
            self.state.actual = u32::from_le_bytes(data);
        }
    }

    fn accept(&mut self, features: u64) {
        self.state.accepted = features;
    }

    fn reset(&mut self) {
        self.state = State {
            target: self.state.target,
            ..State::default()
        };
    }
}

impl<H: Host> Mmio<Balloon<H>> {
    /// Asks the guest to do without this many bytes of its RAM.
    pub fn set_target(&mut self, bytes: u64) {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.configure(|balloon| balloon.state.target = pages);
    }

    /// Asks the guest for statistics; `false`: it has not answered the last time yet, or tells none.
    pub fn ask_statistics(&mut self, mem: &GuestMemoryMmap) -> bool {
        let ask = |balloon: &mut Balloon<H>, rings: &mut [Ring]| {
            let queue = balloon.statistics_queue();
            let (Some(queue), Some(head)) = (queue, balloon.state.waiting.take()) else {
                return Ok((false, false));
            };
            rings[queue].push(mem, head, 0)?;
            Ok((true, rings[queue].wants_interrupt(mem)?))
        };
        self.work(ask).unwrap_or(false)
    }

    /// Serves what the guest gave. `true`: there is more, come back.
    pub fn serve(&mut self, mem: &GuestMemoryMmap) -> bool {
        self.work(|balloon, rings| balloon.serve(rings, mem))
            .unwrap_or(false)
    }
}

impl<H: Host> Balloon<H> {
    fn serve(&mut self, rings: &mut [Ring], mem: &GuestMemoryMmap) -> Result<(bool, bool), Broken> {
        let (mut more, mut raise) = (false, false);
        let queues = [
            Some(INFLATE),
            Some(DEFLATE),
            self.statistics_queue(),
            self.reporting_queue(),
        ];
        for queue in queues.into_iter().flatten() {
            let ring = &mut rings[queue];
            let mut returned = false;
            for _ in 0..CHAINS {
                let Some(chain) = ring.pop(mem)? else { break };
                let head = chain.head;
                if self.take(queue, chain, mem)? {
                    ring.push(mem, head, 0)?;
                    returned = true;
                }
            }
            raise |= returned && ring.wants_interrupt(mem)?;
            more |= ring.listen(mem)?;
        }
        Ok((more, raise))
    }

    /// Takes a chain; `true`: the driver gets it back now.
    fn take(&mut self, queue: usize, chain: Chain, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        match queue {
            INFLATE => self.inflate(chain, mem)?,
            // The guest just uses them again.
            DEFLATE => {}
            queue if self.statistics_queue() == Some(queue) => {
                return self.remember(chain, mem);
            }
            _ => self.reported(&chain, mem),
        }
        Ok(true)
    }

    /// Page numbers; neighbours are given to the host together.
    fn inflate(&mut self, mut chain: Chain, mem: &GuestMemoryMmap) -> Result<(), Broken> {
        let len: u64 = chain.readable.iter().map(|s| u64::from(s.len())).sum();
        if len > 4 * NUMBERS as u64 {
            return Err(Broken);
        }
        let mut run: Option<(u64, u64)> = None;
        let numbers = take_bytes(&mut chain.readable, mem, len as usize / 4 * 4)?;
        for number in numbers.as_chunks::<4>().0 {
            let start = u64::from(u32::from_le_bytes(*number)) * PAGE;
            run = match run {
                Some((first, end)) if end == start => Some((first, end + PAGE)),
                Some((first, end)) if start + PAGE == first => Some((start, end)),
                other => {
                    self.give(other, mem);
                    Some((start, start + PAGE))
                }
            };
        }
        self.give(run, mem);
        Ok(())
    }

    fn give(&mut self, run: Option<(u64, u64)>, mem: &GuestMemoryMmap) {
        if let Some((start, end)) = run {
            self.host.take(mem, GuestAddress(start), end - start);
        }
    }

    /// The buffers themselves are the free pages.
    fn reported(&mut self, chain: &Chain, mem: &GuestMemoryMmap) {
        for segment in &chain.writable {
            self.state.reported += u64::from(segment.len());
            self.host.take(mem, segment.addr(), segment.len().into());
        }
    }

    /// Reads statistics and keeps the chain until somebody asks for the next. A driver has one chain only.
    fn remember(&mut self, mut chain: Chain, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        let len: usize = chain.readable.iter().map(|s| s.len() as usize).sum();
        let len = len.min(ENTRY * 64) / ENTRY * ENTRY;
        self.state.statistics = [None; STATISTICS];
        for entry in take_bytes(&mut chain.readable, mem, len)?.chunks_exact(ENTRY) {
            let (tag, value) = entry.split_at(2);
            let tag = usize::from(u16::from_le_bytes([tag[0], tag[1]]));
            let value = value.try_into().map(u64::from_le_bytes);
            if let Some(place) = self.state.statistics.get_mut(tag) {
                *place = value.ok();
            }
        }
        self.state.updates += 1;
        Ok(self.state.waiting.replace(chain.head).is_some())
    }
}

#[cfg(test)]
mod tests;
