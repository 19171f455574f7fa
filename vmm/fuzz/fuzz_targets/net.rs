//! virtio-net: frames both ways, copied and in place, with all offloads and without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::net::{ETHERNET, Header, LONGEST, Net, Offloads, Settings, Traffic};
use unik_devices::virtio::hostile::Hostile;
use unik_vmm_fuzz::bounded;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

/// A frame, and what the chains of a full queue of the driver (eight entries) hold of descriptors.
const MOST: usize = 512 << 10;

fuzz_target!(|script: &[u8]| {
    let all = script.first().is_some_and(|b| b & 0x80 != 0);
    let offloads = Offloads {
        checksum: all,
        tso4: all,
        tso6: all,
    };
    let settings = Settings {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        from_driver: offloads,
        to_driver: offloads,
    };
    let mut driver = Hostile::new(Net::new(settings));
    bounded(MOST, || {
        driver.play(script, |mmio, mem, what| {
            mmio.exchange(mem, |traffic| exchange(traffic, mem, what));
        });
        let counts = driver.mmio.device().counts();
        assert!(counts.interrupts <= script.len() as u64);
    });
});

fn exchange(traffic: &mut Traffic<'_>, mem: &GuestMemoryMmap, what: &[u8]) {
    let Traffic {
        outgoing, incoming, ..
    } = traffic;
    let len = ETHERNET + 16 * usize::from(what[1]);
    match what[0] % 6 {
        0 | 1 => send(traffic, mem),
        2 => {
            let mut frame = vec![what[2]; len];
            let segment = (what[3] & 1 != 0).then_some(1460);
            let header = Header::unchecked(&mut frame, segment);
            incoming.put(header, &frame);
        }
        3 => {
            let mut buffers = Vec::new();
            if incoming.buffers(&mut buffers) {
                let room: usize = buffers.iter().map(|s| s.len() as usize).sum();
                for segment in &buffers {
                    assert!(mem.check_range(segment.addr(), segment.len() as usize));
                }
                incoming.filled(Header::default(), len.min(room));
            }
        }
        4 => {
            incoming.put(Header::default(), &[what[2]; LONGEST][..len.max(60)]);
            incoming.quiet();
            outgoing.quiet();
        }
        _ => {
            let _ = (incoming.ready(), incoming.listen(), outgoing.listen());
        }
    }
}

fn send(traffic: &mut Traffic<'_>, mem: &GuestMemoryMmap) {
    let mut bytes = Vec::new();
    for _ in 0..4 {
        let Some(frame) = traffic.outgoing.take() else {
            break;
        };
        assert!((ETHERNET..=LONGEST).contains(&frame.len));
        for segment in &frame.segments {
            assert!(mem.check_range(segment.addr(), segment.len() as usize));
        }
        bytes.clear();
        traffic.outgoing.copy(&frame, &mut bytes);
        assert_eq!(bytes.len(), frame.len);
        traffic.outgoing.done(&frame);
    }
}
