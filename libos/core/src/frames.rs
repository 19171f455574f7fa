//! Physical memory: 4 KiB frames handed out from 2 MiB chunks.
//!
//! The allocator never touches the memory it manages, so memory that nobody uses costs the host nothing. It remembers which
//! frames were ever handed out: a frame that never was is still zero and need not be cleared. Small requests fill
//! chunks that are already broken up and prefer frames that were used before (the host has backed them already).

use alloc::vec;
use alloc::vec::Vec;

/// Frames in a chunk.
pub const CHUNK_FRAMES: usize = 512;
/// Bytes in a frame.
pub const FRAME_SIZE: u64 = 4096;
/// Bytes in a chunk.
pub const CHUNK_SIZE: u64 = FRAME_SIZE * CHUNK_FRAMES as u64;

const WORDS: usize = CHUNK_FRAMES / 64;

/// A chunk in eight bytes, so that a large machine's table is small; the bits of single frames come when they differ.
#[derive(Clone, Copy, Default)]
struct Chunk {
    free_count: u16,
    /// Whether `partial` holds this chunk.
    listed: bool,
    /// Whether all of it was handed out before (while there are no details).
    used: bool,
    /// Index into `details` plus 1; 0: all frames are alike.
    details: u32,
}

/// The frames of a chunk.
#[derive(Clone)]
struct Details {
    /// Bit set: frame is free.
    free: [u64; WORDS],
    /// Bit set: frame was handed out before, so its content is unknown.
    used: [u64; WORDS],
}

/// An allocated piece of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Physical address.
    pub paddr: u64,
    /// Whether the content is known to be zero.
    pub zeroed: bool,
}

/// The frame allocator. Addresses are physical, in bytes.
pub struct FrameAllocator {
    chunks: Vec<Chunk>,
    /// Never grows beyond its first capacity: the heap may be what asks for frames.
    details: Vec<Details>,
    /// Chunks that are neither full nor wholly free.
    partial: Vec<u32>,
    /// Search for wholly free chunks starts here.
    hint: usize,
    free_frames: usize,
    total_frames: usize,
}

impl FrameAllocator {
    /// An allocator without memory that can manage physical addresses below `limit`.
    pub fn new(limit: u64) -> Self {
        let chunks = limit.div_ceil(CHUNK_SIZE) as usize;
        Self {
            chunks: vec![Chunk::default(); chunks],
            details: Vec::with_capacity(chunks),
            partial: Vec::with_capacity(chunks),
            hint: 0,
            free_frames: 0,
            total_frames: 0,
        }
    }

    /// Gives the frames inside `start..end` (bytes; partial frames at the ends are left out) to the allocator.
    pub fn add(&mut self, start: u64, end: u64) {
        let first = start.div_ceil(FRAME_SIZE);
        let last = (end / FRAME_SIZE).min((self.chunks.len() * CHUNK_FRAMES) as u64);
        let (mut number, last) = (first as usize, last as usize);
        self.total_frames += last.saturating_sub(number);
        while number < last {
            if number.is_multiple_of(CHUNK_FRAMES)
                && last - number >= CHUNK_FRAMES
                && self.is_untouched(number / CHUNK_FRAMES)
            {
                let chunk = &mut self.chunks[number / CHUNK_FRAMES];
                chunk.free_count = CHUNK_FRAMES as u16;
                self.free_frames += CHUNK_FRAMES;
                number += CHUNK_FRAMES;
            } else {
                self.set_free(number);
                number += 1;
            }
        }
    }

    /// Free frames.
    pub fn free_frames(&self) -> usize {
        self.free_frames
    }

    /// All frames ever added.
    pub fn total_frames(&self) -> usize {
        self.total_frames
    }

    /// One frame, or `None` when memory is used up.
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = match self.partial.last() {
            Some(&index) => index as usize,
            None => self.break_chunk()?,
        };
        let chunk = self.details_of(index);
        // Used frames first: the host has memory behind them.
        let (word, bits) = (0..WORDS)
            .map(|w| (w, chunk.free[w] & chunk.used[w]))
            .find(|&(_, bits)| bits != 0)
            .or_else(|| {
                (0..WORDS)
                    .map(|w| (w, chunk.free[w]))
                    .find(|&(_, bits)| bits != 0)
            })?;
        let bit = bits.trailing_zeros() as usize;
        Some(self.take(index, word * 64 + bit))
    }

    /// `count` contiguous frames inside one chunk (`count` at most [`CHUNK_FRAMES`]); zeroed only if all of them are.
    pub fn alloc_contiguous(&mut self, count: usize) -> Option<Frame> {
        let mut zeroed = true;
        let paddr = self.alloc_run(count, |_, _| zeroed = false)?;
        Some(Frame { paddr, zeroed })
    }

    /// The address of `count` contiguous frames, as [`Self::alloc_contiguous`]; `clear` hears of each piece among them that may hold other bytes
    /// than zeros: address and length.
    pub fn alloc_run(&mut self, count: usize, mut clear: impl FnMut(u64, usize)) -> Option<u64> {
        let mut look = |frame: Frame, frames: usize| {
            if !frame.zeroed {
                clear(frame.paddr, frames * FRAME_SIZE as usize);
            }
        };
        if count == 0 || count > CHUNK_FRAMES {
            return None;
        }
        if count == CHUNK_FRAMES {
            let chunk = self.alloc_chunk()?;
            look(chunk, CHUNK_FRAMES);
            return Some(chunk.paddr);
        }
        let partial = (0..self.partial.len()).rev().find_map(|at| {
            let index = self.partial[at] as usize;
            Some((index, self.run_in(index, count)?))
        });
        let (index, at) = match partial {
            Some(found) => found,
            None => (self.break_chunk()?, 0),
        };
        for frame in at..at + count {
            look(self.take(index, frame), 1);
        }
        Some(Self::address(index, at))
    }

    /// A whole, aligned 2 MiB chunk.
    pub fn alloc_chunk(&mut self) -> Option<Frame> {
        let index = self.find_free_chunk()?;
        let zeroed = match self.chunks[index].details {
            0 => !self.chunks[index].used,
            _ => {
                let details = self.details_of(index);
                let zeroed = details.used == [0; WORDS];
                (details.free, details.used) = ([0; WORDS], [u64::MAX; WORDS]);
                zeroed
            }
        };
        let chunk = &mut self.chunks[index];
        chunk.used = true;
        chunk.free_count = 0;
        self.free_frames -= CHUNK_FRAMES;
        Some(Frame {
            paddr: Self::address(index, 0),
            zeroed,
        })
    }

    /// Takes back `count` frames from `paddr` on. The caller owns them.
    pub fn free(&mut self, paddr: u64, count: usize) {
        let first = (paddr / FRAME_SIZE) as usize;
        if count == CHUNK_FRAMES
            && first.is_multiple_of(CHUNK_FRAMES)
            && self.chunks[first / CHUNK_FRAMES].details == 0
        {
            let chunk = &mut self.chunks[first / CHUNK_FRAMES];
            assert_eq!(chunk.free_count, 0, "chunk freed twice");
            chunk.free_count = CHUNK_FRAMES as u16;
            self.free_frames += CHUNK_FRAMES;
            self.hint = self.hint.min(first / CHUNK_FRAMES);
            return;
        }
        for number in first..first + count {
            self.set_free(number);
            self.details_of(number / CHUNK_FRAMES).used[number % CHUNK_FRAMES / 64] |=
                1 << (number % 64);
        }
    }

    fn is_untouched(&self, index: usize) -> bool {
        let chunk = &self.chunks[index];
        chunk.free_count == 0 && chunk.details == 0 && !chunk.used
    }

    /// The bits of a chunk, made from its summary when they are first needed.
    fn details_of(&mut self, index: usize) -> &mut Details {
        let chunk = &mut self.chunks[index];
        if chunk.details == 0 {
            let all = |set: bool| if set { [u64::MAX; WORDS] } else { [0; WORDS] };
            self.details.push(Details {
                free: all(chunk.free_count as usize == CHUNK_FRAMES),
                used: all(chunk.used),
            });
            chunk.details = self.details.len() as u32;
        }
        &mut self.details[chunk.details as usize - 1]
    }

    fn address(chunk: usize, frame: usize) -> u64 {
        (chunk * CHUNK_FRAMES + frame) as u64 * FRAME_SIZE
    }

    fn set_free(&mut self, number: usize) {
        let index = number / CHUNK_FRAMES;
        let (word, bit) = (number % CHUNK_FRAMES / 64, 1 << (number % 64));
        let details = self.details_of(index);
        assert_eq!(details.free[word] & bit, 0, "frame freed twice");
        details.free[word] |= bit;
        let chunk = &mut self.chunks[index];
        chunk.free_count += 1;
        self.free_frames += 1;
        if chunk.free_count as usize == CHUNK_FRAMES {
            if chunk.listed {
                chunk.listed = false;
                self.partial.retain(|&i| i as usize != index);
            }
            self.hint = self.hint.min(index);
        } else if !chunk.listed {
            chunk.listed = true;
            self.partial.push(index as u32);
        }
    }

    fn take(&mut self, index: usize, frame: usize) -> Frame {
        let (word, bit) = (frame / 64, 1 << (frame % 64));
        let details = self.details_of(index);
        let zeroed = details.used[word] & bit == 0;
        details.free[word] &= !bit;
        details.used[word] |= bit;
        let chunk = &mut self.chunks[index];
        chunk.free_count -= 1;
        self.free_frames -= 1;
        if chunk.free_count == 0 {
            chunk.listed = false;
            self.partial.retain(|&i| i as usize != index);
        }
        Frame {
            paddr: Self::address(index, frame),
            zeroed,
        }
    }

    fn find_free_chunk(&mut self) -> Option<usize> {
        let found = (self.hint..self.chunks.len())
            .find(|&i| self.chunks[i].free_count as usize == CHUNK_FRAMES)?;
        self.hint = found;
        Some(found)
    }

    fn break_chunk(&mut self) -> Option<usize> {
        let index = self.find_free_chunk()?;
        self.chunks[index].listed = true;
        self.partial.push(index as u32);
        Some(index)
    }

    fn run_in(&mut self, index: usize, count: usize) -> Option<usize> {
        if (self.chunks[index].free_count as usize) < count {
            return None;
        }
        let chunk = self.details_of(index);
        let mut run = 0;
        for frame in 0..CHUNK_FRAMES {
            run = if chunk.free[frame / 64] >> (frame % 64) & 1 == 1 {
                run + 1
            } else {
                0
            };
            if run == count {
                return Some(frame + 1 - count);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    fn sixteen_mib() -> FrameAllocator {
        let mut frames = FrameAllocator::new(16 << 20);
        frames.add(0x30_1000, 16 << 20);
        frames
    }

    #[test]
    fn hands_out_every_frame_once() {
        let mut frames = sixteen_mib();
        let total = frames.free_frames();
        let mut seen = BTreeSet::new();
        while let Some(frame) = frames.alloc() {
            assert!(frame.zeroed && frame.paddr >= 0x30_1000 && frame.paddr < 16 << 20);
            assert!(seen.insert(frame.paddr));
        }
        assert_eq!((seen.len(), frames.free_frames()), (total, 0));
    }

    #[test]
    fn returned_frames_come_first_and_are_not_zero() {
        let mut frames = sixteen_mib();
        let first = frames.alloc().unwrap();
        frames.alloc().unwrap();
        frames.free(first.paddr, 1);
        assert_eq!(
            frames.alloc(),
            Some(Frame {
                paddr: first.paddr,
                zeroed: false
            })
        );
    }

    #[test]
    fn chunks_are_aligned_and_become_whole_again() {
        let mut frames = sixteen_mib();
        let chunks: Vec<_> = core::iter::from_fn(|| frames.alloc_chunk()).collect();
        assert_eq!(chunks.len(), 6);
        assert!(chunks.iter().all(|c| c.paddr % CHUNK_SIZE == 0 && c.zeroed));
        frames.free(chunks[2].paddr, CHUNK_FRAMES);
        assert_eq!(
            frames.alloc_chunk(),
            Some(Frame {
                paddr: chunks[2].paddr,
                zeroed: false
            })
        );
    }

    #[test]
    fn contiguous_runs_lie_in_one_chunk() {
        let mut frames = sixteen_mib();
        let mut runs = Vec::new();
        while let Some(run) = frames.alloc_contiguous(48) {
            assert_eq!(
                run.paddr / CHUNK_SIZE,
                (run.paddr + 47 * FRAME_SIZE) / CHUNK_SIZE
            );
            runs.push(run.paddr);
        }
        assert!(runs.len() >= 60);
        for run in runs {
            frames.free(run, 48);
        }
        assert_eq!(frames.free_frames(), frames.total_frames());
        assert_eq!(core::iter::from_fn(|| frames.alloc_chunk()).count(), 6);
    }
}
