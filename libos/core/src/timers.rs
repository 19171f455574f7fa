//! Deadlines in order: what is due first, what is due now.

use alloc::collections::BTreeMap;

/// Handle of a pending timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    deadline: u64,
    sequence: u64,
}

/// Pending timers, each with a payload. Deadlines are in whatever unit the caller counts (the kernel uses nanoseconds since boot).
pub struct Timers<T> {
    pending: BTreeMap<TimerId, T>,
    sequence: u64,
}

impl<T> Timers<T> {
    /// No timers.
    pub const fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Adds a timer. Timers with the same deadline fire in the order in which they were added.
    pub fn add(&mut self, deadline: u64, payload: T) -> TimerId {
        self.sequence += 1;
        let id = TimerId {
            deadline,
            sequence: self.sequence,
        };
        self.pending.insert(id, payload);
        id
    }

    /// Removes a timer; `None` when it has fired already.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.pending.remove(&id)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.pending.first_key_value().map(|(id, _)| id.deadline)
    }

    /// Removes one timer that is due at `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<T> {
        let entry = self.pending.first_entry()?;
        (entry.key().deadline <= now).then(|| entry.remove())
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_only_when_due() {
        let mut timers = Timers::new();
        timers.add(30, 'c');
        let b = timers.add(20, 'b');
        timers.add(10, 'a');
        timers.add(10, 'z');
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(
            (timers.pop_due(25), timers.pop_due(25)),
            (Some('a'), Some('z'))
        );
        assert_eq!(timers.cancel(b), Some('b'));
        assert_eq!(timers.cancel(b), None);
        assert_eq!(
            (timers.pop_due(25), timers.pop_due(30), timers.next()),
            (None, Some('c'), None)
        );
    }
}
