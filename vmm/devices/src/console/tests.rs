//! The console against a driver: batches, back-pressure, the end of input.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::virtio::testing::{Driver, bring_up, get, memory};

fn console(event_idx: bool) -> (Mmio<Console>, GuestMemoryMmap) {
    let (mut mmio, mem) = (Mmio::new(Console::new(80, 25)), memory());
    bring_up(&mut mmio, &mem, event_idx);
    (mmio, mem)
}

#[test]
fn size_is_in_the_configuration() {
    let (mmio, _) = console(false);
    assert_eq!(get(&mmio, 0x100), 25 << 16 | 80);
    assert_eq!(get(&mmio, 0x104), 1);
}

#[test]
fn many_chains_come_as_one_batch() {
    let (mut mmio, mem) = console(true);
    let mut driver = Driver::new(&mem, TRANSMIT);
    mem.write_slice(b"hello, world", GuestAddress(0x1000))
        .unwrap();
    driver.chain(&[(0x1000, 5, false)]);
    driver.chain(&[(0x1005, 2, false), (0x1007, 5, false)]);
    driver.chain(&[]);
    let mut out = Vec::new();
    driver.set_avail_index(2);
    mmio.collect_output(&mem, &mut out);
    assert_eq!(out, b"hello, world");
    assert_eq!(
        (driver.used(), driver.used(), driver.used()),
        (Some((0, 0)), Some((1, 0)), None)
    );
    assert!(mmio.take_interrupt());
}

#[test]
fn nobody_rings_while_output_is_taken() {
    let (mut mmio, mem) = console(false);
    let used_flags = || mem.read_obj::<u16>(GuestAddress(0x2_8000)).unwrap();
    let mut driver = Driver::new(&mem, TRANSMIT);
    driver.chain(&[(0x1000, 5, false)]);
    let mut out = Vec::new();
    mmio.collect_output(&mem, &mut out);
    assert_eq!((out.len(), used_flags()), (5, 1));
    out.clear();
    mmio.collect_output(&mem, &mut out);
    assert_eq!((out.len(), used_flags()), (0, 0));
}

#[test]
fn a_chain_larger_than_a_batch_comes_in_parts() {
    let (mut mmio, mem) = console(false);
    let mut driver = Driver::new(&mem, TRANSMIT);
    mem.write_slice(&vec![b'x'; 200_000], GuestAddress(0x4_0000))
        .unwrap();
    driver.chain(&[(0x4_0000, 100_000, false), (0x4_0000, 100_000, false)]);
    let (mut total, mut out) = (0, Vec::new());
    loop {
        out.clear();
        mmio.collect_output(&mem, &mut out);
        assert!(out.len() <= BATCH && out.iter().all(|&b| b == b'x'));
        total += out.len();
        if out.is_empty() {
            break;
        }
    }
    assert_eq!((total, driver.used()), (200_000, Some((0, 0))));
}

#[test]
fn gigabytes_in_one_chain_cost_the_host_one_batch() {
    let (mut mmio, mem) = console(false);
    let mut driver = Driver::new(&mem, TRANSMIT);
    driver.chain(&[(0, 1 << 20, false); 8]);
    let mut out = Vec::new();
    mmio.collect_output(&mem, &mut out);
    assert_eq!(out.len(), BATCH);
    assert!(out.capacity() <= 2 * BATCH);
}

#[test]
fn a_broken_driver_ends_the_stream_and_a_reset_mends_it() {
    let (mut mmio, mem) = console(true);
    let mut driver = Driver::new(&mem, TRANSMIT);
    driver.chain(&[(0x1000, 5, false)]);
    driver.chain(&[(u64::MAX - 3, 5, false)]);
    let mut out = Vec::new();
    mmio.collect_output(&mem, &mut out);
    assert!(!mmio.live());
    out.clear();
    mmio.collect_output(&mem, &mut out);
    assert!(out.is_empty() && !mmio.wants_input(&mem) && mmio.give_input(&mem, b"x") == 0);
    bring_up(&mut mmio, &mem, true);
    assert!(mmio.live());
}

#[test]
fn input_waits_for_room() {
    let (mut mmio, mem) = console(false);
    let mut driver = Driver::new(&mem, RECEIVE);
    assert!(!mmio.wants_input(&mem));
    assert_eq!(mmio.give_input(&mem, b"abc"), 0);
    driver.chain(&[(0x1000, 2, true)]);
    assert!(mmio.wants_input(&mem));
    assert_eq!(mmio.give_input(&mem, b"abc"), 2);
    assert!(mmio.take_interrupt());
    assert!(!mmio.wants_input(&mem));
    driver.chain(&[(0x2000, 1, true), (0x3000, 64, true)]);
    assert_eq!(mmio.give_input(&mem, b"cde"), 3);
    assert_eq!((driver.used(), driver.used()), (Some((0, 2)), Some((1, 3))));
    let mut bytes = [0; 2];
    mem.read_slice(&mut bytes, GuestAddress(0x3000)).unwrap();
    assert_eq!(&bytes, b"de");
}

#[test]
fn the_end_of_input_is_a_buffer_of_length_0_and_is_told_once() {
    let (mut mmio, mem) = console(false);
    assert!(!mmio.end_input(&mem));
    let mut driver = Driver::new(&mem, RECEIVE);
    driver.chain(&[(0x1000, 8, true)]);
    driver.chain(&[(0x1000, 8, true)]);
    assert!(mmio.wants_input(&mem) && mmio.end_input(&mem) && mmio.take_interrupt());
    assert_eq!(driver.used(), Some((0, 0)));
    assert!(!mmio.wants_input(&mem));
}

#[test]
fn buffers_without_room_do_not_look_like_the_end() {
    let (mut mmio, mem) = console(false);
    let mut driver = Driver::new(&mem, RECEIVE);
    driver.chain(&[(0x1000, 8, false)]);
    assert_eq!(mmio.give_input(&mem, b"x"), 0);
    assert!(!mmio.live() && driver.used().is_none());
}
