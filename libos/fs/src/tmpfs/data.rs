//! The bytes of a tmpfs file: [`FileData`], sparse pages over an optional packed original.
//!
//! A page is, in this order: a frame of its own; a page of the packed original (copied to a frame when first written); a
//! hole. So writing one page of a packed file of a gigabyte costs one page. Pages stand in chunks of 512 (2 MiB of file), so a
//! file with data at its far end costs only what it holds.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;

use super::space::Space;
use crate::inode::{Extent, PageRef};
use crate::system::{Frame, PAGE};
use crate::{Errno, Result};

/// Pages of a chunk.
const CHUNK: u64 = 512;
const PAGE64: u64 = PAGE as u64;
/// Largest file size (`MAX_LFS_FILESIZE`).
pub const MAX_SIZE: u64 = i64::MAX as u64;

struct Chunk {
    used: usize,
    frames: [Option<Frame>; CHUNK as usize],
}

impl Chunk {
    fn boxed() -> Box<Self> {
        Box::new(Self {
            used: 0,
            frames: [None; CHUNK as usize],
        })
    }
}

/// Data of one file.
pub struct FileData {
    space: Rc<Space>,
    size: u64,
    /// The packed original, cut to the smallest size the file has had since.
    base: &'static [u8],
    /// Pages of `base` punched out or replaced start here: sorted page numbers that no longer show the original.
    hidden: BTreeMap<u64, ()>,
    chunks: BTreeMap<u64, Box<Chunk>>,
    pages: u64,
    /// A page of the original was replaced since [`FileData::take_replaced`] was asked last.
    replaced: bool,
}

/// What one page shows.
enum Source {
    Frame(Frame),
    Base(&'static [u8]),
    Hole,
}

impl FileData {
    /// A file that shows `base` (empty for a new file).
    pub fn new(space: Rc<Space>, base: &'static [u8]) -> Self {
        Self {
            space,
            size: base.len() as u64,
            base,
            hidden: BTreeMap::new(),
            chunks: BTreeMap::new(),
            pages: 0,
            replaced: false,
        }
    }

    /// Whether a write replaced a page of the original, so that mappings of it are stale; forgets it.
    pub fn take_replaced(&mut self) -> bool {
        core::mem::take(&mut self.replaced)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// 512-byte blocks in use; the packed original counts as if it were stored.
    pub fn blocks(&self) -> u64 {
        let base_pages = (self.base.len() as u64).div_ceil(PAGE64) - self.hidden.len() as u64;
        (self.pages + base_pages) * (PAGE64 / 512)
    }

    /// Reads at `offset`; 0 at the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        if offset >= self.size {
            return 0;
        }
        let len = usize::try_from(self.size - offset)
            .unwrap_or(usize::MAX)
            .min(out.len());
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % PAGE64) as usize;
            let index = at / PAGE64;
            if let Some(run) = self.base_run(index, at, len - done) {
                out[done..done + run.len()].copy_from_slice(run);
                done += run.len();
                continue;
            }
            let step = (PAGE - within).min(len - done);
            self.read_page(index, within, &mut out[done..done + step]);
            done += step;
        }
        len
    }

    /// What of the untouched original stands at `offset`, at most `len` bytes of it.
    pub fn packed(&self, offset: u64, len: usize) -> Option<&'static [u8]> {
        self.base_run(offset / PAGE64, offset, len)
    }

    /// The longest run of the untouched original from byte `at`: the common case of reading a packed file in one copy.
    fn base_run(&self, index: u64, at: u64, want: usize) -> Option<&'static [u8]> {
        if !self.chunks.is_empty() || !self.hidden.is_empty() {
            let Source::Base(page) = self.source(index) else {
                return None;
            };
            let within = (at % PAGE64) as usize;
            let page = page.get(within..)?;
            return (!page.is_empty()).then(|| &page[..page.len().min(want)]);
        }
        let rest = self.base.get(usize::try_from(at).ok()?..)?;
        (!rest.is_empty()).then(|| &rest[..rest.len().min(want)])
    }

    fn read_page(&self, index: u64, within: usize, out: &mut [u8]) {
        match self.source(index) {
            Source::Frame(frame) => self.space.pages().read(frame, within, out),
            Source::Base(page) => {
                let have = page.get(within..).unwrap_or(&[]);
                let n = have.len().min(out.len());
                out[..n].copy_from_slice(&have[..n]);
                out[n..].fill(0);
            }
            Source::Hole => out.fill(0),
        }
    }

    fn source(&self, index: u64) -> Source {
        if let Some(frame) = self.frame(index) {
            return Source::Frame(frame);
        }
        match self.base_page(index) {
            Some(page) => Source::Base(page),
            None => Source::Hole,
        }
    }

    fn frame(&self, index: u64) -> Option<Frame> {
        self.chunks.get(&(index / CHUNK))?.frames[(index % CHUNK) as usize]
    }

    /// The part of page `index` that the original still shows.
    fn base_page(&self, index: u64) -> Option<&'static [u8]> {
        if self.base.is_empty() || self.hidden.contains_key(&index) {
            return None;
        }
        let start = usize::try_from(index.checked_mul(PAGE64)?).ok()?;
        let rest = self.base.get(start..)?;
        (!rest.is_empty()).then(|| &rest[..rest.len().min(PAGE)])
    }

    /// Writes at `offset`. Writes less when space ends on the way; `ENOSPC` when nothing could be written.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        if offset >= MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let len = data
            .len()
            .min(usize::try_from(MAX_SIZE - offset).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % PAGE64) as usize;
            let step = (PAGE - within).min(len - done);
            match self.own_page(at / PAGE64, step == PAGE) {
                Ok(frame) => self
                    .space
                    .pages()
                    .write(frame, within, &data[done..done + step]),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            done += step;
        }
        self.size = self.size.max(offset + done as u64);
        Ok(done)
    }

    /// The file's own frame for page `index`, made when missing. With `whole` the caller overwrites all of it.
    fn own_page(&mut self, index: u64, whole: bool) -> Result<Frame> {
        if let Some(frame) = self.frame(index) {
            return Ok(frame);
        }
        let base = self.base_page(index);
        let frame = self
            .space
            .alloc(!whole && base.is_none_or(|page| page.len() < PAGE))?;
        if let Some(page) = base {
            if !whole {
                self.space.pages().write(frame, 0, page);
            }
            self.hidden.insert(index, ());
            self.replaced = true;
        }
        let chunk = self
            .chunks
            .entry(index / CHUNK)
            .or_insert_with(Chunk::boxed);
        chunk.frames[(index % CHUNK) as usize] = Some(frame);
        chunk.used += 1;
        self.pages += 1;
        Ok(frame)
    }

    /// Sets the size; what is cut off reads as zeros when the file grows again.
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if size <= self.size {
            self.drop_pages(size.div_ceil(PAGE64), u64::MAX);
            self.cut_base(size);
            self.zero_tail(size);
        }
        self.size = size;
        Ok(())
    }

    fn cut_base(&mut self, size: u64) {
        if let Ok(size) = usize::try_from(size)
            && size < self.base.len()
        {
            self.base = &self.base[..size];
            let _ = self.hidden.split_off(&(size as u64).div_ceil(PAGE64));
        }
    }

    fn zero_tail(&mut self, size: u64) {
        let within = (size % PAGE64) as usize;
        if within != 0
            && let Some(frame) = self.frame(size / PAGE64)
        {
            self.space.pages().zero(frame, within, PAGE - within);
        }
    }

    /// Frees the frames of pages `from..to`.
    fn drop_pages(&mut self, from: u64, to: u64) {
        let mut emptied = alloc::vec::Vec::new();
        let (first_chunk, last_chunk) = (from / CHUNK, to / CHUNK);
        for (&number, chunk) in self.chunks.range_mut(first_chunk..=last_chunk) {
            let start = if number == first_chunk {
                from % CHUNK
            } else {
                0
            };
            let end = if number == last_chunk {
                to % CHUNK
            } else {
                CHUNK
            };
            for slot in &mut chunk.frames[start as usize..end as usize] {
                if let Some(frame) = slot.take() {
                    self.space.free(frame);
                    chunk.used -= 1;
                    self.pages -= 1;
                }
            }
            if chunk.used == 0 {
                emptied.push(number);
            }
        }
        for number in emptied {
            self.chunks.remove(&number);
        }
    }

    /// Makes every page of the range present (FALLOC without flags), growing the file unless `keep_size`. All or nothing.
    pub fn reserve(&mut self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= MAX_SIZE)
            .ok_or(Errno::EFBIG)?;
        let (first, last) = (offset / PAGE64, end.div_ceil(PAGE64));
        if last - first > self.space.free_pages() + self.pages + self.base.len() as u64 / PAGE64 + 1
        {
            return Err(Errno::ENOSPC);
        }
        let mut made = alloc::vec::Vec::new();
        for index in first..last {
            if matches!(self.source(index), Source::Hole) {
                if let Err(error) = self.own_page(index, false) {
                    made.into_iter()
                        .for_each(|index| self.drop_pages(index, index + 1));
                    return Err(error);
                }
                made.push(index);
            }
        }
        if !keep_size {
            self.size = self.size.max(end);
        }
        Ok(())
    }

    /// Frees whole pages of the range and zeroes its ragged ends; the size stays.
    pub fn punch(&mut self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        let (first, last) = (offset.div_ceil(PAGE64), end / PAGE64);
        if first > last {
            return self.zero_within(offset, end);
        }
        self.zero_within(offset, first * PAGE64)?;
        self.zero_within(last * PAGE64, end.min(self.size))?;
        self.drop_pages(first, last);
        let base_pages = (self.base.len() as u64).div_ceil(PAGE64);
        for index in first..last.min(base_pages) {
            self.hidden.insert(index, ());
        }
        Ok(())
    }

    /// Zeroes `from..to`, which lie in one page.
    fn zero_within(&mut self, from: u64, to: u64) -> Result<()> {
        if from >= to || matches!(self.source(from / PAGE64), Source::Hole) {
            return Ok(());
        }
        let frame = self.own_page(from / PAGE64, false)?;
        self.space
            .pages()
            .zero(frame, (from % PAGE64) as usize, (to - from) as usize);
        Ok(())
    }

    /// SEEK_DATA and SEEK_HOLE, by pages.
    pub fn seek(&self, what: Extent, offset: u64) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        let end = self.size.div_ceil(PAGE64);
        let mut index = offset / PAGE64;
        while index < end {
            let hole = matches!(self.source(index), Source::Hole);
            if hole == (what == Extent::Hole) {
                return Ok((index * PAGE64).max(offset));
            }
            index = if hole {
                self.next_data(index, end)
            } else {
                index + 1
            };
        }
        if what == Extent::Hole {
            Ok(self.size)
        } else {
            Err(Errno::ENXIO)
        }
    }

    /// The next page after the hole at `index` that could hold data (skips absent chunks).
    fn next_data(&self, index: u64, end: u64) -> u64 {
        let base_pages = (self.base.len() as u64).div_ceil(PAGE64);
        if index + 1 < base_pages || self.chunks.contains_key(&(index / CHUNK)) {
            return index + 1;
        }
        let from = (index / CHUNK + 1)..;
        self.chunks
            .range(from)
            .next()
            .map_or(end, |(&number, _)| number * CHUNK)
    }

    /// What to map at page `index` (see [`crate::Inode::map_page`]).
    pub fn map_page(&mut self, index: u64, write: bool) -> Result<PageRef> {
        if index >= self.size.div_ceil(PAGE64) {
            return Err(Errno::EINVAL);
        }
        match self.source(index) {
            Source::Frame(frame) => Ok(PageRef::Frame(frame)),
            Source::Base(page) if !write && mappable(page) => Ok(PageRef::Packed(page)),
            Source::Hole if !write => Ok(PageRef::Hole),
            _ => self.own_page(index, false).map(PageRef::Frame),
        }
    }
}

/// A whole page at a page boundary: anything else would show the archive's neighbouring bytes.
fn mappable(page: &'static [u8]) -> bool {
    page.len() == PAGE && (page.as_ptr() as usize).is_multiple_of(PAGE)
}

impl Drop for FileData {
    fn drop(&mut self) {
        for chunk in self.chunks.values() {
            for frame in chunk.frames.iter().flatten() {
                self.space.free(*frame);
            }
        }
    }
}
