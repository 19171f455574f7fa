//! The network driver against a device in software: what is negotiated, frames in place and in pieces, headers, kicks and interrupts.

mod common;
use common::*;
use unik_virtio::mmio::{BatchedMmio, Prefetch};
use unik_virtio::net::{self, Net, Segments, Work};
use unik_virtio::{DeviceType, DriverError};

const CSUM: u64 = 1;
const GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const HOST_TSO4: u64 = 1 << 11;
const MRG_RXBUF: u64 = 1 << 15;
const ALL: u64 = F_VERSION_1
    | F_EVENT_IDX
    | CSUM
    | GUEST_CSUM
    | F_MTU
    | MAC
    | GUEST_TSO4
    | HOST_TSO4
    | MRG_RXBUF;
const HEADER: usize = 12;
const BUFFER: usize = 2048;

type TestNet = Net<HostMemory, BatchedMmio<FakeBus>>;

fn device(offered: u64) -> FakeBus {
    let bus = FakeBus::new(1, offered, 2);
    bus.0.regs.borrow_mut().config = vec![2, 3, 5, 7, 11, 13, 1, 0, 1, 0, 0x28, 0x23];
    bus
}

fn card(bus: &FakeBus) -> TestNet {
    let prefetch = Prefetch {
        queues: net::QUEUES,
        config_words: net::CONFIG_WORDS,
        ..Prefetch::default()
    };
    Net::new(BatchedMmio::probe(bus.clone(), WINDOW, DeviceType::Network, prefetch).unwrap())
        .unwrap()
}

fn header(flags: u8, buffers: u16) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[0] = flags;
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// The device receives a frame into as many buffers as it needs; whether the driver wants an interrupt.
fn deliver(queue: &mut DeviceQueue, flags: u8, frame: &[u8]) -> bool {
    let buffers = (HEADER + frame.len()).div_ceil(BUFFER);
    let bytes = [header(flags, buffers as u16), frame.to_vec()].concat();
    let mut interrupt = false;
    for part in bytes.chunks(BUFFER) {
        let (head, pieces) = queue.next().unwrap();
        fill(pieces[0], part);
        interrupt |= queue.give_back(head.into(), part.len() as u32);
    }
    interrupt
}

fn take(card: &mut TestNet) -> Option<(Vec<u8>, bool)> {
    let mut seen = None;
    let found = card
        .receive(&mut |frame, good| seen = Some((frame.to_vec(), good)))
        .unwrap();
    assert_eq!(found, seen.is_some());
    seen
}

#[test]
fn asks_for_what_belongs_together() {
    let bus = device(ALL);
    let whole = card(&bus);
    let info = whole.info();
    assert_eq!((info.mac, info.mtu), ([2, 3, 5, 7, 11, 13], 9000));
    assert!(info.checksum && info.tso4);
    assert_eq!(bus.0.regs.borrow().accepted, ALL);
    // Segments without checksums, large frames without merged buffers: not taken.
    let bus = device(F_VERSION_1 | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4);
    let poor = card(&bus);
    let info = poor.info();
    assert_eq!(bus.0.regs.borrow().accepted, F_VERSION_1 | GUEST_CSUM);
    assert_eq!((info.mtu, info.checksum, info.tso4), (1500, false, false));
}

#[test]
fn comes_up_in_three_batches_and_one_kick() {
    let bus = device(ALL);
    let _card = card(&bus);
    assert_eq!(bus.0.batches.get(), 3);
    assert_eq!(bus.take_kicks(), [0]);
}

#[test]
fn shows_frames_of_all_sizes_again_and_again() {
    let bus = device(ALL);
    let mut card = card(&bus);
    let mut queue = bus.queue(0);
    for turn in 0..500 {
        // Now and then a frame runs over the end of the buffers and has to be put together.
        for len in [60, 1514, 9014, 2036, 2037, 30_000 + turn] {
            let frame = pattern(len);
            deliver(&mut queue, if turn % 2 == 0 { 1 } else { 0 }, &frame);
            assert_eq!(take(&mut card), Some((frame, turn % 2 == 0)));
        }
        assert_eq!(take(&mut card), None);
    }
}

#[test]
fn waits_for_all_buffers_of_a_frame() {
    let bus = device(ALL);
    let mut card = card(&bus);
    let mut queue = bus.queue(0);
    let bytes = [header(0, 2), pattern(3000)].concat();
    for (n, part) in bytes.chunks(BUFFER).enumerate() {
        assert_eq!(take(&mut card), None, "after {n} buffers");
        let (head, pieces) = queue.next().unwrap();
        fill(pieces[0], part);
        queue.give_back(head.into(), part.len() as u32);
    }
    assert_eq!(take(&mut card), Some((pattern(3000), false)));
}

#[test]
fn survives_lengths_that_cannot_be() {
    let bus = device(ALL);
    let mut card = card(&bus);
    let mut queue = bus.queue(0);
    for (len, buffers, wanted) in [(0, 1, 0), (3, 0, 0), (u32::MAX, 1, BUFFER - HEADER)] {
        let (head, pieces) = queue.next().unwrap();
        fill(pieces[0], &header(0, buffers));
        queue.give_back(head.into(), len);
        assert_eq!(take(&mut card).unwrap().0.len(), wanted);
    }
    queue.give_back(999, 60);
    let broken = card.receive(&mut |_, _| panic!("a frame from nowhere"));
    assert_eq!(broken, Err(DriverError::Broken(0)));
}

#[test]
fn interrupts_only_when_armed() {
    let bus = device(ALL);
    let mut card = card(&bus);
    let mut queue = bus.queue(0);
    assert!(!deliver(&mut queue, 0, &pattern(60)));
    assert!(card.arm(), "a frame is there already");
    assert!(take(&mut card).is_some());
    assert!(!card.arm());
    assert!(deliver(&mut queue, 0, &pattern(60)));
    assert!(!deliver(&mut queue, 0, &pattern(60)), "asked for one");
    assert!(take(&mut card).is_some() && take(&mut card).is_some());
    assert!(!card.arm());
    card.disarm();
    assert!(!deliver(&mut queue, 0, &pattern(60)));
    // SAFETY: the driver and its ring are alive.
    let count = || unsafe { (*card.watch().as_ptr()).load(std::sync::atomic::Ordering::Relaxed) };
    assert_eq!(count(), card.seen().wrapping_add(1));
}

#[test]
fn sends_with_headers_and_as_few_kicks_as_can_be() {
    let bus = device(ALL);
    let mut card = card(&bus);
    bus.take_kicks();
    let mut queue = bus.queue(1);
    let segments = Segments {
        size: 1448,
        header_len: 66,
    };
    let work = Work {
        checksum: Some((34, 16)),
        segments: Some(segments),
    };
    for _ in 0..3 {
        card.send(5000, &mut |frame| {
            frame.copy_from_slice(&pattern(5000));
            work
        });
    }
    assert_eq!(queue.next(), None, "nothing is shown before the flush");
    card.flush();
    assert_eq!(bus.take_kicks(), [1]);
    let (head, pieces) = queue.next().unwrap();
    let bytes = bytes_of(pieces[0]);
    assert_eq!(bytes[..HEADER], [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    assert_eq!(bytes[HEADER..], pattern(5000));
    assert!(!queue.give_back(head.into(), 0), "nobody waits for it");
    queue.want_kicks(false);
    card.send(60, &mut |_| Work::default());
    card.flush();
    assert_eq!(bus.take_kicks(), [], "the device looks by itself");
}

#[test]
fn a_full_ring_takes_no_more_until_the_device_has_read() {
    let bus = device(ALL);
    let mut card = card(&bus);
    let mut queue = bus.queue(1);
    for turn in 0..20 {
        let mut sent = 0;
        while card.ready() {
            card.send(65_000, &mut |frame| {
                frame[0] = sent;
                Work::default()
            });
            sent += 1;
        }
        assert!(sent >= 7, "{sent} large frames in turn {turn}");
        card.flush();
        assert!(!card.arm_room());
        let mut interrupted = 0;
        for n in 0..sent {
            let (head, pieces) = queue.next().unwrap();
            assert_eq!(bytes_of(pieces[0])[HEADER], n);
            interrupted += u32::from(queue.give_back(head.into(), 0));
        }
        assert_eq!(interrupted, 1);
    }
}
