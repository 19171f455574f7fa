//! The console and entropy drivers against a device in software: data through real rings, and what it costs in calls and kicks.

mod common;
use common::*;
use unik_virtio::console::{self, Console, ReadOutcome, TX_CAPACITY};
use unik_virtio::mmio::{BatchedMmio, Prefetch, identify};
use unik_virtio::rng::{self, Rng};
use unik_virtio::{DeviceType, DriverError};

type TestConsole = Console<HostMemory, BatchedMmio<FakeBus>>;

fn console(bus: &FakeBus) -> TestConsole {
    let prefetch = Prefetch {
        queues: console::QUEUES,
        ..Prefetch::default()
    };
    Console::new(BatchedMmio::probe(bus.clone(), WINDOW, DeviceType::Console, prefetch).unwrap())
        .unwrap()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 31 + seed * 17) % 251) as u8)
        .collect()
}

#[test]
fn comes_up_in_three_batches() {
    let bus = FakeBus::new(3, F_VERSION_1 | F_EVENT_IDX, 2);
    let _console = console(&bus);
    assert_eq!(bus.0.batches.get(), 3);
    assert!(
        bus.0.ops.get() <= 45,
        "{} register operations",
        bus.0.ops.get()
    );
    assert_eq!(bus.0.regs.borrow().status, 0xf);
    assert_eq!(bus.0.regs.borrow().accepted, F_VERSION_1 | F_EVENT_IDX);
}

#[test]
fn identifies_windows_in_one_batch() {
    let bus = FakeBus::new(4, F_VERSION_1, 1);
    assert_eq!(identify(&bus, &[WINDOW]), [Some(DeviceType::EntropySource)]);
    assert_eq!(bus.0.batches.get(), 1);
}

#[test]
fn refuses_what_it_cannot_drive() {
    let probe = |bus: &FakeBus| {
        BatchedMmio::probe(
            bus.clone(),
            WINDOW,
            DeviceType::Console,
            Prefetch::default(),
        )
    };
    let wrong = FakeBus::new(2, F_VERSION_1, 2);
    assert_eq!(
        probe(&wrong).err(),
        Some(DriverError::WrongDevice {
            found: 2,
            wanted: DeviceType::Console
        })
    );
    let old = FakeBus::new(3, F_EVENT_IDX, 2);
    assert_eq!(
        Console::<HostMemory, _>::new(probe(&old).unwrap()).err(),
        Some(DriverError::NoVersion1(F_EVENT_IDX))
    );
    let stubborn = FakeBus::new(3, F_VERSION_1, 2);
    stubborn.0.regs.borrow_mut().refuse_features = true;
    assert_eq!(
        Console::<HostMemory, _>::new(probe(&stubborn).unwrap()).err(),
        Some(DriverError::FeaturesRefused(F_VERSION_1))
    );
    let small = FakeBus::new(3, F_VERSION_1, 2);
    small.0.regs.borrow_mut().queue_max = 2;
    assert!(matches!(
        Console::<HostMemory, _>::new(probe(&small).unwrap()),
        Err(DriverError::QueueTooSmall {
            queue: 0,
            max: 2,
            ..
        })
    ));
}

/// Megabytes in odd pieces through the output ring, the device finishing chains late and out of order.
#[test]
fn output_arrives_whole_and_in_order() {
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX] {
        let bus = FakeBus::new(3, features, 2);
        let mut console = console(&bus);
        let mut device = bus.queue(1);
        let (mut sent, mut received, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3000 {
            let piece = pattern(1 + (round * 977) % 9000, round);
            let taken = console.write(&piece).unwrap();
            sent.extend_from_slice(&piece[..taken]);
            while let Some((head, pieces)) = device.next() {
                pieces
                    .into_iter()
                    .for_each(|p| received.extend(bytes_of(p)));
                held.push(head);
            }
            if round % 5 == 0 {
                held.drain(..).rev().for_each(|head| {
                    assert!(
                        !device.give_back(head.into(), 0),
                        "output must not interrupt"
                    )
                });
            }
        }
        held.drain(..)
            .for_each(|head| assert!(!device.give_back(head.into(), 0)));
        assert!(sent.len() > 4 << 20);
        assert!(console.drained());
        assert!(sent == received);
    }
}

#[test]
fn output_never_blocks_and_kicks_a_gathering_device_only_under_pressure() {
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX] {
        let bus = FakeBus::new(3, features, 2);
        let mut console = console(&bus);
        let mut device = bus.queue(1);
        assert_eq!(console.write(b"hello\n").unwrap(), 6);
        assert_eq!(bus.take_kicks(), [1]);
        device.want_kicks(false);
        for _ in 0..20 {
            assert_eq!(console.write(b"world\n").unwrap(), 6);
        }
        assert!(bus.take_kicks().is_empty());
        assert_eq!(
            console.write(&pattern(TX_CAPACITY, 0)).unwrap(),
            TX_CAPACITY - 126
        );
        assert_eq!(bus.take_kicks(), [1], "half of the ring is full");
        assert_eq!(console.write(b"x").unwrap(), 0);
        assert!(bus.take_kicks().is_empty());
        assert!(!console.writable() && !console.drained());
        assert_eq!(bus.take_kicks(), [1], "somebody waits for room");
        console.hurry();
        assert_eq!(bus.take_kicks(), [1], "somebody waits for the end");
        let (head, _) = device.next().unwrap();
        assert!(
            device.give_back(head.into(), 0),
            "a blocked writer wants its interrupt"
        );
        assert!(console.writable());
        assert_eq!(console.write(b"more").unwrap(), 4);
    }
}

/// Far beyond 65,536 chains: ring positions wrap around and no kick is lost.
#[test]
fn positions_wrap() {
    let bus = FakeBus::new(3, F_VERSION_1 | F_EVENT_IDX, 2);
    let mut console = console(&bus);
    let mut device = bus.queue(1);
    for round in 0..70_000u32 {
        device.want_kicks(true);
        assert_eq!(console.write(&round.to_le_bytes()).unwrap(), 4);
        assert_eq!(bus.take_kicks(), [1], "round {round}");
        let (head, pieces) = device.next().unwrap();
        assert_eq!(bytes_of(pieces[0]), round.to_le_bytes());
        device.give_back(head.into(), 0);
    }
}

#[test]
fn input_flows_then_ends() {
    for features in [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX] {
        let bus = FakeBus::new(3, features, 2);
        let mut console = console(&bus);
        let mut device = bus.queue(0);
        assert!(
            device.next().is_none(),
            "nothing is posted before somebody reads"
        );
        let mut buf = [0; 1000];
        assert_eq!(console.read(&mut buf).unwrap(), ReadOutcome::WouldBlock);
        assert_eq!(bus.take_kicks(), [0]);
        let mut received = Vec::new();
        let sent = pattern(100_000, 3);
        for piece in sent.chunks(3000) {
            let (head, pieces) = device.next().unwrap();
            fill(pieces[0], piece);
            assert!(
                device.give_back(head.into(), piece.len() as u32),
                "input interrupts"
            );
            bus.0.regs.borrow_mut().interrupt_status = 1;
            console.ack_interrupt();
            assert_eq!(bus.0.regs.borrow().interrupt_status, 0);
            assert!(console.readable().unwrap());
            while let ReadOutcome::Data(n) = console.read(&mut buf).unwrap() {
                received.extend_from_slice(&buf[..n]);
            }
        }
        assert!(sent == received);
        let (head, _) = device.next().unwrap();
        device.give_back(head.into(), 0);
        assert!(console.readable().unwrap());
        assert_eq!(console.read(&mut buf).unwrap(), ReadOutcome::Eof);
        assert_eq!(console.read(&mut buf).unwrap(), ReadOutcome::Eof);
    }
}

#[test]
fn a_lying_device_breaks_only_its_queue() {
    let bus = FakeBus::new(3, F_VERSION_1, 2);
    let mut console = console(&bus);
    let mut device = bus.queue(1);
    console.write(b"a").unwrap();
    let _ = device.give_back(77_777, 0);
    assert_eq!(console.write(b"b").err(), Some(DriverError::Broken(1)));
    assert!(console.drained(), "nobody may wait for a broken device");

    let mut input = bus.queue(0);
    let mut buf = [0; 8];
    assert_eq!(console.read(&mut buf).unwrap(), ReadOutcome::WouldBlock);
    let (head, _) = input.next().unwrap();
    assert!(input.give_back(head.into(), u32::MAX));
    assert_eq!(console.read(&mut buf).unwrap(), ReadOutcome::Data(8));
    let _ = input.give_back(9, 4);
    let mut total = 8;
    while let Ok(outcome) = console.read(&mut buf) {
        assert_eq!(outcome, ReadOutcome::Data(8));
        total += 8;
    }
    assert_eq!(
        total, 4096,
        "the claimed length is clamped, the unknown buffer refused"
    );
}

#[test]
fn entropy_arrives_in_pieces() {
    let bus = FakeBus::new(4, F_VERSION_1 | F_EVENT_IDX, 1);
    let prefetch = Prefetch {
        queues: rng::QUEUES,
        trust_type: true,
        ..Prefetch::default()
    };
    let transport =
        BatchedMmio::probe(bus.clone(), WINDOW, DeviceType::EntropySource, prefetch).unwrap();
    let mut rng: Rng<HostMemory, _> = Rng::new(transport).unwrap();
    let mut device = bus.queue(0);
    let mut buf = [0; 64];
    rng.request(64, true);
    assert_eq!(bus.take_kicks(), [0]);
    assert_eq!(rng.poll(&mut buf).unwrap(), None);
    let (head, pieces) = device.next().unwrap();
    fill(pieces[0], &pattern(40, 9));
    assert!(device.give_back(head.into(), 40));
    assert_eq!(rng.poll(&mut buf).unwrap(), Some(40));
    assert_eq!(buf[..40], pattern(40, 9));
    assert_eq!(
        rng.fill(&mut buf, 10).unwrap(),
        0,
        "a silent device does not hang the guest"
    );
}
