//! What this crate asks of the kernel below it: memory pages ([`PageSource`]), time and randomness ([`System`]).
//!
//! `/proc` asks for more: see [`crate::procfs::ProcSource`].

use core::num::NonZeroU64;
use core::ops::Range;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Names a page of memory: its physical address in the kernel, any number in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame(pub NonZeroU64);

/// Gives out pages of [`PAGE`] bytes that hold file data. Frames are counted: [`PageSource::alloc`] gives the first reference,
/// [`PageSource::retain`] (called by the kernel for each mapping) adds one, [`PageSource::release`] takes one away.
pub trait PageSource {
    /// A fresh page with one reference, zeroed when `zeroed`; `None` when memory is exhausted.
    fn alloc(&self, zeroed: bool) -> Option<Frame>;
    /// Adds a reference.
    fn retain(&self, frame: Frame);
    /// Takes a reference away; the last one frees the page.
    fn release(&self, frame: Frame);
    /// Copies `out.len()` bytes from byte `offset` of the page (`offset + out.len() <= PAGE`).
    fn read(&self, frame: Frame, offset: usize, out: &mut [u8]);
    /// Copies `data` to byte `offset` of the page.
    fn write(&self, frame: Frame, offset: usize, data: &[u8]);
    /// Zeroes `len` bytes from byte `offset` on.
    fn zero(&self, frame: Frame, offset: usize, len: usize);
}

/// A point in time: seconds since 1970 (or since boot) and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds, possibly negative.
    pub sec: i64,
    /// 0..1_000_000_000.
    pub nsec: u32,
}

impl Time {
    /// From nanoseconds.
    pub const fn from_ns(ns: u64) -> Self {
        Self {
            sec: (ns / 1_000_000_000) as i64,
            nsec: (ns % 1_000_000_000) as u32,
        }
    }
}

/// The kernel, as far as file systems need it.
pub trait System: PageSource {
    /// CLOCK_REALTIME.
    fn now(&self) -> Time;
    /// Fills `out` with cryptographically good random bytes.
    fn fill_random(&self, out: &mut [u8]);
    /// These pages of a file show something else from now on: mappings of them must ask again ([`crate::Inode::map_page`]).
    /// Happens when a file shrinks, when a hole is punched, and when a page of a packed file is first written.
    fn unmap(&self, _dev: u64, _ino: u64, _pages: Range<u64>) {}
}

/// The program's memory, as ioctls and socket options reach it.
pub trait UserMemory {
    /// Copies from the program; `EFAULT` when the range is not readable.
    fn read(&self, address: u64, out: &mut [u8]) -> crate::Result<()>;
    /// Copies to the program; `EFAULT` when the range is not writable.
    fn write(&self, address: u64, data: &[u8]) -> crate::Result<()>;
}
