//! Counting what passed, failed and was skipped, and the closing line that says it.

use std::fmt;

/// Counts of checks or tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As it should be.
    pub passed: usize,
    /// Not.
    pub failed: usize,
    /// Not tried here.
    pub skipped: usize,
}

impl Tally {
    /// Counts one check.
    pub fn count(&mut self, passed: bool) {
        match passed {
            true => self.passed += 1,
            false => self.failed += 1,
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; ...` that test harnesses print.
    pub fn of_test_output(text: &str) -> Self {
        let mut tally = Self::default();
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
            tally.add(Self {
                passed: number("passed"),
                failed: number("failed"),
                skipped: number("ignored"),
            });
        }
        tally
    }

    /// An error when anything failed.
    pub fn verdict(self) -> anyhow::Result<()> {
        println!("{self}");
        anyhow::ensure!(
            self.failed == 0,
            "{} of {} failed",
            self.failed,
            self.passed + self.failed
        );
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
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
        let text = "x\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\ntest result: FAILED. 2 passed; 4 failed; 0 ignored\n";
        let tally = Tally::of_test_output(text);
        assert_eq!(
            tally,
            Tally {
                passed: 5,
                failed: 4,
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "5 passed, 4 failed, 1 skipped");
    }
}
