//! virtio-blk: requests are handed out, lie in memory and on the disk, and come back in any order, also after a reset.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_devices::block::{Block, Geometry, Operation, Outcome, Request, SECTOR};
use unik_devices::virtio::hostile::Hostile;
use unik_vmm_fuzz::bounded;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

const LEN: u64 = 1 << 36;

fuzz_target!(|script: &[u8]| {
    let read_only = script.first().is_some_and(|b| b & 0x80 != 0);
    let geometry = Geometry {
        len: LEN,
        block: 4096,
        read_only,
        serial: *b"0123456789abcdefghij",
    };
    let mut driver = Hostile::new(Block::new(geometry));
    let mut in_hand = Vec::new();
    bounded(256 << 10, || {
        driver.play(script, |mmio, mem, what| {
            for _ in 0..what[0] % 4 {
                let Some(request) = mmio.next_request(mem) else {
                    break;
                };
                check(&request, mem, read_only);
                in_hand.push(request);
            }
            let outcome =
                [Outcome::Done, Outcome::Failed, Outcome::Unsupported][usize::from(what[1] % 3)];
            while in_hand.len() > usize::from(what[2] % 8) {
                let request = in_hand.swap_remove(usize::from(what[3]) % in_hand.len());
                mmio.complete(mem, request, outcome);
            }
        });
    });
});

fn check(request: &Request, mem: &GuestMemoryMmap, read_only: bool) {
    let mut total = 0;
    for (addr, len) in request.buffers() {
        assert!(mem.check_range(addr, len));
        total += len as u64;
    }
    match &request.operation {
        Operation::Read(at) => assert!(at.is_multiple_of(SECTOR) && at + total <= LEN),
        Operation::Write(at) => {
            assert!(!read_only && at.is_multiple_of(SECTOR) && at + total <= LEN);
        }
        Operation::Flush => {}
        Operation::Discard(ranges) | Operation::WriteZeroes(ranges) => {
            assert!(!read_only && ranges.iter().all(|r| r.offset + r.len <= LEN));
        }
    }
}
