//! How long a thread looks again before it sleeps: longer while sleeps turn out short, not at all while they are long.
//!
//! A doorbell costs the guest 20 to 100 us on a paravirtual KVM, so work that comes in shorter steps is worth waiting for; a processor that
//! waits for nothing is taken from the guest. The same rule as KVM's own `halt_poll_ns`.

use std::time::{Duration, Instant};

/// The longest wait.
const MOST: Duration = Duration::from_micros(100);
/// The shortest that is not 0.
const LEAST: Duration = Duration::from_micros(12);

/// The rule's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    limit: Duration,
    since: Option<Instant>,
}

impl Patience {
    /// There was work.
    pub fn renew(&mut self) {
        self.since = None;
    }

    /// There was none; whether to look again at once.
    pub fn lasts(&mut self) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let now = Instant::now();
        now - *self.since.get_or_insert(now) < self.limit
    }

    /// The thread slept for so long.
    pub fn learn(&mut self, asleep: Duration) {
        self.since = None;
        self.limit = if asleep < MOST {
            (self.limit * 2).clamp(LEAST, MOST)
        } else if asleep > 10 * MOST {
            Duration::ZERO
        } else {
            self.limit / 2
        };
        if self.limit < LEAST {
            self.limit = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_teach_patience_and_long_ones_end_it() {
        let mut patience = Patience::default();
        assert!(!patience.lasts());
        for _ in 0..10 {
            patience.learn(Duration::from_micros(20));
        }
        assert_eq!(patience.limit, MOST);
        assert!(patience.lasts());
        std::thread::sleep(2 * MOST);
        assert!(!patience.lasts());
        patience.renew();
        assert!(patience.lasts());
        patience.learn(Duration::from_micros(200));
        assert_eq!(patience.limit, MOST / 2);
        patience.learn(Duration::from_secs(1));
        assert!(!patience.lasts());
    }
}
