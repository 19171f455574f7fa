//! The card against a driver: both directions, merged buffers, suppressed notifications, and lies.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::virtio::mmio::Effect;
use crate::virtio::testing::{Driver, bring_up_with, get, memory};

const ALL: Offloads = Offloads {
    checksum: true,
    tso4: true,
    tso6: true,
};
const MERGE: u64 = feature::MRG_RXBUF;
const DATA: u64 = 0x4_0000;

fn card() -> Mmio<Net> {
    Mmio::new(Net::new(Settings {
        mac: [2, 0, 0, 0, 0, 7],
        mtu: 1500,
        from_driver: ALL,
        to_driver: ALL,
    }))
}

fn up(features: u64, event_idx: bool) -> (Mmio<Net>, GuestMemoryMmap) {
    let (mut mmio, mem) = (card(), memory());
    assert_eq!(
        bring_up_with(&mut mmio, &mem, features, event_idx),
        Effect::Ready
    );
    (mmio, mem)
}

/// All frames that the driver has sent.
fn sent(mmio: &mut Mmio<Net>, mem: &GuestMemoryMmap) -> Vec<Vec<u8>> {
    let all = mmio.exchange(mem, |traffic| {
        let mut all = Vec::new();
        while let Some(frame) = traffic.outgoing.take() {
            let mut bytes = Vec::new();
            traffic.outgoing.copy(&frame, &mut bytes);
            assert_eq!(bytes.len(), frame.len);
            traffic.outgoing.done(&frame);
            all.push(bytes);
        }
        all
    });
    all.unwrap_or_default()
}

fn put(mmio: &mut Mmio<Net>, mem: &GuestMemoryMmap, frame: &[u8]) -> Option<bool> {
    mmio.exchange(mem, |traffic| {
        traffic.incoming.put(Header::default(), frame)
    })
}

fn read(mem: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

#[test]
fn the_configuration_says_who_it_is() {
    let (mmio, _) = up(0, false);
    assert_eq!(get(&mmio, 0x100), 2);
    assert_eq!(get(&mmio, 0x104), 1 << 16 | 7 << 8);
    assert_eq!(get(&mmio, 0x108), 1500 << 16 | 1);
}

#[test]
fn frames_are_taken_out_of_any_arrangement_of_buffers() {
    let (mut mmio, mem) = up(0, false);
    let mut driver = Driver::new(&mem, TRANSMIT);
    mem.write_slice(&[9; 100], GuestAddress(DATA)).unwrap();
    mem.write_slice(&[0; 12], GuestAddress(DATA)).unwrap();
    driver.chain(&[(DATA, 72, false)]);
    driver.chain(&[
        (DATA, 5, false),
        (DATA + 5, 20, false),
        (DATA + 25, 47, false),
    ]);
    assert_eq!(sent(&mut mmio, &mem), [[9; 60], [9; 60]]);
    assert!(mmio.take_interrupt());
    assert_eq!((driver.used(), driver.used()), (Some((0, 0)), Some((1, 0))));
    assert_eq!(mmio.device().counts().sent, 2);
}

#[test]
fn frames_that_lie_vanish_and_the_next_comes() {
    let (mut mmio, mem) = up(feature::CSUM, false);
    let mut driver = Driver::new(&mem, TRANSMIT);
    // Too short for a header, too short for a frame, checksum outside, segments that were not negotiated.
    let headers: [[u8; 12]; 5] = [
        [0; 12],
        [0; 12],
        [1, 0, 0, 0, 0, 0, 59, 0, 0, 0, 0, 0],
        [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0],
    ];
    for (i, header) in headers.iter().enumerate() {
        let at = DATA + 0x1000 * i as u64;
        mem.write_slice(header, GuestAddress(at)).unwrap();
        driver.chain(&[(at, [11, 25, 72, 72, 72][i], false)]);
    }
    assert_eq!(sent(&mut mmio, &mem).len(), 1);
    assert_eq!(mmio.device().counts().dropped, 4);
    assert_eq!((0..5).filter_map(|_| driver.used()).count(), 5);
    let (mut mmio, mem) = up(0, false);
    let mut driver = Driver::new(&mem, TRANSMIT);
    driver.chain(&[(0, 1 << 19, false)]);
    assert!(sent(&mut mmio, &mem).is_empty() && mmio.live());
}

#[test]
fn a_frame_fills_as_many_buffers_as_it_needs_at_once() {
    let (mut mmio, mem) = up(MERGE, false);
    let mut driver = Driver::new(&mem, RECEIVE);
    assert_eq!(put(&mut mmio, &mem, &[5; 60]), Some(false));
    for at in [0, 0x1000, 0x2000] {
        driver.chain(&[(DATA + at, 30, true)]);
    }
    assert_eq!(put(&mut mmio, &mem, &[5; 60]), Some(true));
    let used = [driver.used(), driver.used(), driver.used(), driver.used()];
    assert_eq!(used, [Some((0, 30)), Some((1, 30)), Some((2, 12)), None]);
    let mut first = vec![0; 10];
    first.extend([3, 0]);
    first.extend([5; 18]);
    assert_eq!(read(&mem, DATA, 30), first);
    assert_eq!(read(&mem, DATA + 0x2000, 13)[11..], [5, 0]);
    let counts = mmio.device().counts();
    assert_eq!((counts.received, counts.dropped), (1, 1));
}

#[test]
fn without_merging_a_frame_has_one_buffer() {
    let (mut mmio, mem) = up(0, false);
    let mut driver = Driver::new(&mem, RECEIVE);
    driver.chain(&[(DATA, 12, true), (DATA + 0x1000, 100, true)]);
    driver.chain(&[(DATA + 0x2000, 40, true)]);
    assert_eq!(put(&mut mmio, &mem, &[5; 60]), Some(true));
    assert_eq!(put(&mut mmio, &mem, &[5; 60]), Some(false));
    assert_eq!(put(&mut mmio, &mem, &[6; 28]), Some(true));
    assert_eq!(
        (driver.used(), driver.used()),
        (Some((0, 72)), Some((2, 40)))
    );
    assert_eq!(read(&mem, DATA + 0x1000, 60), [5; 60]);
}

#[test]
fn buffers_can_be_filled_in_place() {
    let (mut mmio, mem) = up(MERGE, false);
    let mut driver = Driver::new(&mem, RECEIVE);
    driver.chain(&[(DATA, 10, true), (DATA + 0x1000, 1000, true)]);
    driver.chain(&[(DATA + 0x2000, 1000, true)]);
    let mut segments = Vec::new();
    let filled = mmio.exchange(&mem, |traffic| {
        let incoming = &mut traffic.incoming;
        assert!(incoming.buffers(&mut segments));
        let mut rest = &[7; 1200][..];
        for segment in &mut segments {
            rest = &rest[segment.write_front(&mem, rest).unwrap()..];
        }
        incoming.filled(Header::default(), 1200);
        incoming.buffers(&mut segments)
    });
    assert_eq!(filled, Some(false));
    assert_eq!(
        (driver.used(), driver.used()),
        (Some((0, 1010)), Some((2, 202)))
    );
    assert_eq!(read(&mem, DATA + 0x1000, 4), [2, 0, 7, 7]);
    assert_eq!(read(&mem, DATA + 0x2000, 203)[201..], [7, 0]);
}

#[test]
fn with_event_indices_interrupts_come_only_when_asked_for() {
    let (mut mmio, mem) = up(MERGE, true);
    let mut driver = Driver::new(&mem, RECEIVE);
    driver.set_used_event(1);
    let mut interrupts = Vec::new();
    for _ in 0..4 {
        driver.chain(&[(DATA, 200, true)]);
        put(&mut mmio, &mem, &[1; 60]).unwrap();
        interrupts.push(mmio.take_interrupt());
    }
    assert_eq!(interrupts, [false, true, false, false]);
    assert_eq!(mmio.device().counts().interrupts, 1);
    let listen = |mmio: &mut Mmio<Net>| mmio.exchange(&mem, |t| t.outgoing.listen());
    let mut driver = Driver::new(&mem, TRANSMIT);
    assert_eq!(listen(&mut mmio), Some(false));
    driver.chain(&[(DATA, 72, false)]);
    assert_eq!(listen(&mut mmio), Some(true));
}

#[test]
fn a_driver_that_breaks_the_rules_is_not_served_until_it_resets() {
    for chain in [&[(DATA, 11, true)][..], &[(u64::MAX - 5, 100, true)]] {
        let (mut mmio, mem) = up(MERGE, false);
        Driver::new(&mem, RECEIVE).chain(chain);
        assert_eq!(put(&mut mmio, &mem, &[1; 60]), None);
        assert!(!mmio.live() && put(&mut mmio, &mem, &[1; 60]).is_none());
        // The old driver's rings are cleared by the new one.
        mem.write_obj(0u16, GuestAddress(0x1_4002)).unwrap();
        bring_up_with(&mut mmio, &mem, MERGE, false);
        assert_eq!(put(&mut mmio, &mem, &[1; 60]), Some(false));
    }
}

#[test]
fn buffers_of_an_old_driver_are_forgotten() {
    let (mut mmio, mem) = up(MERGE, false);
    Driver::new(&mem, RECEIVE).chain(&[(DATA, 2000, true)]);
    let ready = |mmio: &mut Mmio<Net>| mmio.exchange(&mem, |t| (t.incoming.ready(), t.session));
    assert_eq!(ready(&mut mmio), Some((true, 1)));
    mem.write_obj(0u16, GuestAddress(0x1_4002)).unwrap();
    bring_up_with(
        &mut mmio,
        &mem,
        MERGE | feature::GUEST_CSUM | feature::GUEST_TSO4,
        false,
    );
    assert_eq!(ready(&mut mmio), Some((false, 2)));
}

#[test]
fn one_exchange_ends_however_much_is_sent() {
    let (mut mmio, mem) = up(0, false);
    let taken = mmio.exchange(&mem, |traffic| {
        let mut driver = Driver::new(&mem, TRANSMIT);
        let mut taken = 0;
        driver.chain(&[(DATA, 72, false)]);
        while let Some(frame) = traffic.outgoing.take() {
            traffic.outgoing.done(&frame);
            driver.chain(&[(DATA, 72, false)]);
            taken += 1;
        }
        taken
    });
    assert!(matches!(taken, Some(1..=200)));
}
