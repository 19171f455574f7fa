//! The virtio-mmio register window and its queues, under a device that takes every chain and gives it back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::virtio::Device;
use unik_devices::virtio::hostile::Hostile;
use unik_vmm_fuzz::bounded;
use vm_memory::GuestMemoryBackend;

/// A device with three queues of different sizes and a configuration space.
struct Plain;

impl Device for Plain {
    const KIND: u32 = 42;
    const FEATURES: u64 = 1 << 3;
    const QUEUES: &'static [u16] = &[8, 64, 256];

    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }

    fn reset(&mut self) {}
}

fuzz_target!(|script: &[u8]| {
    let mut driver = Hostile::new(Plain);
    bounded(128 << 10, || {
        driver.play(script, |mmio, mem, what| {
            mmio.read(u64::from(what[0]), &mut [0; 8]);
            mmio.work(|_, rings| {
                for ring in rings {
                    ring.quiet(mem)?;
                    for _ in 0..=what[1] % 4 {
                        let Some(chain) = ring.pop(mem)? else { break };
                        for segment in chain.readable.iter().chain(&chain.writable) {
                            assert!(mem.check_range(segment.addr(), segment.len() as usize));
                        }
                        ring.push(mem, chain.head, 0)?;
                    }
                    ring.wants_interrupt(mem)?;
                    ring.listen(mem)?;
                }
                Ok(((), true))
            });
        });
    });
});
