//! The two directions of a card while a back end works with it: [`Outgoing`] and [`Incoming`], together [`Traffic`].
//!
//! A mistake of the driver ends both: nothing comes any more, nothing has room, and the card fails when the exchange is over.

use std::collections::VecDeque;

use vm_memory::GuestMemoryMmap;

use super::header::{ETHERNET, HEADER, Header};
use super::{Counts, FROM_DRIVER, LONGEST, Offloads, State, TO_DRIVER, feature};
use crate::virtio::Broken;
use crate::virtio::ring::{Chain, Ring, Segment};

/// Most frames taken from the driver in one exchange, so that it cannot keep its host busy.
const BUDGET: usize = 128;

/// Buffers of the driver that wait for frames: at most as many as the queue has.
#[derive(Clone, Debug, Default)]
pub(super) struct Posted {
    chains: VecDeque<Chain>,
    bytes: usize,
}

impl Posted {
    /// Adds a chain of a queue with `size` entries.
    fn add(&mut self, chain: Chain, size: u16) -> Result<(), Broken> {
        let len = writable(&chain);
        // The specification wants room for a header at least (5.1.6.3.1). With more chains than entries some were offered twice.
        if len < HEADER || self.chains.len() >= usize::from(size) {
            return Err(Broken);
        }
        self.bytes = self.bytes.saturating_add(len);
        self.chains.push_back(chain);
        Ok(())
    }

    fn take(&mut self) -> Option<Chain> {
        let chain = self.chains.pop_front()?;
        self.bytes = self.bytes.saturating_sub(writable(&chain));
        Some(chain)
    }

    /// How many chains hold `total` bytes.
    fn enough_for(&self, total: usize) -> Option<usize> {
        let mut room = 0usize;
        let holds = |chain: &Chain| {
            room = room.saturating_add(writable(chain));
            room >= total
        };
        self.chains.iter().position(holds).map(|at| at + 1)
    }
}

fn writable(chain: &Chain) -> usize {
    chain
        .writable
        .iter()
        .fold(0, |sum, s| sum.saturating_add(s.len() as usize))
}

/// Both directions.
pub struct Traffic<'a> {
    /// From the driver.
    pub outgoing: Outgoing<'a>,
    /// To the driver.
    pub incoming: Incoming<'a>,
    /// How many drivers have come up: another number means another driver.
    pub session: u64,
    /// What this driver leaves to the back end.
    pub from_driver: Offloads,
    /// What may be left to this driver.
    pub to_driver: Offloads,
    counts: &'a mut Counts,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(
        state: &'a mut State,
        receive: &'a mut Ring,
        transmit: &'a mut Ring,
        mem: &'a GuestMemoryMmap,
    ) -> Self {
        let from_driver = Offloads::accepted(state.features, FROM_DRIVER);
        let to_driver = Offloads::accepted(state.features, TO_DRIVER);
        let segments = to_driver.tso4 || to_driver.tso6;
        Self {
            outgoing: Outgoing {
                way: Way::new(transmit, mem),
                accepted: from_driver,
                budget: BUDGET,
                bytes: Vec::new(),
            },
            incoming: Incoming {
                way: Way::new(receive, mem),
                posted: &mut state.posted,
                mergeable: state.features & feature::MRG_RXBUF != 0,
                longest: if segments {
                    LONGEST
                } else {
                    ETHERNET + 4 + usize::from(state.settings.mtu)
                },
                used: Vec::new(),
            },
            session: state.session,
            from_driver,
            to_driver,
            counts: &mut state.counts,
        }
    }

    /// Adds up what happened; whether the driver wants an interrupt for it.
    pub(super) fn finish(mut self) -> Result<bool, Broken> {
        self.counts.sent += self.outgoing.way.passed;
        self.counts.received += self.incoming.way.passed;
        self.counts.dropped += self.outgoing.way.dropped + self.incoming.way.dropped;
        Ok(self.outgoing.way.finish()? | self.incoming.way.finish()?)
    }
}

/// What both directions have.
struct Way<'a> {
    ring: &'a mut Ring,
    mem: &'a GuestMemoryMmap,
    broken: bool,
    returned: bool,
    passed: u64,
    dropped: u64,
}

impl<'a> Way<'a> {
    fn new(ring: &'a mut Ring, mem: &'a GuestMemoryMmap) -> Self {
        Self {
            ring,
            mem,
            broken: false,
            returned: false,
            passed: 0,
            dropped: 0,
        }
    }

    /// Does something with the ring unless it is broken; a failure breaks it.
    fn keep<R>(
        &mut self,
        work: impl FnOnce(&mut Ring, &GuestMemoryMmap) -> Result<R, Broken>,
    ) -> Option<R> {
        if self.broken {
            return None;
        }
        let result = work(self.ring, self.mem);
        self.broken = result.is_err();
        result.ok()
    }

    fn give_back(&mut self, chains: &[(u16, u32)]) {
        self.keep(|ring, mem| ring.push_all(mem, chains));
        self.returned = true;
    }

    fn finish(&mut self) -> Result<bool, Broken> {
        if self.broken {
            return Err(Broken);
        }
        Ok(self.returned && self.ring.wants_interrupt(self.mem)?)
    }
}

/// A frame of the driver, in guest memory.
#[derive(Debug)]
pub struct Frame {
    /// What is left to do for it; checked.
    pub header: Header,
    /// Its bytes, without the header.
    pub segments: Vec<Segment>,
    /// How many they are, at most [`LONGEST`].
    pub len: usize,
    head: u16,
}

/// Frames of the driver.
pub struct Outgoing<'a> {
    way: Way<'a>,
    accepted: Offloads,
    budget: usize,
    bytes: Vec<u8>,
}

impl Outgoing<'_> {
    /// The next frame; it must be given to [`Self::done`]. `None`: there is none, or this exchange has had enough of them.
    pub fn take(&mut self) -> Option<Frame> {
        while self.budget > 0 {
            self.budget -= 1;
            let chain = self.way.keep(Ring::pop)??;
            let head = chain.head;
            match self
                .way
                .keep(|_, mem| frame(chain, mem, self.accepted, &mut self.bytes))?
            {
                Some(frame) => return Some(frame),
                None => {
                    self.way.dropped += 1;
                    self.way.give_back(&[(head, 0)]);
                }
            }
        }
        None
    }

    /// Appends the bytes of `frame` to `out`.
    pub fn copy(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        self.way.keep(|_, mem| {
            for mut segment in frame.segments.iter().copied() {
                segment.read_front(mem, out, LONGEST)?;
            }
            Ok(())
        });
    }

    /// Gives the buffers of a frame back to the driver.
    pub fn done(&mut self, frame: &Frame) {
        self.way.passed += 1;
        self.way.give_back(&[(frame.head, 0)]);
    }

    /// Asks the driver not to ring for more. Only a hint.
    pub fn quiet(&mut self) {
        self.way.keep(Ring::quiet);
    }

    /// Asks the driver to ring for the next frame. `true`: there is one already.
    pub fn listen(&mut self) -> bool {
        self.way.keep(Ring::listen).unwrap_or(false)
    }
}

/// Takes a chain apart; `Ok(None)`: no frame that may be sent. `bytes` is for reuse.
fn frame(
    mut chain: Chain,
    mem: &GuestMemoryMmap,
    accepted: Offloads,
    bytes: &mut Vec<u8>,
) -> Result<Option<Frame>, Broken> {
    bytes.clear();
    for segment in &mut chain.readable {
        segment.read_front(mem, bytes, HEADER - bytes.len())?;
    }
    let Ok(header) = <&[u8; HEADER]>::try_from(&bytes[..]) else {
        return Ok(None);
    };
    let header = Header::from_bytes(header);
    chain.readable.retain(|segment| !segment.is_empty());
    let lens = chain.readable.iter().map(|s| s.len() as usize);
    let len = lens.fold(0, usize::saturating_add);
    let fits = (ETHERNET..=LONGEST).contains(&len) && header.acceptable(len, accepted);
    Ok(fits.then_some(Frame {
        header,
        segments: chain.readable,
        len,
        head: chain.head,
    }))
}

/// Frames for the driver.
pub struct Incoming<'a> {
    way: Way<'a>,
    posted: &'a mut Posted,
    mergeable: bool,
    longest: usize,
    used: Vec<(u16, u32)>,
}

impl Incoming<'_> {
    /// Whether the longest frame that this driver can be sent has room now. A driver that has posted all buffers that it can gets what fits.
    pub fn ready(&mut self) -> bool {
        self.gather(HEADER + self.longest)
            || self.posted.chains.len() >= usize::from(self.way.ring.size())
    }

    /// Takes buffers off the ring until they hold `total` bytes; whether they do.
    fn gather(&mut self, total: usize) -> bool {
        let enough = |posted: &Posted| match self.mergeable {
            true => posted.bytes >= total,
            false => !posted.chains.is_empty(),
        };
        while !enough(self.posted) {
            match self.way.keep(Ring::pop).flatten() {
                Some(chain) => {
                    let posted = &mut *self.posted;
                    self.way.keep(|ring, _| posted.add(chain, ring.size()));
                }
                None => return false,
            }
        }
        !self.way.broken
    }

    /// The number of posted buffers that a frame of `len` bytes fills.
    fn buffers_for(&mut self, len: usize) -> Option<u16> {
        self.gather(HEADER + len);
        let most = if self.mergeable { usize::MAX } else { 1 };
        let count = self.posted.enough_for(HEADER + len)?;
        u16::try_from(count)
            .ok()
            .filter(|_| count <= most && !self.way.broken)
    }

    /// Gives the driver a frame; `false`: there was no room for it.
    pub fn put(&mut self, header: Header, frame: &[u8]) -> bool {
        let Some(count) = self.buffers_for(frame.len()) else {
            self.way.dropped += 1;
            return false;
        };
        self.deliver(header.to_bytes(count), frame, frame.len(), count);
        true
    }

    /// Guest memory for the longest frame that can come; somebody fills its front and then calls [`Self::filled`].
    /// `None`: there is not enough room.
    pub fn buffers(&mut self, into: &mut Vec<Segment>) -> bool {
        into.clear();
        if !self.ready() {
            return false;
        }
        let (mut header, mut room) = (HEADER as u32, 0);
        let most = if self.mergeable { usize::MAX } else { 1 };
        for segment in self
            .posted
            .chains
            .iter()
            .take(most)
            .flat_map(|c| &c.writable)
        {
            let mut segment = *segment;
            header -= segment.skip(header);
            room += segment.len() as usize;
            if !segment.is_empty() {
                into.push(segment);
            }
            if room >= self.longest {
                break;
            }
        }
        true
    }

    /// The first `len` bytes of [`Self::buffers`] are a frame now.
    pub fn filled(&mut self, header: Header, len: usize) {
        match self.buffers_for(len) {
            Some(count) => self.deliver(header.to_bytes(count), &[], len, count),
            None => self.way.dropped += 1,
        }
    }

    /// Fills `count` buffers with a header and a frame of `len` bytes, of which `data` is still to be written, and gives them to the driver at once:
    /// it must not see a part of them.
    fn deliver(&mut self, header: [u8; HEADER], data: &[u8], len: usize, count: u16) {
        self.used.clear();
        let (mut header, mut data, mut left) = (&header[..], data, HEADER + len);
        for _ in 0..count {
            let Some(mut chain) = self.posted.take() else {
                break;
            };
            let here = writable(&chain).min(left);
            left -= here;
            self.used.push((chain.head, here as u32));
            for segment in &mut chain.writable {
                let written = self.way.keep(|_, mem| {
                    let first = segment.write_front(mem, header)?;
                    Ok((first, segment.write_front(mem, data)?))
                });
                let (first, second) = written.unwrap_or((0, 0));
                (header, data) = (&header[first..], &data[second..]);
            }
        }
        self.way.passed += 1;
        self.way.give_back(&self.used);
    }

    /// Asks the driver not to ring for new buffers. Only a hint.
    pub fn quiet(&mut self) {
        self.way.keep(Ring::quiet);
    }

    /// Asks the driver to ring when it posts buffers. `true`: it has already.
    pub fn listen(&mut self) -> bool {
        self.way.keep(Ring::listen).unwrap_or(false)
    }
}
