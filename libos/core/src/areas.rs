//! The ordered set of virtual memory areas: insert, cut a hole, split at an address, find a gap.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What an area carries. `split` is told how far into the area (bytes) the second half begins, so that file offsets follow.
pub trait Payload: Clone {
    /// The payload of the part that starts `offset` bytes into the area.
    fn split(&self, offset: u64) -> Self;
    /// Whether `next`, which begins `len` bytes after `self` begins, continues it so that the two may become one area.
    fn continues(&self, len: u64, next: &Self) -> bool;
}

/// Areas, never overlapping, keyed by start. Addresses are bytes; `end` is exclusive.
#[derive(Default)]
pub struct Areas<P> {
    map: BTreeMap<u64, (u64, P)>,
}

/// An area by value or by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area<P> {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What the kernel knows of it.
    pub payload: P,
}

impl<P: Payload> Areas<P> {
    /// No areas.
    pub const fn new() -> Self {
        Self {
            map: BTreeMap::new(),
        }
    }

    /// Number of areas.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All areas in address order.
    pub fn iter(&self) -> impl Iterator<Item = Area<&P>> {
        self.map.iter().map(|(&start, (end, payload))| Area {
            start,
            end: *end,
            payload,
        })
    }

    /// The area that holds `address`.
    pub fn find(&self, address: u64) -> Option<Area<&P>> {
        let (&start, (end, payload)) = self.map.range(..=address).next_back()?;
        (address < *end).then_some(Area {
            start,
            end: *end,
            payload,
        })
    }

    /// The first area that ends after `address` (it may hold it).
    pub fn find_from(&self, address: u64) -> Option<Area<&P>> {
        self.find(address).or_else(|| {
            self.map
                .range(address..)
                .next()
                .map(|(&start, (end, payload))| Area {
                    start,
                    end: *end,
                    payload,
                })
        })
    }

    /// Areas that overlap `start..end`, in order, whole (not clipped).
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Area<&P>> {
        let first = self.find(start).map_or(start, |area| area.start);
        self.map
            .range(first..end.max(first))
            .map(|(&start, (end, payload))| Area {
                start,
                end: *end,
                payload,
            })
    }

    /// Whether every address of `start..end` lies in an area for which `ok` holds.
    pub fn covers(&self, start: u64, end: u64, mut ok: impl FnMut(&P) -> bool) -> bool {
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some(area) if ok(area.payload) => at = area.end,
                _ => return false,
            }
        }
        true
    }

    /// Adds an area where none is; merges with neighbours that it continues.
    pub fn insert(&mut self, start: u64, end: u64, payload: P) {
        debug_assert!(start < end && self.overlapping(start, end).next().is_none());
        let (mut start, mut end, mut payload) = (start, end, payload);
        if let Some((&before, (before_end, before_payload))) = self.map.range(..start).next_back()
            && *before_end == start
            && before_payload.continues(start - before, &payload)
        {
            payload = before_payload.clone();
            start = before;
            self.map.remove(&before);
        }
        if let Some((after_end, after_payload)) = self.map.get(&end)
            && payload.continues(end - start, after_payload)
        {
            let after_end = *after_end;
            self.map.remove(&end);
            end = after_end;
        }
        self.map.insert(start, (end, payload));
    }

    /// Makes `address` a boundary between areas if it lies inside one.
    pub fn split_at(&mut self, address: u64) {
        if let Some(area) = self.find(address)
            && area.start < address
        {
            let (start, end) = (area.start, area.end);
            let tail = area.payload.split(address - start);
            if let Some(entry) = self.map.get_mut(&start) {
                entry.0 = address;
            }
            self.map.insert(address, (end, tail));
        }
    }

    /// Removes everything in `start..end` and gives it back, clipped, in order.
    pub fn cut(&mut self, start: u64, end: u64) -> Vec<Area<P>> {
        self.split_at(start);
        self.split_at(end);
        let keys: Vec<u64> = self.map.range(start..end).map(|(&key, _)| key).collect();
        keys.into_iter()
            .filter_map(|key| {
                self.map.remove(&key).map(|(end, payload)| Area {
                    start: key,
                    end,
                    payload,
                })
            })
            .collect()
    }

    /// The highest gap of `len` bytes inside `low..high` whose start is a multiple of `align` (a power of two).
    pub fn gap_below(&self, low: u64, high: u64, len: u64, align: u64) -> Option<u64> {
        let mut top = high;
        for (&start, (end, _)) in self.map.range(..high).rev() {
            if let Some(found) = fit(top, len, align, (*end).max(low)) {
                return Some(found);
            }
            top = top.min(start);
            if top <= low {
                return None;
            }
        }
        fit(top, len, align, low)
    }

    /// The lowest gap of `len` bytes inside `low..high`, aligned to `align`.
    pub fn gap_above(&self, low: u64, high: u64, len: u64, align: u64) -> Option<u64> {
        let mut at = low.checked_next_multiple_of(align)?;
        loop {
            let end = at.checked_add(len).filter(|&end| end <= high)?;
            match self.find_from(at) {
                Some(area) if area.start < end => at = area.end.checked_next_multiple_of(align)?,
                _ => return Some(at),
            }
        }
    }
}

fn fit(top: u64, len: u64, align: u64, floor: u64) -> Option<u64> {
    let start = top.checked_sub(len)? & !(align - 1);
    (start >= floor).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct FileAt(char, u64);

    impl Payload for FileAt {
        fn split(&self, offset: u64) -> Self {
            FileAt(self.0, self.1 + offset)
        }
        fn continues(&self, len: u64, next: &Self) -> bool {
            self.0 == next.0 && self.1 + len == next.1
        }
    }

    fn list(areas: &Areas<FileAt>) -> Vec<(u64, u64, char, u64)> {
        areas
            .iter()
            .map(|a| (a.start, a.end, a.payload.0, a.payload.1))
            .collect()
    }

    #[test]
    fn cutting_splits_and_inserting_back_merges() {
        let mut areas = Areas::new();
        areas.insert(0x1000, 0x9000, FileAt('a', 0));
        let cut = areas.cut(0x3000, 0x5000);
        assert_eq!(
            cut,
            [Area {
                start: 0x3000,
                end: 0x5000,
                payload: FileAt('a', 0x2000)
            }]
        );
        assert_eq!(
            list(&areas),
            [(0x1000, 0x3000, 'a', 0), (0x5000, 0x9000, 'a', 0x4000)]
        );
        areas.insert(0x3000, 0x5000, FileAt('a', 0x2000));
        assert_eq!(list(&areas), [(0x1000, 0x9000, 'a', 0)]);
    }

    #[test]
    fn cover_stops_at_holes() {
        let mut areas = Areas::new();
        areas.insert(0x1000, 0x2000, FileAt('a', 0));
        areas.insert(0x2000, 0x3000, FileAt('b', 0));
        assert!(areas.covers(0x1800, 0x2800, |_| true));
        assert!(!areas.covers(0x1800, 0x3001, |_| true));
        assert!(!areas.covers(0x1800, 0x2800, |p| p.0 == 'a'));
    }

    #[test]
    fn gaps_are_found_from_both_ends() {
        let mut areas = Areas::new();
        areas.insert(0x4000, 0x6000, FileAt('a', 0));
        areas.insert(0x8000, 0x9000, FileAt('b', 0));
        assert_eq!(
            areas.gap_below(0x1000, 0xa000, 0x1000, 0x1000),
            Some(0x9000)
        );
        assert_eq!(
            areas.gap_below(0x1000, 0xa000, 0x2000, 0x1000),
            Some(0x6000)
        );
        assert_eq!(
            areas.gap_below(0x1000, 0xa000, 0x3000, 0x1000),
            Some(0x1000)
        );
        assert_eq!(areas.gap_below(0x1000, 0xa000, 0x4000, 0x1000), None);
        assert_eq!(
            areas.gap_above(0x1000, 0xa000, 0x2000, 0x2000),
            Some(0x2000)
        );
        assert_eq!(
            areas.gap_above(0x3000, 0xa000, 0x2000, 0x1000),
            Some(0x6000)
        );
        assert_eq!(areas.gap_above(0x7000, 0xa000, 0x2000, 0x1000), None);
    }
}
