//! virtio-console: output collected, input given and ended, whatever the driver does in between.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::console::{BATCH, Console};
use unik_devices::virtio::hostile::Hostile;
use unik_vmm_fuzz::bounded;

fuzz_target!(|script: &[u8]| {
    let mut driver = Hostile::new(Console::new(80, 25));
    let mut out = Vec::new();
    bounded(4 * BATCH, || {
        driver.play(script, |mmio, mem, what| match what[0] % 6 {
            0 => {
                let input = [what[1]; 300];
                assert!(mmio.give_input(mem, &input) <= input.len());
            }
            1 => {
                let _ = mmio.wants_input(mem);
            }
            2 => {
                let _ = mmio.end_input(mem);
            }
            3 => {
                let _ = mmio.listen_for_input(mem);
            }
            _ => {
                out.clear();
                mmio.collect_output(mem, &mut out);
                assert!(out.len() <= BATCH);
            }
        });
    });
});
