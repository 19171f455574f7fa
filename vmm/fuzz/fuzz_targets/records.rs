//! Run configuration records: what an image's manifest or a monitor hands over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unik_monitor::cli::parse_size;
use unik_monitor::config::{Records, last};
use unik_vmm_fuzz::bounded;

fuzz_target!(|bytes: &[u8]| {
    bounded(512 << 10, || {
        let mut copy = Records::default();
        for (key, value) in unik_abi::config::records(bytes) {
            assert!(!key.contains(&0) && !key.contains(&b'=') && !value.contains(&0));
            let Ok(key) = std::str::from_utf8(key) else {
                continue;
            };
            assert!(last(bytes, key).is_some());
            if let Ok(value) = std::str::from_utf8(value) {
                assert!(copy.add(key, value));
                let _ = parse_size(value);
            }
        }
        let again: Vec<_> = unik_abi::config::records(copy.as_bytes()).collect();
        let wanted: Vec<_> = unik_abi::config::records(bytes)
            .filter(|(k, v)| std::str::from_utf8(k).is_ok() && std::str::from_utf8(v).is_ok())
            .collect();
        assert_eq!(again, wanted);
    });
});
