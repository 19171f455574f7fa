//! Reads of a disk past the page cache, by several threads.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// The disk.
    pub path: &'a str,
    /// Bytes of each read.
    pub block: usize,
    /// Number of reads.
    pub count: u32,
    /// Anywhere, or one after the other from the start.
    pub random: bool,
}

impl Read<'_> {
    /// Reads with this many threads; gives the seconds that it took.
    pub fn run(&self, threads: usize) -> io::Result<f64> {
        let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(self.path)?;
        let blocks = io::Seek::seek(&mut &file, io::SeekFrom::End(0))? / self.block as u64;
        if blocks == 0 {
            return Err(io::Error::other("the disk is smaller than one block"));
        }
        let (next, start) = (AtomicU32::new(0), Instant::now());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.work(&file, blocks, &next)))
                .collect();
            workers.into_iter().try_for_each(|worker| {
                let panicked = |_| Err(io::Error::other("a reader panicked"));
                worker.join().unwrap_or_else(panicked)
            })
        })?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn work(&self, file: &File, blocks: u64, next: &AtomicU32) -> io::Result<()> {
        const ALIGN: usize = 4096;
        let mut buffer = vec![0; self.block + ALIGN];
        let from = buffer.as_ptr().align_offset(ALIGN);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return Ok(());
            }
            let number = u64::from(number);
            // Anywhere, but the same places in every run.
            let place = match self.random {
                true => number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
                false => number,
            };
            let offset = place % blocks * self.block as u64;
            file.read_exact_at(&mut buffer[from..from + self.block], offset)?;
        }
    }
}
