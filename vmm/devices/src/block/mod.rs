//! virtio-blk (specification 5.2): checked requests out, outcomes in. Who does the reading and writing is not its business.
//!
//! [`Mmio::next_request`] hands out one request after the other; any number may be in hand. [`Mmio::complete`] gives each back, in any
//! order. A request outside the disk, of an unknown kind, or a write to a read-only disk is answered here and never handed out.
//! What a disk holds is never looked at.

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::virtio::mmio::Mmio;
use crate::virtio::ring::{Chain, Ring, Segment, take_bytes};
use crate::virtio::{Broken, Device};

/// Bytes of a sector in requests, whatever the disk's own blocks are.
pub const SECTOR: u64 = 512;

/// Bytes of a serial number.
pub const SERIAL_LEN: usize = 20;

const QUEUE: u16 = 256;

/// Most data segments of a request: the queue without header and status.
const SEGMENTS: u32 = QUEUE as u32 - 2;

/// Most ranges in one discard or write-zeroes request, and most sectors of a range.
const RANGES: u32 = 32;
const RANGE_SECTORS: u32 = 1 << 22;
const RANGE_LEN: usize = 16;

mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// What a driver finds in the status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Done.
    Done = 0,
    /// The disk could not do it.
    Failed = 1,
    /// This disk does not do such things.
    Unsupported = 2,
}

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Byte offset, a multiple of [`SECTOR`].
    pub offset: u64,
    /// Bytes, a multiple of [`SECTOR`].
    pub len: u64,
    /// For zeroes: the space need not stay reserved.
    pub unmap: bool,
}

/// What to do; every range lies inside the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fill the buffers from this byte offset on.
    Read(u64),
    /// Write the buffers from this byte offset on.
    Write(u64),
    /// Put everything that was written and completed onto the medium.
    Flush,
    /// These bytes are not needed any more.
    Discard(Vec<Range>),
    /// These bytes become zero.
    WriteZeroes(Vec<Range>),
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// Guest memory to fill or to write; checked to be there.
    pub buffers: Vec<Segment>,
    head: u16,
    status: Segment,
    epoch: u64,
}

impl Request {
    /// Address and length of each buffer.
    pub fn buffers(&self) -> impl Iterator<Item = (GuestAddress, usize)> {
        self.buffers.iter().map(|s| (s.addr(), s.len() as usize))
    }
}

/// What a disk says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes, a multiple of [`SECTOR`].
    pub len: u64,
    /// Bytes of the block that is written best.
    pub block: u32,
    /// The guest must not write.
    pub read_only: bool,
    /// The serial number, padded with zeroes.
    pub serial: [u8; SERIAL_LEN],
}

/// Plain data of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    geometry: Geometry,
    /// How often the driver has reset it: what was handed out before counts no more.
    epoch: u64,
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    state: State,
}

impl Block {
    /// A disk.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            state: State { geometry, epoch: 0 },
        }
    }
}

impl Device for Block {
    const KIND: u32 = 2;
    const FEATURES: u64 = feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
    const QUEUES: &'static [u16] = &[QUEUE];

    fn features(&self) -> u64 {
        let writable = feature::DISCARD | feature::WRITE_ZEROES;
        Self::FEATURES
            | if self.state.geometry.read_only {
                feature::RO
            } else {
                writable
            }
    }

    /// `struct virtio_blk_config`.
    fn config(&self) -> Vec<u8> {
        let geometry = &self.state.geometry;
        let mut bytes = (geometry.len / SECTOR).to_le_bytes().to_vec();
        let mut words = [0u32; 12];
        // Blocks are addressed by sectors, and best written by whole blocks: more than one is said as a power of two.
        (words[1], words[3]) = (SEGMENTS, SECTOR as u32);
        words[4] = (geometry.block / SECTOR as u32).max(1).ilog2();
        // Discard: sectors, ranges, alignment; zeroes: sectors, ranges, may unmap.
        words[7..10].copy_from_slice(&[
            RANGE_SECTORS,
            RANGES,
            (geometry.block / SECTOR as u32).max(1),
        ]);
        (words[10], words[11]) = (RANGE_SECTORS, RANGES);
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([1, 0, 0, 0]);
        bytes
    }

    fn reset(&mut self) {
        self.state.epoch += 1;
    }
}

impl Mmio<Block> {
    /// The next request; `None`: there is none, and the driver will ring for the next.
    pub fn next_request(&mut self, mem: &GuestMemoryMmap) -> Option<Request> {
        self.work(|block, rings| next(block, &mut rings[0], mem))
            .flatten()
    }

    /// Gives a request back. One that was handed out before a reset is forgotten.
    pub fn complete(&mut self, mem: &GuestMemoryMmap, request: Request, outcome: Outcome) {
        self.work(|block, rings| {
            if request.epoch != block.state.epoch {
                return Ok(((), false));
            }
            let ring = &mut rings[0];
            finish(ring, mem, request, outcome)?;
            Ok(((), ring.wants_interrupt(mem)?))
        });
    }
}

/// The next request that somebody has to carry out; those that need nobody are answered on the way.
fn next(
    block: &Block,
    ring: &mut Ring,
    mem: &GuestMemoryMmap,
) -> Result<(Option<Request>, bool), Broken> {
    let mut answered = false;
    let found = loop {
        ring.quiet(mem)?;
        while let Some(chain) = ring.pop(mem)? {
            match parse(block, mem, chain)? {
                Parsed::Work(request) => {
                    return Ok((Some(request), answered && ring.wants_interrupt(mem)?));
                }
                Parsed::Answer(request, outcome) => {
                    finish(ring, mem, request, outcome)?;
                    answered = true;
                }
            }
        }
        if !ring.listen(mem)? {
            break None;
        }
    };
    Ok((found, answered && ring.wants_interrupt(mem)?))
}

enum Parsed {
    Work(Request),
    Answer(Request, Outcome),
}

fn parse(block: &Block, mem: &GuestMemoryMmap, mut chain: Chain) -> Result<Parsed, Broken> {
    let header = take_bytes(&mut chain.readable, mem, 16)?;
    let kind = u32::from_le_bytes(array(&header, 0)?);
    let sector = u64::from_le_bytes(array(&header, 8)?);
    let status = chain
        .writable
        .last_mut()
        .and_then(Segment::take_last)
        .ok_or(Broken)?;
    let request = |operation, buffers| Request {
        operation,
        buffers,
        head: chain.head,
        status,
        epoch: block.state.epoch,
    };
    let geometry = &block.state.geometry;
    Ok(match kind {
        0 => transfer(
            geometry,
            sector,
            request(Operation::Read(0), chain.writable),
        ),
        1 if geometry.read_only => {
            Parsed::Answer(request(Operation::Flush, Vec::new()), Outcome::Failed)
        }
        1 => transfer(
            geometry,
            sector,
            request(Operation::Write(0), chain.readable),
        ),
        4 => Parsed::Work(request(Operation::Flush, Vec::new())),
        8 => {
            let mut left = &geometry.serial[..];
            for segment in &mut chain.writable {
                left = &left[segment.write_front(mem, left)?..];
            }
            // Only for its length.
            let buffers = Vec::new();
            Parsed::Answer(request(Operation::Flush, buffers), Outcome::Done)
        }
        11 | 13 if !geometry.read_only => {
            let list = ranges(geometry, mem, &mut chain.readable)?;
            let make = if kind == 11 {
                Operation::Discard
            } else {
                Operation::WriteZeroes
            };
            match list {
                Ok(list) => Parsed::Work(request(make(list), Vec::new())),
                Err(outcome) => Parsed::Answer(request(Operation::Flush, Vec::new()), outcome),
            }
        }
        _ => Parsed::Answer(request(Operation::Flush, Vec::new()), Outcome::Unsupported),
    })
}

/// Checks a transfer against the disk's length; it must be whole sectors.
fn transfer(geometry: &Geometry, sector: u64, mut request: Request) -> Parsed {
    let len: u64 = request.buffers.iter().map(|s| u64::from(s.len())).sum();
    let Some(offset) = place(geometry, sector, len).filter(|_| len.is_multiple_of(SECTOR)) else {
        request.buffers.clear();
        return Parsed::Answer(request, Outcome::Failed);
    };
    request.operation = match request.operation {
        Operation::Read(_) => Operation::Read(offset),
        _ => Operation::Write(offset),
    };
    Parsed::Work(request)
}

/// The byte offset of a piece that lies inside the disk.
fn place(geometry: &Geometry, sector: u64, len: u64) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR)?;
    (offset.checked_add(len)? <= geometry.len).then_some(offset)
}

/// Reads the list of a discard or write-zeroes request.
fn ranges(
    geometry: &Geometry,
    mem: &GuestMemoryMmap,
    readable: &mut Vec<Segment>,
) -> Result<Result<Vec<Range>, Outcome>, Broken> {
    let len: u64 = readable.iter().map(|s| u64::from(s.len())).sum();
    if len == 0
        || !len.is_multiple_of(RANGE_LEN as u64)
        || len > u64::from(RANGES) * RANGE_LEN as u64
    {
        return Ok(Err(Outcome::Failed));
    }
    let bytes = take_bytes(readable, mem, len as usize)?;
    let mut list = Vec::new();
    for entry in bytes.chunks_exact(RANGE_LEN) {
        let sector = u64::from_le_bytes(array(entry, 0)?);
        let count = u32::from_le_bytes(array(entry, 8)?);
        let flags = u32::from_le_bytes(array(entry, 12)?);
        let len = u64::from(count) * SECTOR;
        let Some(offset) = place(geometry, sector, len).filter(|_| count <= RANGE_SECTORS) else {
            return Ok(Err(Outcome::Failed));
        };
        if flags & !1 != 0 {
            return Ok(Err(Outcome::Unsupported));
        }
        list.push(Range {
            offset,
            len,
            unmap: flags & 1 != 0,
        });
    }
    Ok(Ok(list))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Broken> {
    bytes
        .get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .ok_or(Broken)
}

/// Writes the status byte and gives the chain back.
fn finish(
    ring: &mut Ring,
    mem: &GuestMemoryMmap,
    mut request: Request,
    outcome: Outcome,
) -> Result<(), Broken> {
    let filled = match (&request.operation, outcome) {
        (Operation::Read(_), Outcome::Done) => request.buffers.iter().map(Segment::len).sum(),
        _ => 0u32,
    };
    request.status.write_front(mem, &[outcome as u8])?;
    ring.push(mem, request.head, filled.saturating_add(1))
}

#[cfg(test)]
mod tests;
