//! Every device against random descriptor tables: it never panics, never allocates more than a bound, and never touches memory that
//! the driver did not give it: only used rings and writable buffers change, and what is handed out lies in guest RAM.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use proptest::prelude::*;
use unik_devices::balloon::{self, Balloon};
use unik_devices::block::{Block, Geometry, Outcome, Request, SECTOR};
use unik_devices::console::{BATCH, Console};
use unik_devices::net::{Header, LONGEST, Net, Offloads, Settings};
use unik_devices::rng::{Entropy, Rng};
use unik_devices::virtio::Device;
use unik_devices::virtio::hostile::{Hostile, STEP, kind};
use unik_devices::virtio::mmio::Mmio;
use unik_devices::virtio::testing::{INDIRECT, RAM, SIZE, WRITE, base};
use unik_devices::vsock::connection::ROOM;
use unik_devices::vsock::packet::Id;
use unik_devices::vsock::{CONNECTIONS, GUEST_CID, Host, Stream, Vsock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Most bytes that a device may take from the heap, all in all, for one piece of work: the largest batch, doubled while it grows, and
/// the segments of the chains of a full queue.
const MOST: u64 = 4 * BATCH as u64;

/// The same for vsock: as much as all packets of one go, and one connection, can hold.
const MOST_VSOCK: u64 = 66 * 2 * ROOM as u64;

/// Scripts of a driver that brings the device up rightly and then does what it likes with descriptors, indices and memory.
fn scripts() -> impl Strategy<Value = Vec<[u8; STEP]>> {
    let kinds = prop_oneof![
        6 => Just(kind::DESCRIPTOR),
        4 => Just(kind::OFFER),
        4 => Just(kind::WORK),
        3 => Just(kind::DATA),
        1 => Just(kind::INDEX),
        1 => Just(kind::ANYWHERE),
        1 => Just(kind::BRING_UP),
    ];
    let step = (kinds, any::<[u8; STEP]>()).prop_map(|(kind, mut step)| {
        step[0] = kind;
        step
    });
    prop::collection::vec(step, 1..120)
}

/// Plays `script` and watches heap and memory at each piece of work.
fn watch<D: Device>(
    device: D,
    script: &[[u8; STEP]],
    most: u64,
    mut work: impl FnMut(&mut Mmio<D>, &GuestMemoryMmap, &[u8]),
) -> Result<(), TestCaseError> {
    let mut hostile = Hostile::new(device);
    for step in script {
        if step[0] != kind::WORK {
            hostile.act(step);
            continue;
        }
        let (allowed, before) = (allowed::<D>(&hostile.mem), contents(&hostile.mem));
        let taken = heap_of(|| work(&mut hostile.mmio, &hostile.mem, &step[1..]));
        prop_assert!(taken <= most, "{taken} bytes of heap for one piece of work");
        let Some(allowed) = allowed else { continue };
        for at in changes(&before, &contents(&hostile.mem)) {
            prop_assert!(
                allowed.iter().any(|range| range.contains(&(at as u64))),
                "the byte at {at:#x} changed, which no writable buffer holds"
            );
        }
    }
    Ok(())
}

/// Bytes that `work` takes from the heap, all in all. Counted for this thread alone: other properties make their scripts meanwhile.
fn heap_of(work: impl FnOnce()) -> u64 {
    let mut outcome = Ok(());
    // A panic must not leave the counter's stack as it is within.
    let heap = allocation_counter::measure(|| outcome = catch_unwind(AssertUnwindSafe(work)));
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
    heap.bytes_total
}

/// Where two memories differ. Compared by pages first: a million single comparisons take long in a test build.
fn changes(before: &[u8], after: &[u8]) -> Vec<usize> {
    let pages = before.chunks(4096).zip(after.chunks(4096)).enumerate();
    let bytes = |(page, (a, b)): (usize, (&[u8], &[u8]))| {
        let places: Vec<usize> = if a == b {
            Vec::new()
        } else {
            (0..a.len()).filter(|&i| a[i] != b[i]).collect()
        };
        places.into_iter().map(move |i| page * 4096 + i)
    };
    pages.flat_map(bytes).collect()
}

fn contents(mem: &GuestMemoryMmap) -> Vec<u8> {
    let mut bytes = vec![0; RAM as usize];
    mem.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// What the device may write: used rings, the event index that asks for a bell, and every buffer that a writable descriptor names,
/// also in indirect tables. `None`: a writable buffer lies over a descriptor table, which may then say anything.
fn allowed<D: Device>(mem: &GuestMemoryMmap) -> Option<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut tables = Vec::new();
    for queue in (0..D::QUEUES.len()).map(base) {
        ranges.push(queue + 0x8000..queue + 0x8000 + 6 + 8 * u64::from(SIZE));
        tables.push(queue..queue + 16 * u64::from(SIZE));
    }
    let mut at = 0;
    while let Some(table) = tables.get(at).cloned() {
        for place in table.step_by(16) {
            let Ok(addr) = mem.read_obj::<u64>(GuestAddress(place)) else {
                break;
            };
            let rest: u64 = mem.read_obj(GuestAddress(place + 8)).unwrap_or(0);
            let (len, flags) = (rest & 0xffff_ffff, (rest >> 32) as u16);
            let end = addr.saturating_add(len);
            if flags & WRITE != 0 {
                ranges.push(addr..end);
            }
            if flags & INDIRECT != 0 && at < D::QUEUES.len() {
                tables.push(addr..end.min(RAM));
            }
        }
        at += 1;
    }
    let buffers = &ranges[D::QUEUES.len()..];
    let overlap = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    let safe = |range: &Range<u64>| !tables.iter().any(|table| overlap(range, table));
    (ranges[..D::QUEUES.len()].iter().all(safe) && buffers.iter().all(safe)).then_some(ranges)
}

struct Pattern;

impl Entropy for Pattern {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill(0xa5);
        true
    }
}

fn disk(read_only: bool) -> Block {
    Block::new(Geometry {
        len: 4096 * SECTOR,
        block: 4096,
        read_only,
        serial: *b"0123456789abcdefghij",
    })
}

/// Carries a request out in its memory, as the crew of a disk would.
fn carry_out(mmio: &mut Mmio<Block>, mem: &GuestMemoryMmap, request: Request) {
    for (addr, len) in request.buffers() {
        assert!(mem.check_range(addr, len), "a buffer outside memory");
    }
    mmio.complete(mem, request, Outcome::Done);
}

fn card(all: bool) -> Net {
    let offloads = Offloads {
        checksum: all,
        tso4: all,
        tso6: all,
    };
    Net::new(Settings {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        from_driver: offloads,
        to_driver: offloads,
    })
}

/// Counts how often a balloon's driver makes it do something.
struct Taker(Rc<Cell<usize>>);

impl balloon::Host for Taker {
    fn take(&mut self, _: &GuestMemoryMmap, _: GuestAddress, _: u64) {
        self.0.set(self.0.get() + 1);
    }
}

/// A host's end that takes and gives a little at a time, then waits.
struct Peer(usize);

impl Peer {
    fn some(&mut self, most: usize) -> io::Result<usize> {
        self.0 += 1;
        match self.0 % 3 {
            0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(most.min(1000)),
        }
    }
}

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.some(into.len())?;
        into[..count].fill(0xb6);
        Ok(count)
    }
}

impl Write for Peer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.some(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Peer {
    fn opened(&mut self, _: Id) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) {}
}

impl Host for Peer {
    type Stream = Self;

    fn connect(&mut self, _: u32) -> Option<Self> {
        Some(Self(0))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn block(script in scripts(), read_only in any::<bool>()) {
        // Room for all that a script asks: its growth is the test's, not the device's.
        let mut in_hand = Vec::with_capacity(1 << 12);
        watch(disk(read_only), &script, MOST, |mmio, mem, what| {
            for _ in 0..4 {
                in_hand.extend(mmio.next_request(mem));
            }
            if what[0] & 1 != 0 {
                in_hand.drain(..).for_each(|request| carry_out(mmio, mem, request));
            }
        })?;
    }

    #[test]
    fn console(script in scripts()) {
        let mut out = Vec::with_capacity(2 * BATCH);
        watch(Console::new(80, 25), &script, MOST, |mmio, mem, what| match what[0] % 4 {
            0 => {
                let _ = mmio.give_input(mem, &[0x5a; 3000]);
            }
            1 => {
                let _ = mmio.wants_input(mem) && mmio.end_input(mem);
            }
            2 => {
                let _ = mmio.listen_for_input(mem);
            }
            _ => {
                out.clear();
                mmio.collect_output(mem, &mut out);
                assert!(out.len() <= BATCH);
            }
        })?;
    }

    #[test]
    fn entropy(script in scripts()) {
        watch(Rng::new(Pattern), &script, MOST, |mmio, mem, _| {
            mmio.serve(mem);
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn network_card(script in scripts(), all in any::<bool>(), len in 14usize..3000) {
        let mut bytes = Vec::with_capacity(LONGEST);
        watch(card(all), &script, 2 * MOST, |mmio, mem, what| {
            mmio.exchange(mem, |traffic| {
                while let Some(frame) = traffic.outgoing.take() {
                    for segment in &frame.segments {
                        assert!(mem.check_range(segment.addr(), segment.len() as usize));
                    }
                    bytes.clear();
                    traffic.outgoing.copy(&frame, &mut bytes);
                    traffic.outgoing.done(&frame);
                }
                if what[0] & 1 != 0 {
                    traffic.incoming.put(Header::default(), &[0xc7; 3000][..len]);
                }
            });
        })?;
    }

    #[test]
    fn balloon(script in scripts()) {
        let taken = Rc::new(Cell::new(0));
        watch(Balloon::new(Taker(taken.clone())), &script, 2 * MOST, |mmio, mem, what| {
            taken.set(0);
            mmio.set_target(what[0].into());
            if what[1] & 1 != 0 {
                mmio.ask_statistics(mem);
            }
            mmio.serve(mem);
            assert!(taken.get() <= 2 * 64 * 1024, "the host is kept busy");
        })?;
    }

    #[test]
    fn vsock(script in scripts()) {
        watch(Vsock::new(Peer(0), GUEST_CID), &script, MOST_VSOCK, |mmio, mem, what| {
            if what[0] & 3 == 0 {
                mmio.connect(what[1].into(), Peer(0));
            }
            mmio.serve(mem);
            assert!(mmio.interests().count() <= CONNECTIONS);
        })?;
    }
}

/// The watching itself sees what it is there for.
#[test]
fn a_device_that_writes_elsewhere_is_caught() {
    let script = [[kind::WORK; STEP]];
    let stray = watch(disk(false), &script, MOST, |_, mem, _| {
        mem.write_obj(1u8, GuestAddress(0x9_0000)).unwrap();
    });
    assert!(stray.is_err());
    let greedy = watch(disk(false), &script, MOST, |_, _, _| {
        std::hint::black_box(vec![0u8; MOST as usize + 1]);
    });
    assert!(greedy.is_err());
}
