//! virtio-balloon: pages given up and taken back, statistics, free pages; one piece of work is never much for the host.
#![no_main]

use std::cell::Cell;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use unik_devices::balloon::{Balloon, Host};
use unik_devices::virtio::hostile::{Hostile, STEP};
use unik_vmm_fuzz::bounded;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Counts what it is asked to take in a whole script.
struct Taker(Rc<Cell<usize>>);

/// For one piece of work: two queues, 64 chains of each, as many pages as a chain may name.
const MOST: usize = 2 * 64 * 1024;

impl Host for Taker {
    fn take(&mut self, _: &GuestMemoryMmap, _: GuestAddress, _: u64) {
        self.0.set(self.0.get() + 1);
    }
}

fuzz_target!(|script: &[u8]| {
    let taken = Rc::new(Cell::new(0));
    let mut driver = Hostile::new(Balloon::new(Taker(taken.clone())));
    let steps = script.len() / STEP;
    bounded(256 << 10, || {
        driver.play(script, |mmio, mem, what| match what[0] % 4 {
            0 => mmio.set_target(u64::from(what[1]) << (what[2] % 48)),
            1 => {
                let _ = mmio.ask_statistics(mem);
            }
            _ => {
                let _ = mmio.serve(mem);
            }
        });
        assert!(taken.get() <= steps * MOST);
    });
});
