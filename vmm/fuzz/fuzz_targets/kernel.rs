//! Kernel files (bzImage, ELF vmlinux): recognised, loaded by each protocol, with an initial RAM disk behind them.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use unik_host::memory::GuestRam;
use unik_monitor::loader::linux::{Kernel, Loading, Protocol, load_initrd};
use unik_vmm_fuzz::{bounded, ram, with_file};

/// A kernel is read in pieces of a megabyte.
const MOST: usize = 4 << 20;

thread_local! {
    static RAM: RefCell<GuestRam> = RefCell::new(ram());
}

fuzz_target!(|bytes: &[u8]| {
    with_file(bytes, |path| {
        RAM.with_borrow_mut(|ram| {
            bounded(MOST, || {
                let Ok(kernel) = Kernel::open(path) else {
                    return;
                };
                for protocol in [Protocol::Linux64, Protocol::Pvh] {
                    if !kernel.offers(protocol) {
                        continue;
                    }
                    if let Ok(loaded) = kernel.load(ram, protocol, None).and_then(Loading::finish) {
                        let _ = load_initrd(path, &loaded, ram);
                    }
                }
            });
        });
    });
});
