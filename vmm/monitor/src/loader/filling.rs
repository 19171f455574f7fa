//! Segments of a kernel on their way into guest RAM, huge page by huge page, by threads.
//!
//! Where the host lets us see the guest's page faults ([`Gate`]), the guest starts at once: who touches a huge page that is not there
//! yet waits for it, and it is the next to be filled. Elsewhere the guest starts when all is there.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use unik_host::gate::{Desk, Gate, Part};
use unik_host::memory::{GuestRam, HUGE_PAGE, MemoryError, Warmer};
use unik_host::seccomp::Kind;

use super::elf::Load;
use crate::error::Error;
use crate::machine::vcpus::Alarm;
use crate::machine::{confine, lock};

/// Threads that fill.
const THREADS: usize = 2;

/// A huge page of guest RAM, and what the file has of it.
type Page = (u64, Vec<Part>);

/// Work that is to do or under way.
pub struct Filling {
    work: Arc<Work>,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

impl Filling {
    /// Begins. The first megabytes of RAM hold tables for the guest, so what lies there is never behind a gate; and there is none without an
    /// `alarm`.
    pub fn begin(
        file: File,
        loads: &[Load],
        ram: &GuestRam,
        alarm: Option<Alarm>,
    ) -> Result<Self, Error> {
        let pages = pages(loads);
        let range = match (pages.front(), pages.back()) {
            (Some(first), Some(last)) if first.0 >= HUGE_PAGE => Some((first.0, last.0)),
            _ => None,
        };
        let gate = alarm.zip(range).and_then(|(alarm, (first, last))| {
            let gate = Gate::new(ram, first, last + HUGE_PAGE - first)?;
            Some((gate, alarm))
        });
        let mut filling = Self {
            work: Arc::new(Work {
                file,
                pages: Mutex::new(pages),
                warmer: ram.warmer(),
                gate,
            }),
            threads: Vec::new(),
        };
        // Behind a gate the way to the guest's first instruction comes first: they would be in its way, at the latest where it maps files.
        if filling.work.gate.is_none() {
            filling.spawn()?;
        }
        Ok(filling)
    }

    fn spawn(&mut self) -> Result<(), Error> {
        for _ in 0..THREADS {
            let work = Arc::clone(&self.work);
            let thread = std::thread::Builder::new().name("unik-load".into());
            let thread = thread.stack_size(64 << 10).spawn(move || work.live());
            self.threads
                .push(thread.map_err(Error::host("start a thread"))?);
        }
        Ok(())
    }

    /// Returns when the guest may start.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.work.gate.is_some() {
            return self.spawn();
        }
        for thread in self.threads {
            // A thread that panicked has said so itself.
            let gone = |_| Error::host("run a thread")(std::io::Error::other("it panicked"));
            thread.join().map_err(gone)??;
        }
        Ok(())
    }
}

/// What the threads share.
struct Work {
    file: File,
    pages: Mutex<VecDeque<Page>>,
    warmer: Warmer,
    /// Where there is one, with whom to tell what goes wrong behind it.
    gate: Option<(Gate, Alarm)>,
}

impl Work {
    /// A thread's life.
    fn live(&self) -> Result<(), Error> {
        let result = confine(Kind::Loader).and_then(|()| Ok(self.run()?));
        match (result, &self.gate) {
            (Err(error), Some((_, alarm))) => {
                alarm.raise(error);
                // The gate opens when the other thread, too, has nothing left to do.
                lock(&self.pages).clear();
                Ok(())
            }
            (result, _) => result,
        }
    }

    fn run(&self) -> Result<(), MemoryError> {
        let mut desk = self.gate.as_ref().map(|_| Desk::new()).transpose()?;
        while let Some((page, parts)) = self.next() {
            match (&self.gate, &mut desk) {
                (Some((gate, _)), Some(desk)) => gate.fill(&self.file, page, &parts, desk)?,
                _ => {
                    for &Part { offset, len, at } in &parts {
                        self.warmer.read_file_part(&self.file, offset, len, at)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A page that somebody waits for, else the next in order.
    fn next(&self) -> Option<Page> {
        let mut pages = lock(&self.pages);
        let gate = self.gate.as_ref();
        for wanted in gate.map(|(gate, _)| gate.wanted()).unwrap_or_default() {
            // One that is not there is being filled just now.
            let place = pages.iter().position(|(page, _)| *page == wanted);
            if let Some(page) = place.and_then(|place| pages.remove(place)) {
                pages.push_front(page);
            }
        }
        pages.pop_front()
    }
}

/// What the file has of the segments, by huge pages in the order of their addresses. Those between have no parts: a gate covers them too.
fn pages(loads: &[Load]) -> VecDeque<Page> {
    let mut pages: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    for load in loads {
        let (start, end) = (load.paddr, load.paddr + load.file_len);
        for page in (start / HUGE_PAGE * HUGE_PAGE..end).step_by(HUGE_PAGE as usize) {
            let (at, to) = (page.max(start), (page + HUGE_PAGE).min(end));
            let part = Part {
                offset: load.offset + (at - start),
                len: to - at,
                at,
            };
            pages.entry(page).or_default().push(part);
        }
    }
    let (Some((&first, _)), Some((&last, _))) = (pages.first_key_value(), pages.last_key_value())
    else {
        return VecDeque::new();
    };
    for page in (first..last).step_by(HUGE_PAGE as usize) {
        pages.entry(page).or_default();
    }
    pages.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::machine::vcpus::Ending;

    const LOAD: Load = Load {
        offset: 0,
        paddr: HUGE_PAGE,
        file_len: 3 * HUGE_PAGE,
        mem_len: 3 * HUGE_PAGE,
    };

    /// A file of `len` sevens, and RAM.
    fn sevens(len: u64) -> (File, GuestRam) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len as usize]).unwrap();
        let ram = GuestRam::reserve(8 * HUGE_PAGE, 0xc000_0000, 0x1_0000_0000).unwrap();
        (file, ram)
    }

    #[test]
    fn all_is_there_when_it_is_looked_for() {
        for alarm in [None, Some(Alarm::alone().0)] {
            let (file, ram) = sevens(LOAD.file_len);
            let filling = Filling::begin(file, &[LOAD], &ram, alarm).unwrap();
            filling.finish().unwrap();
            for at in [HUGE_PAGE, 4 * HUGE_PAGE - 1, 2 * HUGE_PAGE + 77] {
                let byte: u8 = ram.view().read_obj(GuestAddress(at)).unwrap();
                assert_eq!(byte, 7, "{at:#x}");
            }
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_told() {
        let (file, ram) = sevens(LOAD.file_len - 1);
        let filling = Filling::begin(file, &[LOAD], &ram, None).unwrap();
        assert!(filling.finish().is_err());
        let (file, ram) = sevens(LOAD.file_len - 1);
        let (alarm, wait) = Alarm::alone();
        let filling = Filling::begin(file, &[LOAD], &ram, Some(alarm)).unwrap();
        // Without a gate it is told at once.
        if filling.finish().is_ok() {
            assert!(matches!(wait(), Ending::Host(_)));
            // And nobody is held for ever.
            let _: u8 = ram
                .view()
                .read_obj(GuestAddress(4 * HUGE_PAGE - 1))
                .unwrap();
        }
    }

    #[test]
    fn segments_that_share_a_huge_page_fill_it_together() {
        let load = |offset, paddr, file_len| Load {
            offset,
            paddr,
            file_len,
            mem_len: file_len + 10,
        };
        let part = |offset, len, at| Part { offset, len, at };
        let found = pages(&[
            load(0x1000, HUGE_PAGE, HUGE_PAGE + 0x800),
            load(0x9000, 2 * HUGE_PAGE + 0x1000, 0x10),
            load(0xa000, 4 * HUGE_PAGE, 1),
            load(0xb000, 5 * HUGE_PAGE, 0),
        ]);
        let wanted = [
            (HUGE_PAGE, vec![part(0x1000, HUGE_PAGE, HUGE_PAGE)]),
            (
                2 * HUGE_PAGE,
                vec![
                    part(0x1000 + HUGE_PAGE, 0x800, 2 * HUGE_PAGE),
                    part(0x9000, 0x10, 2 * HUGE_PAGE + 0x1000),
                ],
            ),
            (3 * HUGE_PAGE, vec![]),
            (4 * HUGE_PAGE, vec![part(0xa000, 1, 4 * HUGE_PAGE)]),
        ];
        assert!(pages(&[load(0, HUGE_PAGE, 0)]).is_empty());
        assert_eq!(found, wanted);
    }
}
