//! virtio-rng, with a source that sometimes has nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::rng::{Entropy, Rng};
use unik_devices::virtio::hostile::Hostile;
use unik_vmm_fuzz::bounded;

struct Source(u8);

impl Entropy for Source {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        self.0 = self.0.wrapping_add(1);
        bytes.fill(self.0);
        !self.0.is_multiple_of(5)
    }
}

fuzz_target!(|script: &[u8]| {
    let mut driver = Hostile::new(Rng::new(Source(0)));
    bounded(64 << 10, || {
        driver.play(script, |mmio, mem, what| {
            for _ in 0..what[0] % 4 {
                if !mmio.serve(mem) {
                    break;
                }
            }
        });
    });
});
