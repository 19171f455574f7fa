//! The run configuration: records of `key=value`, each ended by NUL ([`unik_abi::config`]), written and looked up.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A configuration under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(Vec<u8>);

impl Records {
    /// Adds a record. A NUL in the value would end it early: such a value is refused (`false`); no command line can hold one.
    pub fn add(&mut self, key: &str, value: impl AsRef<OsStr>) -> bool {
        let value = value.as_ref().as_bytes();
        if value.contains(&0) {
            return false;
        }
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(0);
        true
    }

    /// The bytes to hand over.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An environment variable as programs find it: `NAME=VALUE`.
pub fn variable(name: &OsStr, value: &OsStr) -> OsString {
    let mut variable = name.to_owned();
    variable.push("=");
    variable.push(value);
    variable
}

/// The last value of `key` in `bytes`.
pub fn last<'a>(bytes: &'a [u8], key: &str) -> Option<&'a OsStr> {
    unik_abi::config::records(bytes)
        .filter(|(name, _)| *name == key.as_bytes())
        .last()
        .map(|(_, value)| OsStr::from_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_written() {
        let mut records = Records::default();
        assert!(records.add("arg", "hello"));
        assert!(records.add("env", "A=b=c"));
        assert!(records.add("env", ""));
        assert!(!records.add("arg", "a\0b"));
        let all: Vec<_> = unik_abi::config::records(records.as_bytes()).collect();
        assert_eq!(
            all,
            [
                (&b"arg"[..], &b"hello"[..]),
                (b"env", b"A=b=c"),
                (b"env", b"")
            ]
        );
    }

    #[test]
    fn the_last_value_wins() {
        assert_eq!(last(b"cpus=1\0cpus=2\0", "cpus"), Some(OsStr::new("2")));
        assert_eq!(last(b"cpus=1\0", "memory"), None);
    }
}
