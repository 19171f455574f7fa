//! The disk against drivers that keep the rules and drivers that do not.

use vm_memory::Bytes;

use super::*;
use crate::virtio::testing::{Driver, bring_up, get, memory, set};

const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x9000;
const DATA: u64 = 0x4_0000;

fn disk(read_only: bool) -> (Mmio<Block>, GuestMemoryMmap) {
    let geometry = Geometry {
        len: 100 * SECTOR,
        block: 4096,
        read_only,
        serial: *b"0123456789abcdefghij",
    };
    let (mut mmio, mem) = (Mmio::new(Block::new(geometry)), memory());
    bring_up(&mut mmio, &mem, false);
    (mmio, mem)
}

fn header(mem: &GuestMemoryMmap, kind: u32, sector: u64) {
    mem.write_obj(kind, GuestAddress(HEADER)).unwrap();
    mem.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    mem.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
}

fn status(mem: &GuestMemoryMmap) -> u8 {
    mem.read_obj(GuestAddress(STATUS)).unwrap()
}

#[test]
fn reads_are_handed_out_and_given_back_in_any_order() {
    let (mut mmio, mem) = disk(false);
    assert_eq!(
        (get(&mmio, 0x100), get(&mmio, 0x10c), get(&mmio, 0x118)),
        (100, SEGMENTS, 3)
    );
    let mut driver = Driver::new(&mem, 0);
    header(&mem, 0, 98);
    driver.chain(&[
        (HEADER, 16, false),
        (DATA, 512, true),
        (DATA + 0x1000, 512, true),
        (STATUS, 1, true),
    ]);
    driver.chain(&[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    let first = mmio.next_request(&mem).unwrap();
    let second = mmio.next_request(&mem).unwrap();
    assert!(mmio.next_request(&mem).is_none());
    assert_eq!(first.operation, Operation::Read(98 * SECTOR));
    assert_eq!(
        first.buffers().map(|(_, len)| len).collect::<Vec<_>>(),
        [512, 512, 0]
    );
    mmio.complete(&mem, second, Outcome::Done);
    assert_eq!(driver.used(), Some((4, 513)));
    mmio.complete(&mem, first, Outcome::Failed);
    assert_eq!((driver.used(), status(&mem)), (Some((0, 1)), 1));
    assert!(mmio.take_interrupt());
}

#[test]
fn what_lies_outside_the_disk_is_never_handed_out() {
    let (mut mmio, mem) = disk(false);
    for (kind, sector, len) in [
        (0, 100, 512),
        (0, 99, 1024),
        (1, u64::MAX, 512),
        (0, u64::MAX / 512 + 1, 512),
        (0, 1, 511),
    ] {
        let mut driver = Driver::new(&mem, 0);
        bring_up(&mut mmio, &mem, false);
        driver.set_avail_index(0);
        mem.write_obj(0u16, GuestAddress(0x1_8002)).unwrap();
        header(&mem, kind, sector);
        driver.chain(&[
            (HEADER, 16, false),
            (DATA, len, kind == 0),
            (STATUS, 1, true),
        ]);
        assert!(mmio.next_request(&mem).is_none(), "{kind} {sector} {len}");
        assert_eq!(status(&mem), Outcome::Failed as u8, "{kind} {sector} {len}");
    }
}

#[test]
fn a_read_only_disk_takes_no_write() {
    let (mut mmio, mem) = disk(true);
    let mut driver = Driver::new(&mem, 0);
    header(&mem, 1, 0);
    driver.chain(&[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
    assert!(mmio.next_request(&mem).is_none() && status(&mem) == 1);
    header(&mem, 11, 0);
    driver.chain(&[(HEADER, 16, false), (DATA, 16, false), (STATUS, 1, true)]);
    assert!(mmio.next_request(&mem).is_none() && status(&mem) == 2);
}

#[test]
fn serial_number_discard_and_zeroes() {
    let (mut mmio, mem) = disk(false);
    let mut driver = Driver::new(&mem, 0);
    header(&mem, 8, 0);
    driver.chain(&[(HEADER, 16, false), (DATA, 20, true), (STATUS, 1, true)]);
    assert!(mmio.next_request(&mem).is_none());
    let mut serial = [0; 20];
    mem.read_slice(&mut serial, GuestAddress(DATA)).unwrap();
    assert_eq!((&serial, status(&mem)), (b"0123456789abcdefghij", 0));
    header(&mem, 13, 0);
    for (at, value) in [(0, 90u64), (8, 10 | 1 << 32)] {
        mem.write_obj(value, GuestAddress(DATA + at)).unwrap();
    }
    driver.chain(&[(HEADER, 16, false), (DATA, 16, false), (STATUS, 1, true)]);
    let request = mmio.next_request(&mem).unwrap();
    let range = Range {
        offset: 90 * SECTOR,
        len: 10 * SECTOR,
        unmap: true,
    };
    assert_eq!(request.operation, Operation::WriteZeroes(vec![range]));
}

#[test]
fn a_request_from_before_a_reset_is_forgotten() {
    let (mut mmio, mem) = disk(false);
    header(&mem, 4, 0);
    Driver::new(&mem, 0).chain(&[(HEADER, 16, false), (STATUS, 1, true)]);
    let request = mmio.next_request(&mem).unwrap();
    set(&mut mmio, &mem, 0x70, 0);
    bring_up(&mut mmio, &mem, false);
    mmio.complete(&mem, request, Outcome::Done);
    assert_eq!(
        (
            status(&mem),
            mem.read_obj::<u16>(GuestAddress(0x1_8002)).unwrap()
        ),
        (0xff, 0)
    );
}

#[test]
fn chains_without_header_or_status_break_the_device() {
    for chain in [
        &[(HEADER, 15, false), (STATUS, 1, true)][..],
        &[(HEADER, 16, false)],
        &[(STATUS, 1, true)],
        &[(HEADER, 16, false), (STATUS, 0, true)],
    ] {
        let (mut mmio, mem) = disk(false);
        header(&mem, 4, 0);
        Driver::new(&mem, 0).chain(chain);
        assert!(
            mmio.next_request(&mem).is_none() && !mmio.live(),
            "{chain:?}"
        );
    }
}
