//! Image files: header and notes, the plan that follows from the manifest, loading, and the symbols that a crash report looks up.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use unik_host::memory::GuestRam;
use unik_monitor::cli::RunArgs;
use unik_monitor::loader::Image;
use unik_monitor::plan::Plan;
use unik_monitor::symbols;
use unik_vmm_fuzz::{bounded, ram, with_file};

/// Notes may have a megabyte, a foreign kernel is copied in pieces of one.
const MOST: usize = 8 << 20;

thread_local! {
    static RAM: RefCell<GuestRam> = RefCell::new(ram());
}

fuzz_target!(|bytes: &[u8]| {
    with_file(bytes, |path| {
        RAM.with_borrow_mut(|ram| {
            bounded(MOST, || {
                let Ok(image) = Image::open(path) else {
                    return;
                };
                let _ = Plan::new(&RunArgs::default(), &image);
                let _ = image.load(ram);
                let _ = image.warm_up(&ram.warmer());
                for address in [0, u64::from(image.entry), 0x40_1000, u64::MAX] {
                    let _ = symbols::name(&image.file, address, 0);
                    let _ = symbols::name(&image.file, address, 0x1000);
                }
            });
        });
    });
});
