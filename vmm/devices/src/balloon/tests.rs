//! A balloon against a driver: pages in runs, reports, statistics, the target.

use vm_memory::Bytes;

use super::*;
use crate::virtio::testing::{Driver, bring_up_with, get, memory, set};

#[derive(Default)]
struct Taken(Vec<(u64, u64)>);

impl Host for Taken {
    fn take(&mut self, _: &GuestMemoryMmap, start: GuestAddress, len: u64) {
        self.0.push((start.0, len));
    }
}

fn balloon(features: u64) -> (Mmio<Balloon<Taken>>, GuestMemoryMmap) {
    let (mut mmio, mem) = (Mmio::new(Balloon::new(Taken::default())), memory());
    bring_up_with(&mut mmio, &mem, features, false);
    (mmio, mem)
}

#[test]
fn pages_are_taken_in_runs() {
    let (mut mmio, mem) = balloon(0);
    let numbers: Vec<u8> = [5u32, 6, 7, 3, 2, 100, u32::MAX]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    mem.write_slice(&numbers, GuestAddress(0x4_0000)).unwrap();
    let mut driver = Driver::new(&mem, INFLATE);
    driver.chain(&[(0x4_0000, 10, false), (0x4_000a, 19, false)]);
    assert!(!mmio.serve(&mem) && mmio.take_interrupt());
    assert_eq!(driver.used(), Some((0, 0)));
    let last = u64::from(u32::MAX) * PAGE;
    assert_eq!(
        mmio.device().host.0,
        [
            (5 * PAGE, 3 * PAGE),
            (2 * PAGE, 2 * PAGE),
            (100 * PAGE, PAGE),
            (last, PAGE)
        ]
    );
    let mut driver = Driver::new(&mem, DEFLATE);
    driver.chain(&[(0x4_0000, 8, false)]);
    mmio.serve(&mem);
    assert_eq!(driver.used(), Some((0, 0)));
}

#[test]
fn reports_come_through_the_queue_that_both_sides_number_alike() {
    for (features, queue) in [
        (feature::REPORTING, 2),
        (feature::REPORTING | feature::STATISTICS, 3),
    ] {
        let (mut mmio, mem) = balloon(features);
        let mut driver = Driver::new(&mem, queue);
        driver.chain(&[(0x8_0000, 0x2000, true), (0xa_0000, 0x1000, true)]);
        mmio.serve(&mem);
        assert_eq!(driver.used(), Some((0, 0)));
        assert_eq!(
            mmio.device().host.0,
            [(0x8_0000, 0x2000), (0xa_0000, 0x1000)]
        );
        assert_eq!(mmio.device().state().reported(), 0x3000);
    }
}

#[test]
fn statistics_are_asked_for_one_at_a_time() {
    let (mut mmio, mem) = balloon(feature::STATISTICS);
    assert!(!mmio.ask_statistics(&mem));
    let mut entries = Vec::new();
    for (tag, value) in [(4u16, 77u64), (5, 99), (600, 1)] {
        entries.extend(tag.to_le_bytes());
        entries.extend(value.to_le_bytes());
    }
    mem.write_slice(&entries, GuestAddress(0x4_0000)).unwrap();
    let mut driver = Driver::new(&mem, 2);
    driver.chain(&[(0x4_0000, entries.len() as u32, false)]);
    mmio.serve(&mem);
    let state = mmio.device().state();
    assert_eq!(
        (state.statistics()[4], state.statistics()[5]),
        (Some(77), Some(99))
    );
    assert_eq!((state.updates(), driver.used()), (1, None));
    assert!(mmio.ask_statistics(&mem) && !mmio.ask_statistics(&mem));
    assert_eq!(driver.used(), Some((0, 0)));
}

#[test]
fn the_target_is_told_and_the_guests_answer_kept() {
    let (mut mmio, mem) = balloon(0);
    let before = get(&mmio, 0xfc);
    mmio.set_target(64 << 20);
    assert!(mmio.take_interrupt());
    assert_eq!((get(&mmio, 0x60), get(&mmio, 0xfc)), (2, before + 1));
    assert_eq!(get(&mmio, 0x100), 64 << 8);
    set(&mut mmio, &mem, 0x104, 17);
    assert_eq!(mmio.device().state().bytes(), (64 << 20, 17 * PAGE));
    mmio.set_target(u64::MAX);
    assert_eq!(get(&mmio, 0x100), u32::MAX);
}
