//! What there is to say about each system call: the one table of `unik_abi::syscalls` as lines of text.
//!
//! As rows with names and kinds of the arguments, most of them pointers, it took 60 KB of every image.

macro_rules! lines {
    ($($number:literal $name:ident($($arg:ident: $kind:tt),*) $state:ident $note:literal;)*) => {
        concat!($($number, " ", stringify!($name), " ", stringify!($state), " ", $note, "\n"),*)
    };
}

const LINES: &str = unik_abi::for_each_syscall!(lines);

/// One call.
#[derive(Clone, Copy)]
pub struct Row {
    /// Linux's name.
    pub name: &'static str,
    /// Whether callers are known to do without it.
    pub quiet: bool,
    /// What is missing, or why.
    pub note: &'static str,
}

/// The row of a number, `None` where Linux has no such call.
pub fn find(number: u64) -> Option<Row> {
    LINES.lines().find_map(|line| {
        let (own, rest) = line.split_once(' ')?;
        if own.parse() != Ok(number) {
            return None;
        }
        let (name, rest) = rest.split_once(' ')?;
        let (state, note) = rest.split_once(' ')?;
        Some(Row {
            name,
            quiet: state == "quiet",
            note,
        })
    })
}
