//! What happens to signals that reach the monitor: a policy without clocks or files of its own.
//!
//! SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the program in the guest, as if it ran on the host. So that the monitor
//! can always be ended by them:
//! - when the program does not handle the signal, the guest has [`PATIENCE`] to end; then, or when a further signal arrives
//!   meanwhile, the monitor stops it;
//! - when the program handles the signal, it may take its time; [`INSIST`] signals within [`PATIENCE`] stop it all the same.
//!
//! SIGKILL and job control (SIGTSTP, SIGCONT) act on the monitor and so on the whole guest. SIGWINCH is ignored.

use std::time::{Duration, Instant};

/// How long a guest may take to end.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How many signals in a row mean "now".
pub const INSIST: usize = 3;

/// What to do with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Send,
    /// Stop the guest.
    Stop,
}

/// The signals so far.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    recent: Vec<Instant>,
    deadline: Option<(Instant, u8)>,
}

impl Policy {
    /// `signal` arrived at `now`; `handled` says whether the program handles it.
    pub fn receive(&mut self, signal: u8, handled: bool, now: Instant) -> Verdict {
        self.recent.retain(|&at| now.duration_since(at) < PATIENCE);
        self.recent.push(now);
        if self.deadline.is_some() || self.recent.len() >= INSIST {
            return Verdict::Stop;
        }
        if !handled {
            self.deadline = Some((now + PATIENCE, signal));
        }
        Verdict::Send
    }

    /// How long to wait before [`Self::expired`] is worth asking.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.deadline
            .map(|(at, _)| at.saturating_duration_since(now))
    }

    /// The signal that the guest should have ended for by `now`.
    pub fn expired(&self, now: Instant) -> Option<u8> {
        self.deadline
            .filter(|&(at, _)| at <= now)
            .map(|(_, signal)| signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unhandled_signal_has_a_deadline() {
        let (mut policy, now) = (Policy::default(), Instant::now());
        assert_eq!(policy.timeout(now), None);
        assert_eq!(policy.receive(15, false, now), Verdict::Send);
        assert_eq!(policy.timeout(now), Some(PATIENCE));
        assert_eq!(policy.expired(now), None);
        assert_eq!(policy.expired(now + PATIENCE), Some(15));
        assert_eq!(policy.receive(2, true, now), Verdict::Stop);
    }

    #[test]
    fn a_handled_signal_has_none_but_insisting_helps() {
        let (mut policy, now) = (Policy::default(), Instant::now());
        for seconds in [0, 3, 6, 9] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(policy.receive(2, true, at), Verdict::Send);
        }
        let at = now + Duration::from_secs(9);
        assert_eq!(policy.receive(2, true, at), Verdict::Send);
        assert_eq!(policy.receive(2, true, at), Verdict::Stop);
        assert_eq!(policy.expired(at), None);
    }
}
