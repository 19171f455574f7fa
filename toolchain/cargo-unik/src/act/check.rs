//! `cargo unik check`: which system calls a program can reach, and what the library OS answers, from the one table.

use super::link::LinkError;
use crate::Error;
use crate::args::CheckArgs;
use rustc_demangle::demangle;
use std::collections::BTreeSet;
use std::fmt::Write;
use unik_abi::syscalls::{self, State};
use unik_image::calls::{Calls, calls};
use unik_image::program::Program;

/// Functions named for each call, at most.
const NAMES: usize = 3;

/// Prints to standard output.
pub fn check(args: &CheckArgs) -> Result<(), Error> {
    let path = &args.elf;
    let bytes = std::fs::read(path).map_err(|source| LinkError::Read {
        path: path.clone(),
        source,
    })?;
    let program = Program::read(&bytes).map_err(|source| LinkError::Link {
        path: path.clone(),
        source: source.into(),
    })?;
    print!("{}", words(&calls(&program), args.all));
    Ok(())
}

/// What the user has to know of a state, worst first; the rest is listed on demand.
const GROUPS: [(State, &str, bool); 5] = [
    (State::Absent, "not implemented: answers ENOSYS", true),
    (State::Refused, "refused: answers ENOSYS", true),
    (State::Partial, "partly supported", true),
    (
        State::Quiet,
        "not implemented, and callers do without",
        false,
    ),
    (State::Full, "supported", false),
];

fn words(calls: &Calls, all: bool) -> String {
    let mut out = String::new();
    for (state, title, shown) in GROUPS {
        let rows: Vec<_> = calls
            .known
            .iter()
            .map(|(&number, from)| (number, syscalls::find(number), from))
            .filter(|(_, row, _)| row.map_or(State::Absent, |r| r.state) == state)
            .collect();
        if rows.is_empty() {
            continue;
        }
        _ = writeln!(out, "{} {title}", rows.len());
        for (number, row, from) in rows.into_iter().filter(|_| shown || all) {
            let (name, note) = row.map_or(("?", "no such system call"), |r| (r.name, r.note));
            let note = if note.is_empty() {
                String::new()
            } else {
                format!("  {note}")
            };
            _ = writeln!(out, "  {name} ({number}){note}\n      in {}", names(from));
        }
    }
    if !calls.unknown.is_empty() {
        _ = writeln!(
            out,
            "{} with numbers that only a run shows (`cargo unik run --syscall-summary`)\n      in {}",
            calls.unknown.len(),
            names(&calls.unknown)
        );
    }
    out
}

/// The first few functions, as the source names them.
fn names(from: &BTreeSet<String>) -> String {
    let shown: BTreeSet<_> = from.iter().map(|n| format!("{:#}", demangle(n))).collect();
    let first: Vec<_> = shown.iter().take(NAMES).map(String::as_str).collect();
    match shown.len().saturating_sub(NAMES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_the_supported_are_counted() {
        let mut calls = Calls::default();
        for (number, from) in [(1, "write"), (57, "fork"), (1000, "odd"), (41, "socket")] {
            calls.known.insert(number, [from.to_owned()].into());
        }
        calls
            .unknown
            .insert("_ZN3std3sys4call17h0123456789abcdefE".into());
        let text = words(&calls, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1 not implemented: answers ENOSYS");
        assert_eq!(lines[1], "  ? (1000)  no such system call");
        assert_eq!(lines[3], "1 refused: answers ENOSYS");
        assert!(
            lines[4].starts_with("  fork (57)  one image"),
            "{}",
            lines[4]
        );
        assert!(text.contains("\n1 supported\n1 with numbers"), "{text}");
        assert!(text.ends_with("in std::sys::call\n"), "{text}");
        assert!(words(&calls, true).contains("  write (1)\n      in write\n"));
    }
}
