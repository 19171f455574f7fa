//! What other monitors paid for, each lesson as a test over every device that it concerns.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use unik_devices::balloon::{self, Balloon};
use unik_devices::block::{Block, Geometry, Outcome, SECTOR};
use unik_devices::console::{self, Console};
use unik_devices::net::{Header, Net, Offloads, Settings};
use unik_devices::rng::{Entropy, Rng};
use unik_devices::serial::SerialPort;
use unik_devices::virtio::Device;
use unik_devices::virtio::mmio::{Effect, Mmio};
use unik_devices::virtio::testing::{
    Driver, RAM, SIZE, base, bring_up, bring_up_with, memory, set,
};
use unik_devices::vsock::packet::Id;
use unik_devices::vsock::{GUEST_CID, Host, Stream, Vsock};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const DATA: u64 = 0x9_0000;

struct Ones;

impl Entropy for Ones {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill(1);
        true
    }
}

/// A host's end that has always something to say.
struct Talker;

impl Read for Talker {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into.fill(2);
        Ok(into.len())
    }
}

impl Write for Talker {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Talker {
    fn opened(&mut self, _: Id) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) {}
}

impl Host for Talker {
    type Stream = Self;

    fn connect(&mut self, _: u32) -> Option<Self> {
        Some(Self)
    }
}

fn disk(sectors: u64) -> Block {
    Block::new(Geometry {
        len: sectors * SECTOR,
        block: 4096,
        read_only: false,
        serial: [0; 20],
    })
}

fn card() -> Net {
    Net::new(Settings {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        from_driver: Offloads::default(),
        to_driver: Offloads::default(),
    })
}

fn up<D: Device>(device: D, event_idx: bool) -> (Mmio<D>, GuestMemoryMmap) {
    let (mut mmio, mem) = (Mmio::new(device), memory());
    assert_eq!(bring_up(&mut mmio, &mem, event_idx), Effect::Ready);
    (mmio, mem)
}

/// Firecracker let a driver move its queues while the device used them.
#[test]
fn queue_settings_are_frozen_once_the_driver_is_ready() {
    let (mut mmio, mem) = up(Rng::new(Ones), false);
    for (offset, value) in [
        (0x30, 0),
        (0x44, 0),
        (0x38, 4),
        (0x80, 0xa_0000),
        (0x90, 0xa_4000),
        (0xa0, 0xa_8000),
        (0x84, 1),
        (0xa4, 1),
        (0x20, u32::MAX),
        (0x70, 0xf),
    ] {
        set(&mut mmio, &mem, offset, value);
    }
    let mut driver = Driver::new(&mem, 0);
    driver.chain(&[(DATA, 16, true)]);
    assert!(!mmio.serve(&mem) && mmio.live());
    assert_eq!(driver.used(), Some((0, 16)));
}

/// Firecracker checked the head of a chain only, and its tail could lie anywhere.
#[test]
fn every_link_of_a_chain_is_checked_and_not_only_its_head() {
    let bad = [(DATA, 64, true), (RAM - 8, 16, true)];
    let untouched = |mem: &GuestMemoryMmap| {
        mem.read_obj::<[u8; 32]>(GuestAddress(DATA)).unwrap() == [0; 32]
            && mem.read_obj::<[u8; 8]>(GuestAddress(RAM - 8)).unwrap() == [0; 8]
    };

    let (mut mmio, mem) = up(Rng::new(Ones), false);
    Driver::new(&mem, 0).chain(&bad);
    mmio.serve(&mem);
    assert!(!mmio.live() && untouched(&mem), "entropy");

    let (mut mmio, mem) = up(Console::new(80, 25), false);
    Driver::new(&mem, console::RECEIVE).chain(&bad);
    assert_eq!(mmio.give_input(&mem, &[3; 100]), 0);
    assert!(!mmio.live() && untouched(&mem), "console");

    let (mut mmio, mem) = up(card(), false);
    Driver::new(&mem, 0).chain(&bad);
    mmio.exchange(&mem, |t| t.incoming.put(Header::default(), &[4; 60]));
    assert!(!mmio.live() && untouched(&mem), "network card");

    let (mut mmio, mem) = up(disk(100), false);
    Driver::new(&mem, 0).chain(&[(DATA + 64, 16, false), bad[0], bad[1]]);
    assert!(mmio.next_request(&mem).is_none());
    assert!(!mmio.live() && untouched(&mem), "disk");

    let (mut mmio, mem) = up(Vsock::new(Talker, GUEST_CID), false);
    Driver::new(&mem, 0).chain(&bad);
    assert!(mmio.connect(7, Talker));
    mmio.serve(&mem);
    assert!(!mmio.live() && untouched(&mem), "vsock");
}

/// The event index by which a device asks to be told of the next chain of `queue`.
fn asked_for(mem: &GuestMemoryMmap, queue: usize) -> u16 {
    let at = base(queue) + 0x8004 + 8 * u64::from(SIZE);
    mem.read_obj(GuestAddress(at)).unwrap()
}

/// Firecracker stopped receiving for good once a driver had been out of buffers.
#[test]
fn receiving_goes_on_after_back_pressure() {
    let (mut mmio, mem) = up(Console::new(80, 25), true);
    let mut driver = Driver::new(&mem, console::RECEIVE);
    for round in 0..20u16 {
        assert!(!mmio.wants_input(&mem));
        assert_eq!(mmio.give_input(&mem, b"ab"), 0, "no room");
        assert!(!mmio.listen_for_input(&mem));
        assert_eq!(asked_for(&mem, console::RECEIVE), round);
        driver.chain(&[(DATA, 1, true)]);
        assert_eq!(mmio.give_input(&mem, b"ab"), 1, "the rest waits");
        assert!(driver.used().is_some());
    }

    let (mut mmio, mem) = up(card(), true);
    let mut driver = Driver::new(&mem, 0);
    for round in 0..20u16 {
        let ready = mmio.exchange(&mem, |t| t.incoming.ready() || t.incoming.listen());
        assert_eq!(ready, Some(false));
        assert_eq!(asked_for(&mem, 0), round);
        driver.chain(&[(DATA, 2000, true)]);
        let put = mmio.exchange(&mem, |t| t.incoming.put(Header::default(), &[4; 60]));
        assert_eq!((put, driver.used().is_some()), (Some(true), true));
    }
}

/// A guest's own input, looped back by a serial line, filled memory elsewhere.
#[test]
fn what_is_looped_back_by_a_serial_line_is_bounded() {
    let mut port = SerialPort::new(io::sink());
    port.write(4, &[0x10]);
    for _ in 0..10_000 {
        port.write(0, &[7; 64]);
    }
    assert!(port.state().in_buffer.len() <= 64);
}

/// A request that comes back after a reset would write into memory that the next driver uses for something else.
#[test]
fn what_was_in_hand_at_a_reset_is_forgotten() {
    let (mut mmio, mem) = up(disk(100), false);
    let mut in_hand = VecDeque::new();
    for kind in [0u32, 1, 4] {
        mem.write_obj(kind, GuestAddress(DATA)).unwrap();
        let mut driver = Driver::new(&mem, 0);
        driver.set_avail_index(0);
        bring_up(&mut mmio, &mem, false);
        mem.write_obj(0u16, GuestAddress(base(0) + 0x8002)).unwrap();
        let data = (DATA + 0x1000, 512, kind == 0);
        match kind {
            4 => driver.chain(&[(DATA, 16, false), (DATA + 0x100, 1, true)]),
            _ => driver.chain(&[(DATA, 16, false), data, (DATA + 0x100, 1, true)]),
        };
        in_hand.extend(mmio.next_request(&mem));
    }
    assert_eq!(in_hand.len(), 3);
    set(&mut mmio, &mem, 0x70, 0);
    bring_up(&mut mmio, &mem, false);
    mem.write_obj(0u16, GuestAddress(base(0) + 0x8002)).unwrap();
    mem.write_obj(0x77u8, GuestAddress(DATA + 0x100)).unwrap();
    for request in in_hand {
        mmio.complete(&mem, request, Outcome::Done);
    }
    let seen: (u8, u16) = (
        mem.read_obj(GuestAddress(DATA + 0x100)).unwrap(),
        mem.read_obj(GuestAddress(base(0) + 0x8002)).unwrap(),
    );
    assert_eq!(seen, (0x77, 0));
}

/// Lengths that add up to more than 32 bits hold wrapped around elsewhere. No chain may have so many bytes (specification 2.7.5).
#[test]
fn a_chain_longer_than_any_may_be_is_refused() {
    const GIB: u64 = 1 << 30;
    let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), GIB as usize)]).unwrap();
    for (count, taken) in [(3, true), (4, false)] {
        let mut mmio = Mmio::new(disk(64 * GIB / SECTOR));
        bring_up(&mut mmio, &mem, false);
        let mut driver = Driver::new(&mem, 0);
        driver.set_avail_index(0);
        let mut chain = vec![(DATA, 16, false)];
        chain.extend(vec![(0, GIB as u32, true); count]);
        chain.push((DATA + 0x100, 1, true));
        driver.chain(&chain);
        assert_eq!(mmio.next_request(&mem).is_some(), taken);
        assert_eq!(mmio.live(), taken);
    }
}

/// A driver that offers the same buffers again and again, without waiting for them, gets no memory of the host for it.
#[test]
fn buffers_that_are_offered_twice_put_a_card_out_of_service() {
    /// VIRTIO_NET_F_MRG_RXBUF: buffers are gathered until they hold a frame.
    const MERGEABLE: u64 = 1 << 15;
    let (mut mmio, mem) = (Mmio::new(card()), memory());
    bring_up_with(&mut mmio, &mem, MERGEABLE, false);
    let mut driver = Driver::new(&mem, 0);
    driver.chain(&[(DATA, 12, true)]);
    for _ in 0..1000 {
        driver.offer(0);
        mmio.exchange(&mem, |t| t.incoming.ready());
    }
    assert!(!mmio.live());
}

/// A balloon's list of a billion pages kept the host busy for hours, and nothing could end it.
#[test]
fn a_list_of_more_pages_than_drivers_send_is_refused() {
    struct Nobody;
    impl balloon::Host for Nobody {
        fn take(&mut self, _: &GuestMemoryMmap, _: GuestAddress, _: u64) {}
    }
    for (len, taken) in [(4096, true), (4100, false), (1 << 18, false)] {
        let (mut mmio, mem) = up(Balloon::new(Nobody), false);
        let mut driver = Driver::new(&mem, 0);
        driver.chain(&[(DATA, len, false)]);
        assert!(!mmio.serve(&mem));
        assert_eq!((mmio.live(), driver.used().is_some()), (taken, taken));
    }
}
