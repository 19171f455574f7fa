//! What the user sees: status lines in cargo's look, warnings, errors, and a bar for what takes longer than a second.
//!
//! Everything here goes to standard error, so that standard output belongs to the program. Colours follow
//! `--color`, `CARGO_TERM_COLOR`, `NO_COLOR` and whether standard error is a terminal.

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const FAIL: Style = AnsiColor::Red.on_default().bold();

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// Status lines too.
    Normal,
    /// Command lines of children too.
    Verbose,
}

/// Writes to standard error in cargo's look.
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    verbosity: Verbosity,
}

impl Shell {
    /// A shell that says as much as `verbosity` allows. `color` is `--color`'s value, else `CARGO_TERM_COLOR` decides.
    pub fn new(verbosity: Verbosity, color: Option<&str>) -> Self {
        let env = std::env::var("CARGO_TERM_COLOR").ok();
        match color.or(env.as_deref()) {
            Some("always") => anstream::ColorChoice::Always.write_global(),
            Some("never") => anstream::ColorChoice::Never.write_global(),
            _ => {}
        }
        Self { verbosity }
    }

    /// A right-aligned green word and a text, such as `     Linking hello (target/unik/debug/hello.unik)`.
    pub fn status(&self, word: &str, text: impl Display) {
        if self.verbosity >= Verbosity::Normal {
            line(format_args!("{GOOD}{word:>12}{GOOD:#} {text}"));
        }
    }

    /// The same in cyan, for what is not progress.
    pub fn note(&self, text: impl Display) {
        if self.verbosity >= Verbosity::Normal {
            line(format_args!("{NOTE}note{NOTE:#}: {text}"));
        }
    }

    /// A status line shown with `-v` only.
    pub fn verbose(&self, word: &str, text: impl Display) {
        if self.verbosity >= Verbosity::Verbose {
            self.status(word, text);
        }
    }

    /// `warning: text`.
    pub fn warn(&self, text: impl Display) {
        if self.verbosity >= Verbosity::Normal {
            line(format_args!("{WARN}warning{WARN:#}: {text}"));
        }
    }

    /// `error: text`; shown even when quiet.
    pub fn error(&self, text: impl Display) {
        line(format_args!("{FAIL}error{FAIL:#}: {text}"));
    }

    /// A bar over `total` steps that shows itself once a second has passed, on a terminal only.
    pub fn bar(&self, word: &'static str, total: u64) -> Bar {
        Bar {
            word,
            total,
            started: Instant::now(),
            bar: None,
            hidden: self.verbosity == Verbosity::Quiet,
            done: 0,
        }
    }
}

/// Ignores a failing standard error: there is nobody left to tell.
fn line(text: std::fmt::Arguments<'_>) {
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{text}");
}

/// A progress bar that appears after a second.
#[derive(Debug)]
pub struct Bar {
    word: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    hidden: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Counts one step and names what is being worked on.
    pub fn step(&mut self, what: impl Display) {
        self.done += 1;
        if self.bar.is_none() && !self.hidden && self.started.elapsed() > Duration::from_secs(1) {
            self.bar = Some(new_bar(self.word, self.total));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.set_message(what.to_string());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(word: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{prefix:>12.cyan.bold} [{bar:25}] {pos}/{len}: {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(word);
    bar
}
