//! Rules for files that neither compiler nor clippy know.

use crate::sh;
use crate::tally::Tally;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file in lines. A longer one is a table, or wants to be two.
const LONGEST: usize = 600;

/// Tables: long files that are easy to read.
const TABLES: &[&str] = &["libos/abi/src/syscalls.rs"];

/// Words that have no place in the code. (Split, so that this file passes its own check.)
const WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];

/// Crates that may hold `unsafe`: each is named for it. Examples are other people's programs, as it were.
const UNSAFE: &[&str] = &["vmm/host", "libos/kernel", "libos/virtio", "examples"];

/// Checks every file that git knows or would add.
pub fn tidy() -> Result<Tally> {
    let mut tally = Tally::default();
    for path in files()? {
        let Ok(text) = std::fs::read_to_string(sh::root().join(&path)) else {
            continue;
        };
        let complaints = match path.extension().and_then(|e| e.to_str()) {
            Some("rs") => rust(&path, &text),
            Some("md") => markdown(&path, &text),
            _ => Vec::new(),
        };
        tally.complain(format!("tidy: {}", path.display()), complaints);
    }
    Ok(tally)
}

fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(sh::root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    Ok(sh::output(&mut git)?.lines().map(PathBuf::from).collect())
}

fn rust(path: &Path, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let first = text.lines().find(|l| !l.starts_with("#!"));
    if !first.is_some_and(|l| l.starts_with("//!")) {
        out.push("the first line must be `//!` and say what the file does".to_owned());
    }
    let (lines, table) = (
        code_lines(text),
        TABLES.iter().any(|t| path == Path::new(t)),
    );
    if lines > LONGEST && !table {
        out.push(format!(
            "{lines} lines are more than {LONGEST}; make it two files"
        ));
    }
    for (n, line) in text.lines().enumerate() {
        out.extend(line_complaint(path, line).map(|c| format!("line {}: {c}", n + 1)));
    }
    out.extend(unsafe_complaint(path, text));
    out
}

/// Lines before the tests.
fn code_lines(text: &str) -> usize {
    text.lines()
        .take_while(|l| !l.starts_with("#[cfg(test)]"))
        .count()
}

fn line_complaint(path: &Path, line: &str) -> Option<String> {
    if let Some(word) = WORDS.iter().find(|w| line.contains(*w)) {
        return Some(format!(
            "`{word}` has no place here; do it, or say in docs/ what is missing"
        ));
    }
    let free = ["examples", "libos/kernel"]
        .iter()
        .any(|dir| path.starts_with(dir));
    if line.contains(concat!("process::", "exit(")) && !free {
        return Some("processes end by returning from main".to_owned());
    }
    let allow = [concat!("#[", "allow("), concat!("#![", "allow(")];
    // An attribute over several lines has its reason on one of the next: rustfmt breaks only after the parenthesis.
    let text = line.trim();
    let bare = allow
        .iter()
        .any(|a| text.starts_with(a) && text.len() > a.len())
        && !text.contains("reason =");
    bare.then(|| "use `expect` with a reason, or at least `allow` with one".to_owned())
}

/// A crate root outside of the list must forbid unsafe code.
fn unsafe_complaint(path: &Path, text: &str) -> Option<String> {
    let free = UNSAFE.iter().any(|dir| path.starts_with(dir));
    let root = path.ends_with("src/lib.rs");
    let forbids =
        text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]");
    (root && !free && !forbids && !path.starts_with("templates/hello"))
        .then(|| "a crate root must say #![forbid(unsafe_code)]".to_owned())
}

/// Relative links must lead somewhere.
fn markdown(path: &Path, text: &str) -> Vec<String> {
    let folder = sh::root().join(path.parent().unwrap_or(Path::new("")));
    let broken = |target: &&str| {
        let file = target.split('#').next().unwrap_or_default();
        !file.is_empty()
            && !target.contains("://")
            && !target.starts_with("mailto:")
            && !folder.join(file).exists()
    };
    links(text)
        .into_iter()
        .filter(broken)
        .map(|target| format!("the link to `{target}` leads nowhere"))
        .collect()
}

/// Targets of `[text](target)` outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut code = false;
    let mut out = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if !code && !line.starts_with("    ") {
            out.extend(
                line.split("](")
                    .skip(1)
                    .filter_map(|rest| rest.split(')').next()),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "a [b](c.md) and [d](e.md#f)\n```\n[x](y)\n```\n    [x](z)\n";
        assert_eq!(links(text), ["c.md", "e.md#f"]);
    }

    #[test]
    fn rules_bite() {
        let path = Path::new("toolchain/image/src/x.rs");
        assert_eq!(rust(path, "//! Fine.\nfn f() {}\n"), Vec::<String>::new());
        assert_eq!(rust(path, "fn f() {}\n").len(), 1);
        assert_eq!(
            rust(
                path,
                concat!("//! x\n// TO", "DO\n#[", "allow(dead_code)]\n")
            )
            .len(),
            2
        );
        assert_eq!(
            rust(Path::new("toolchain/image/src/lib.rs"), "//! x\n").len(),
            1
        );
        assert_eq!(rust(Path::new("vmm/host/src/lib.rs"), "//! x\n").len(), 0);
    }
}
