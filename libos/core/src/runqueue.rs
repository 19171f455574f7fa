//! Which thread runs next on which vCPU: one queue for all, in the order of becoming ready.

use alloc::collections::VecDeque;

/// Every vCPU: as an entry's set, it may run anywhere. Bit n of a set is vCPU n.
pub const EVERYWHERE: u64 = u64::MAX;

/// Ready threads, each with the set of vCPUs it may run on.
pub struct RunQueue<T> {
    entries: VecDeque<(u64, T)>,
    /// Entries that may run anywhere.
    anywhere: usize,
    /// The other entries, by vCPU.
    here: [usize; 64],
    /// Where `here` is not 0.
    busy: u64,
}

impl<T> RunQueue<T> {
    /// No threads.
    pub const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            anywhere: 0,
            here: [0; 64],
            busy: 0,
        }
    }

    /// Adds a thread at the end.
    pub fn push(&mut self, thread: T, allowed: u64) {
        self.entries.push_back((allowed, thread));
        self.count(allowed, 1);
    }

    /// Removes the first thread that may run on `cpu`.
    pub fn take(&mut self, cpu: usize) -> Option<T> {
        let at = self
            .entries
            .iter()
            .position(|(allowed, _)| allowed >> cpu & 1 == 1)?;
        let (allowed, thread) = self.entries.remove(at)?;
        self.count(allowed, -1);
        Some(thread)
    }

    /// Gives the thread that `is_it` finds another set; whether it was in the queue.
    pub fn restrict(&mut self, is_it: impl Fn(&T) -> bool, allowed: u64) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|(_, thread)| is_it(thread)) else {
            return false;
        };
        let before = core::mem::replace(&mut entry.0, allowed);
        self.count(before, -1);
        self.count(allowed, 1);
        true
    }

    /// The vCPUs for which there is something to run.
    pub fn wanted(&self) -> u64 {
        match self.anywhere {
            0 => self.busy,
            _ => EVERYWHERE,
        }
    }

    /// The sets of the waiting threads, in order.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|(allowed, _)| *allowed)
    }

    fn count(&mut self, allowed: u64, by: isize) {
        if allowed == EVERYWHERE {
            self.anywhere = self.anywhere.wrapping_add_signed(by);
            return;
        }
        let mut rest = allowed;
        while rest != 0 {
            let (cpu, bit) = (rest.trailing_zeros() as usize, rest & rest.wrapping_neg());
            self.here[cpu] = self.here[cpu].wrapping_add_signed(by);
            match self.here[cpu] {
                0 => self.busy &= !bit,
                _ => self.busy |= bit,
            }
            rest &= !bit;
        }
    }
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn first_come_first_served_where_allowed() {
        let mut queue = RunQueue::new();
        queue.push('a', 0b10);
        queue.push('b', EVERYWHERE);
        queue.push('c', 0b01);
        assert_eq!(queue.wanted(), EVERYWHERE);
        assert_eq!(queue.take(0), Some('b'));
        assert_eq!(queue.wanted(), 0b11);
        assert_eq!(queue.take(0), Some('c'));
        assert_eq!((queue.take(0), queue.wanted()), (None, 0b10));
        assert_eq!((queue.take(1), queue.wanted()), (Some('a'), 0));
    }

    #[test]
    fn a_waiting_thread_changes_its_set() {
        let mut queue = RunQueue::new();
        queue.push('a', EVERYWHERE);
        assert!(queue.restrict(|&thread| thread == 'a', 0b100));
        assert!(!queue.restrict(|&thread| thread == 'b', 0b1));
        assert_eq!((queue.wanted(), queue.take(0)), (0b100, None));
        assert_eq!(queue.take(2), Some('a'));
    }

    proptest! {
        /// `wanted` says exactly for whom `take` finds something, whatever happened before.
        #[test]
        fn wanted_is_what_can_be_taken(steps in proptest::collection::vec((0..3u8, 0..4usize, prop_oneof![1..16u64, Just(EVERYWHERE)]), 0..200)) {
            let mut queue = RunQueue::new();
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (number, (action, cpu, allowed)) in steps.into_iter().enumerate() {
                match action {
                    0 => {
                        queue.push(number, allowed);
                        model.push((allowed, number));
                    }
                    1 => {
                        let at = model.iter().position(|(allowed, _)| allowed >> cpu & 1 == 1);
                        prop_assert_eq!(queue.take(cpu), at.map(|at| model.remove(at).1));
                    }
                    _ => {
                        let at = model.len() / 2;
                        if let Some(entry) = model.get_mut(at) {
                            entry.0 = allowed;
                            let number = entry.1;
                            prop_assert!(queue.restrict(|&thread| thread == number, allowed));
                        }
                    }
                }
                let wanted = model.iter().fold(0, |set, (allowed, _)| set | allowed);
                prop_assert_eq!(queue.wanted(), wanted);
                prop_assert!(queue.waiting().eq(model.iter().map(|(allowed, _)| *allowed)));
            }
        }
    }
}
