//! Counting what passed, failed and was skipped, and the closing lines that say it.

use crate::sh::FAIL;
use std::fmt::{self, Display};

/// What a check says: nothing, or what is wrong.
pub type Verdict = Result<(), String>;

/// What became of checks or tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were as they should be.
    pub passed: usize,
    /// Which were not, and why: a line each.
    pub failed: Vec<String>,
    /// How many were not tried here.
    pub skipped: usize,
}

impl Tally {
    /// One check that passed.
    pub fn one() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    /// Counts one check.
    pub fn count(&mut self, what: impl Display, verdict: Result<(), impl Display>) {
        match verdict {
            Ok(()) => self.passed += 1,
            Err(why) => {
                let line = format!("{what}: {why}");
                let first = line.lines().next().unwrap_or_default();
                self.failed.push(first.to_owned());
            }
        }
    }

    /// Counts a check that could not be made: a failure.
    pub fn error(&mut self, what: impl Display, error: &anyhow::Error) {
        anstream::eprintln!("{FAIL}error{FAIL:#}: {what}: {error:#}");
        self.count(what, Err(format!("{error:#}")));
    }

    /// Counts a check that may not have been made.
    pub fn judge(&mut self, what: impl Display, outcome: anyhow::Result<Verdict>) {
        match outcome {
            Ok(verdict) => self.count(what, verdict),
            Err(error) => self.error(what, &error),
        }
    }

    /// Counts one check, which fails with everything there is to complain of.
    pub fn complain(&mut self, what: impl Display, complaints: impl IntoIterator<Item = String>) {
        let all: Vec<_> = complaints.into_iter().collect();
        all.iter().for_each(|one| eprintln!("{what}: {one}"));
        match all.is_empty() {
            true => self.passed += 1,
            false => self.failed.push(format!("{what}: {}", all.join("; "))),
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped += other.skipped;
    }

    /// Adds another's counts, or one failure where there are none.
    pub fn add_part(&mut self, what: impl Display, counts: anyhow::Result<Self>) {
        match counts {
            Ok(counts) => self.add(counts),
            Err(error) => self.error(what, &error),
        }
    }

    /// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; ...` that test harnesses print. `what` is tested, and
    /// has failed in any case when it has not `ended_well`.
    pub fn of_test_output(what: &str, text: &str, ended_well: bool) -> Self {
        let (mut tally, mut failed) = (Self::default(), 0);
        for line in text
            .lines()
            .filter_map(|l| l.trim_start().strip_prefix("test result: "))
        {
            let number = |what: &str| -> usize {
                let words: Vec<_> = line.split([' ', ';']).collect();
                words
                    .windows(2)
                    .find(|w| w[1] == what)
                    .and_then(|w| w[0].parse().ok())
                    .unwrap_or(0)
            };
            tally.passed += number("passed");
            tally.skipped += number("ignored");
            failed += number("failed");
        }
        let named = text.lines().filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["test", name, "...", "FAILED"] => Some(format!("{what}: {name}")),
                _ => None,
            }
        });
        tally.failed.extend(named);
        let nameless = match failed {
            0 => usize::from(!ended_well),
            n => n,
        };
        while tally.failed.len() < nameless {
            tally.failed.push(what.to_owned());
        }
        tally
    }

    /// Says once more what failed: in a long output it stands far above.
    pub fn tell_failures(&self) {
        for line in &self.failed {
            anstream::println!("{FAIL}FAIL{FAIL:#} {line}");
        }
    }

    /// An error when anything failed.
    pub fn verdict(self) -> anyhow::Result<()> {
        self.tell_failures();
        println!("{self}");
        anyhow::ensure!(
            self.failed.is_empty(),
            "{} of {} failed",
            self.failed.len(),
            self.passed + self.failed.len()
        );
        Ok(())
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())?;
        match self.skipped {
            0 => Ok(()),
            n => write!(f, ", {n} skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harness_lines_add_up() {
        let text = "test a::b ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test c::d ... FAILED\ntest result: FAILED. 2 passed; 2 failed; 0 ignored\n";
        let tally = Tally::of_test_output("x", text, false);
        assert_eq!(
            tally,
            Tally {
                passed: 5,
                failed: vec!["x: c::d".to_owned(), "x".to_owned()],
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "5 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_harness_that_ends_badly_has_failed() {
        let all_well = "test result: ok. 3 passed; 0 failed; 0 ignored\n";
        let failed = |ended_well| Tally::of_test_output("x", all_well, ended_well).failed;
        assert_eq!(failed(true), Vec::<String>::new());
        assert_eq!(failed(false), ["x"]);
    }

    #[test]
    fn a_failure_is_one_line() {
        let mut tally = Tally::one();
        tally.count("a", Err("b\nc"));
        tally.count("d", Ok::<(), String>(()));
        assert_eq!((tally.passed, tally.failed), (2, vec!["a: b".to_owned()]));
    }
}
