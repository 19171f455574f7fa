//! Devices behind ports and fixed addresses: serial line, debug console, exit port, power ports, I/O APIC.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::debug_port::DebugPort;
use unik_devices::exit_port;
use unik_devices::ioapic::{IoApic, PINS};
use unik_devices::serial::SerialPort;
use unik_monitor::linux::power::{End, Power};
use unik_vmm_fuzz::bounded;

fuzz_target!(|script: &[u8]| {
    let mut serial = SerialPort::new(std::io::sink());
    let mut debug = DebugPort::new(std::io::sink());
    let (mut chip, power) = (IoApic::default(), Power::default());
    bounded(64 << 10, || {
        for step in script.as_chunks::<8>().0 {
            let data = &step[4..4 + usize::from(step[1] % 5)];
            let port = u16::from_le_bytes([step[2], step[3]]);
            match step[0] % 8 {
                0 => serial.write(port, data),
                1 => serial.read(port, &mut [0; 4]),
                2 => debug.write(data),
                3 => {
                    let end = power.write(port, step[4]);
                    assert!(end.is_none_or(|end| End::from_u32(end as u32) == Some(end)));
                    let _ = power.read(port);
                }
                4 => {
                    chip.write(u64::from(step[2] % 0x20), data);
                    chip.read(u64::from(step[3]), &mut [0; 8]);
                }
                5 => {
                    chip.raise(step[2].into());
                }
                6 => {
                    chip.lower(step[2].into());
                    chip.end_of_interrupt(step[3]);
                }
                _ => drop(exit_port::value(data)),
            }
        }
        assert!(chip.level_routes().len() <= PINS);
        assert!(serial.state().in_buffer.len() <= 64);
    });
});
