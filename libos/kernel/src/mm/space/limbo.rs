//! Unmapped memory that other vCPUs may still reach through their TLBs: neither its frames nor its addresses are used again before
//! they have flushed.
//!
//! munmap does not wait for them: a vCPU that the host does not run answers after milliseconds, and programs that map one file after
//! the other would spend all their time there.

use super::PAGE;
use crate::mm::{frames, tlb};
use alloc::vec::Vec;

/// More pages than this, or more pieces, are waited for.
const MOST_PAGES: u64 = 1024;
const MOST_PIECES: usize = 64;

/// Frames that go back when nobody can reach them any more.
#[derive(Default)]
pub struct Freed {
    /// First address and number of frames of the mapping's own.
    pub owned: Vec<(u64, usize)>,
    /// Frames of files: a reference each.
    pub shared: Vec<u64>,
}

impl Freed {
    /// Gives all of them back.
    pub fn release(self) {
        for (paddr, count) in self.owned {
            frames::free(paddr, count);
        }
        self.shared.into_iter().for_each(crate::file::release_paddr);
    }
}

struct Piece {
    flush: u64,
    start: u64,
    end: u64,
    freed: Freed,
}

/// All such memory, oldest first.
pub struct Limbo(Vec<Piece>);

impl Limbo {
    /// Nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes in `start..end`, unmapped before `flush` was started.
    pub fn add(&mut self, start: u64, end: u64, flush: u64, freed: Freed) {
        self.collect();
        if tlb::is_done(flush) {
            return freed.release();
        }
        self.0.push(Piece {
            flush,
            start,
            end,
            freed,
        });
        let pages: u64 = self.0.iter().map(|p| (p.end - p.start) / PAGE).sum();
        if pages > MOST_PAGES || self.0.len() > MOST_PIECES {
            tlb::wait(flush);
            self.collect();
        }
    }

    /// Lets go of what nobody can reach any more.
    fn collect(&mut self) {
        while let Some(oldest) = self.0.first()
            && tlb::is_done(oldest.flush)
        {
            self.0.remove(0).freed.release();
        }
    }

    /// The lowest address of pieces that overlap `start..end`.
    pub fn lowest_in(&self, start: u64, end: u64) -> Option<u64> {
        let overlapping = self.0.iter().filter(|p| p.start < end && start < p.end);
        overlapping.map(|p| p.start).min()
    }

    /// Makes `start..end` usable again.
    pub fn settle(&mut self, start: u64, end: u64) {
        if self.lowest_in(start, end).is_some() {
            let newest = self.0.last().map_or(0, |piece| piece.flush);
            tlb::wait(newest);
            self.collect();
        }
    }
}
