//! What a program learns of the terminal that it is used from.

use std::io::{IsTerminal, stderr, stdin, stdout};

use unik_host::terminal;

use crate::config::{Records, variable};

/// Variables that say what the terminal can do, and whether its user wants colours (no-color.org).
const VARIABLES: [&str; 3] = ["TERM", "COLORTERM", "NO_COLOR"];

/// Columns and rows of the first standard stream that is a terminal and tells its size.
pub fn size() -> Option<(u16, u16)> {
    terminal::size(&stdin())
        .or_else(|| terminal::size(&stdout()))
        .or_else(|| terminal::size(&stderr()))
}

/// Adds to `records` which standard streams are terminals and how large the terminal is; when output goes to one, also the [`VARIABLES`] of
/// this process, but for those that the image's `manifest` sets.
pub fn describe(records: &mut Records, manifest: &[u8]) {
    let are = [
        stdin().is_terminal(),
        stdout().is_terminal(),
        stderr().is_terminal(),
    ];
    let digits: String = ["0", "1", "2"]
        .iter()
        .zip(are)
        .filter_map(|(digit, is)| is.then_some(*digit))
        .collect();
    records.add("tty", digits);
    if let Some((columns, rows)) = size() {
        records.add("winsize", format!("{columns}x{rows}"));
    }
    if are[1] || are[2] {
        let set = VARIABLES.iter().filter(|name| !sets(manifest, name));
        for (name, value) in set.filter_map(|name| Some((name, std::env::var_os(name)?))) {
            records.add("env", variable(name.as_ref(), &value));
        }
    }
}

/// Whether a manifest sets a variable.
fn sets(manifest: &[u8], name: &str) -> bool {
    unik_abi::config::records(manifest)
        .filter(|(key, _)| *key == b"env")
        .filter_map(|(_, variable)| variable.strip_prefix(name.as_bytes()))
        .any(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn a_manifest_sets_what_it_names() {
        let manifest = b"arg=TERM=x\0env=TERM=dumb\0env=COLORTERM2=x\0";
        assert!(sets(manifest, "TERM"));
        assert!(!sets(manifest, "COLORTERM"));
        assert!(!sets(manifest, "NO_COLOR"));
        assert!(!sets(b"arg=a\0", "TERM"));
    }
}
