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
