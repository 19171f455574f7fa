//! Entropy requests of every size.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::virtio::testing::{Driver, bring_up, memory};

struct Sevens(bool);

impl Entropy for Sevens {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill(7);
        self.0
    }
}

#[test]
fn requests_are_filled_up_to_a_limit() {
    let (mut mmio, mem) = (Mmio::new(Rng::new(Sevens(true))), memory());
    bring_up(&mut mmio, &mem, false);
    let mut driver = Driver::new(&mem, 0);
    driver.chain(&[(0x4_0000, 10, true), (0x5_0000, 1 << 16, true)]);
    driver.chain(&[(0x6_0000, 3, true)]);
    assert!(!mmio.serve(&mem) && mmio.take_interrupt());
    assert_eq!(
        (driver.used(), driver.used()),
        (Some((0, MOST as u32)), Some((2, 3)))
    );
    let mut bytes = vec![0; MOST];
    mem.read_slice(&mut bytes, GuestAddress(0x5_0000)).unwrap();
    assert!(
        bytes[..MOST - 10].iter().all(|&b| b == 7) && bytes[MOST - 10..].iter().all(|&b| b == 0)
    );
}

#[test]
fn a_source_that_fails_gives_nothing() {
    let (mut mmio, mem) = (Mmio::new(Rng::new(Sevens(false))), memory());
    bring_up(&mut mmio, &mem, false);
    let mut driver = Driver::new(&mem, 0);
    driver.chain(&[(0x4_0000, 10, true)]);
    mmio.serve(&mem);
    assert_eq!(driver.used(), Some((0, 0)));
}

#[test]
fn a_request_that_cannot_be_written_breaks_the_device() {
    let (mut mmio, mem) = (Mmio::new(Rng::new(Sevens(true))), memory());
    bring_up(&mut mmio, &mem, false);
    Driver::new(&mem, 0).chain(&[(1 << 40, 10, true)]);
    assert!(!mmio.serve(&mem) && !mmio.live());
}

#[test]
fn with_event_indices_the_driver_is_asked_to_ring_again() {
    let (mut mmio, mem) = (Mmio::new(Rng::new(Sevens(true))), memory());
    bring_up(&mut mmio, &mem, true);
    let mut driver = Driver::new(&mem, 0);
    let avail_event = || {
        mem.read_obj::<u16>(GuestAddress(0x1_8000 + 4 + 8 * 8))
            .unwrap()
    };
    for served in 1..=3 {
        driver.chain(&[(0x4_0000, 10, true)]);
        while mmio.serve(&mem) {}
        assert_eq!(avail_event(), served);
    }
}
