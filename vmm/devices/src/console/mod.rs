//! virtio-console (specification 5.3), one port, no control queue: a stream in and a stream out.
//!
//! Output: [`Mmio::collect_output`] gathers what the driver wrote into one host buffer; chains are given back as soon as their
//! bytes are copied, and the driver need not ring while somebody is collecting. Whoever calls it writes the buffer out, with no
//! lock held, and calls again until nothing comes.
//!
//! Input: somebody reads the host's stream only while [`Mmio::wants_input`] says so, and hands the bytes to [`Mmio::give_input`]. What
//! finds no room stays with the caller until the driver posts more buffers.
//!
//! **End of input** is not in the specification. Here it is a receive buffer given back with length 0; a driver takes this as
//! "nothing will ever come". It is told once, at the end, and again after a reset.

use vm_memory::GuestMemoryMmap;

use crate::virtio::mmio::Mmio;
use crate::virtio::ring::{Chain, Ring};
use crate::virtio::{Broken, Device};

/// Queue that carries input.
pub const RECEIVE: usize = 0;
/// Queue that carries output.
pub const TRANSMIT: usize = 1;

/// Most bytes that [`Mmio::collect_output`] gathers at once.
pub const BATCH: usize = 64 << 10;

/// VIRTIO_CONSOLE_F_SIZE.
const F_SIZE: u64 = 1;

/// Plain data of a console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Columns and rows of the terminal, 0 when there is none.
    size: (u16, u16),
    /// A chain of which a part was taken.
    partly: Option<Chain>,
    /// The end of input was told.
    end_told: bool,
}

/// A console.
#[derive(Debug, Default)]
pub struct Console {
    state: State,
}

impl Console {
    /// A console on a terminal of this many columns and rows; 0 by 0 for none.
    pub fn new(columns: u16, rows: u16) -> Self {
        Self {
            state: State {
                size: (columns, rows),
                ..State::default()
            },
        }
    }
}

impl Device for Console {
    const KIND: u32 = 3;
    const FEATURES: u64 = F_SIZE;
    const QUEUES: &'static [u16] = &[64, 256];

    fn config(&self) -> Vec<u8> {
        let (columns, rows) = self.state.size;
        let mut bytes = [columns, rows].map(u16::to_le_bytes).concat();
        bytes.extend(1u32.to_le_bytes()); // one port
        bytes
    }

    fn reset(&mut self) {
        (self.state.partly, self.state.end_told) = (None, false);
    }
}

impl Mmio<Console> {
    /// Appends output to `out` until it holds [`BATCH`] bytes or the driver has no more.
    /// Nothing appended means that the driver will ring for the next.
    pub fn collect_output(&mut self, mem: &GuestMemoryMmap, out: &mut Vec<u8>) {
        self.work(|console, rings| collect(console, &mut rings[TRANSMIT], mem, out));
    }

    /// Whether the driver waits for input, and the end of it was not told yet.
    pub fn wants_input(&mut self, mem: &GuestMemoryMmap) -> bool {
        let wants = |console: &mut Console, rings: &mut [Ring]| {
            Ok((
                !console.state.end_told && rings[RECEIVE].has_available(mem)?,
                false,
            ))
        };
        self.work(wants).unwrap_or(false)
    }

    /// Asks the driver to ring when it posts more buffers for input. `true`: it just has.
    pub fn listen_for_input(&mut self, mem: &GuestMemoryMmap) -> bool {
        self.work(|console, rings| {
            Ok((
                !console.state.end_told && rings[RECEIVE].listen(mem)?,
                false,
            ))
        })
        .unwrap_or(false)
    }

    /// Passes `data` on as far as the driver has room, and returns how many bytes went.
    pub fn give_input(&mut self, mem: &GuestMemoryMmap, data: &[u8]) -> usize {
        self.work(|_, rings| give(&mut rings[RECEIVE], mem, data))
            .unwrap_or(0)
    }

    /// Tells the end of input. `false`: no room now, tell again once [`Self::wants_input`].
    pub fn end_input(&mut self, mem: &GuestMemoryMmap) -> bool {
        let end = |console: &mut Console, rings: &mut [Ring]| {
            let ring = &mut rings[RECEIVE];
            let Some(chain) = ring.pop(mem)? else {
                return Ok((false, false));
            };
            ring.push(mem, chain.head, 0)?;
            console.state.end_told = true;
            Ok((true, ring.wants_interrupt(mem)?))
        };
        self.work(end).unwrap_or(false)
    }
}

fn collect(
    console: &mut Console,
    ring: &mut Ring,
    mem: &GuestMemoryMmap,
    out: &mut Vec<u8>,
) -> Result<((), bool), Broken> {
    let before = out.len();
    let mut returned = false;
    loop {
        ring.quiet(mem)?;
        while out.len() < BATCH {
            let next = console.state.partly.take();
            let Some(mut chain) = (if next.is_some() { next } else { ring.pop(mem)? }) else {
                break;
            };
            if take(&mut chain, mem, out)? {
                ring.push(mem, chain.head, 0)?;
                returned = true;
            } else {
                console.state.partly = Some(chain);
            }
        }
        // With output in hand the caller comes back by itself; only an empty hand needs the bell.
        if out.len() > before || !ring.listen(mem)? {
            break;
        }
    }
    Ok(((), returned && ring.wants_interrupt(mem)?))
}

/// Takes bytes off the chain; `true` when it is empty.
fn take(chain: &mut Chain, mem: &GuestMemoryMmap, out: &mut Vec<u8>) -> Result<bool, Broken> {
    while let Some(segment) = chain.readable.first_mut() {
        segment.read_front(mem, out, BATCH - out.len().min(BATCH))?;
        if !segment.is_empty() {
            return Ok(false);
        }
        chain.readable.remove(0);
    }
    Ok(true)
}

fn give(ring: &mut Ring, mem: &GuestMemoryMmap, data: &[u8]) -> Result<(usize, bool), Broken> {
    let mut done = 0;
    while done < data.len() {
        let Some(mut chain) = ring.pop(mem)? else {
            break;
        };
        let mut written = 0;
        for segment in &mut chain.writable {
            written += segment.write_front(mem, &data[done + written..])?;
        }
        // A buffer without room must not look like the end of input.
        if written == 0 {
            return Err(Broken);
        }
        ring.push(mem, chain.head, written as u32)?;
        done += written;
    }
    Ok((done, done > 0 && ring.wants_interrupt(mem)?))
}

#[cfg(test)]
mod tests;
