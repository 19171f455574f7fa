//! The control page that a guest leaves behind, and the report that is made of it and of the guest's exit value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_abi::layout::CONTROL_PAGE_PADDR;
use unik_monitor::control::LastWords;
use unik_monitor::machine::vcpus::Ending;
use unik_monitor::report::Context;
use unik_vmm_fuzz::bounded;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

thread_local! {
    static MEM: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).expect("there is memory");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((value, page)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let page = &page[..page.len().min(4096)];
    MEM.with(|mem| {
        bounded(256 << 10, || {
            let written = mem.write_slice(page, GuestAddress(CONTROL_PAGE_PADDR));
            assert!(written.is_ok());
            let words = LastWords::read(mem);
            let report = Context {
                name: "guest",
                words: &words,
                symbol: &|_| None,
                quiet: value[3] & 1 != 0,
            }
            .report(&Ending::Exit(u32::from_le_bytes(*value)));
            let printable = |c: char| !c.is_control() || c == '\n' || c == '\t';
            assert!(report.text.chars().all(printable), "{:?}", report.text);
        });
    });
});
