//! The host's time zone as a POSIX TZ string, which a guest without a time zone database understands.
//!
//! Every zone file ends with one (RFC 9636, section 3.3): a rule for all times to come, such as `CET-1CEST,M3.5.0,M10.5.0/3`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Where zone files are.
const ZONES: &str = "/usr/share/zoneinfo";

/// Longest rule that is believed.
const LIMIT: usize = 128;

/// The zone of this process: from the variable `TZ`, else from `/etc/localtime`. `None`: not known, so UTC.
pub fn host() -> Option<String> {
    match std::env::var_os("TZ") {
        Some(value) => from_variable(&value),
        None => from_file(Path::new("/etc/localtime")),
    }
}

/// What a value of `TZ` means (tzset(3)): a zone's name, or a rule as it is.
fn from_variable(value: &OsStr) -> Option<String> {
    let text = value.to_str()?;
    let name = text.strip_prefix(':').unwrap_or(text);
    if name.is_empty() {
        return Some("UTC0".to_owned());
    }
    from_file(&Path::new(ZONES).join(name)).or_else(|| Some(name.to_owned()).filter(|n| is_rule(n)))
}

/// The rule at the end of a zone file.
fn from_file(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    let len = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(len.saturating_sub(LIMIT as u64 + 2)))
        .ok()?;
    let mut end = Vec::new();
    file.take(LIMIT as u64 + 2).read_to_end(&mut end).ok()?;
    let rule = end.strip_suffix(b"\n")?.rsplit(|&b| b == b'\n').next()?;
    let rule = String::from_utf8(rule.to_vec()).ok()?;
    (magic == *b"TZif" && is_rule(&rule)).then_some(rule)
}

/// Looks like a rule: a name of three letters or in angle brackets, then an offset.
fn is_rule(text: &str) -> bool {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>').map(|(_, rest)| rest),
        None => text
            .find(|c: char| !c.is_ascii_alphabetic())
            .filter(|&n| n >= 3)
            .map(|n| &text[n..]),
    };
    let offset =
        rest.is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-'));
    offset && text.len() <= LIMIT && text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        assert_eq!(from_variable(OsStr::new("")).as_deref(), Some("UTC0"));
        for rule in ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0530>-5:30"] {
            assert_eq!(from_variable(OsStr::new(rule)).as_deref(), Some(rule));
        }
        for nonsense in ["no/such/zone", "X", "<", "UTC", "EST5 \x1b"] {
            let found = from_variable(OsStr::new(nonsense));
            assert!(
                found.as_deref().is_none_or(is_rule),
                "{nonsense}: {found:?}"
            );
        }
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zone");
        for (content, wanted) in [
            (
                &b"TZif2....binary\n\nCET-1CEST,M3.5.0,M10.5.0/3\n"[..],
                Some("CET-1CEST,M3.5.0,M10.5.0/3"),
            ),
            (b"TZif2\n\n", None),
            (b"TZif", None),
            (b"", None),
            (b"#!/bin/sh\nUTC0\n", None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(from_file(&path).as_deref(), wanted, "{content:?}");
        }
        assert_eq!(from_file(dir.path()), None);
    }
}
