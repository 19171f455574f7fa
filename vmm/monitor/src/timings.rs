//! `--timings`: when each phase of a run was reached, as text or JSON.
//!
//! All instants are values of the host's time stamp counter; the guest's are converted by the offset between the two
//! counters. A guest's value that makes no sense (earlier than the phase before, later than now) is left out.
//! Behind the phases stand counts of what is dear: the guest's exits to the monitor, and what its network cards did.

use std::fmt::Write;

use unik_abi::control::PHASES;

use crate::cli::TimingsFormat;
use crate::machine::bus::Exits;
use crate::machine::net::Tally;

/// Names of [`unik_abi::control::Phase`], in its order.
const PHASE_NAMES: [&str; PHASES] = [
    "guest entered",
    "library OS start",
    "library OS ready",
    "main reached",
    "exit",
];

/// Started when the process starts, as near as a program can know it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
}

impl Clock {
    /// Now is the start.
    pub fn start() -> Self {
        Self {
            start: unik_host::clock::tsc(),
        }
    }

    /// Counter steps since the start.
    pub fn steps(&self) -> u64 {
        unik_host::clock::tsc().saturating_sub(self.start)
    }
}

/// The phases in the order in which they are reached.
#[derive(Clone, Debug)]
pub struct Timings {
    clock: Clock,
    reached: Vec<(&'static str, u64)>,
    counts: Vec<(String, u64)>,
}

impl Timings {
    /// With "monitor start" as the first phase.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            reached: vec![("monitor start", clock.start)],
            counts: Vec::new(),
        }
    }

    /// `phase` is reached now.
    pub fn mark(&mut self, phase: &'static str) {
        self.reached.push((phase, unik_host::clock::tsc()));
    }

    /// `phase` was reached at this host TSC, according to the guest.
    pub fn mark_guest(&mut self, phase: &'static str, host_tsc: u64) {
        let last = self.reached.last().map_or(0, |&(_, at)| at);
        if (last..=unik_host::clock::tsc()).contains(&host_tsc) {
            self.reached.push((phase, host_tsc));
        }
    }

    /// What the guest stamped, with the offset of its counter against the host's.
    pub fn mark_guest_phases(&mut self, phases: &[u64; PHASES], tsc_offset: i64) {
        for (name, &at) in PHASE_NAMES.iter().zip(phases) {
            self.mark_guest(name, at.wrapping_sub(tsc_offset as u64));
        }
    }

    /// How often the guest left to the monitor.
    pub fn count_exits(&mut self, exits: &Exits) {
        let counts = exits.counts();
        let all = counts.iter().map(|(_, count)| count).sum();
        self.counts.push(("exits".to_owned(), all));
        self.counts
            .extend(counts.map(|(kind, count)| (format!("exits {kind}"), count)));
    }

    /// What the network cards did.
    pub fn count_frames(&mut self, cards: &[Tally]) {
        for (number, card) in cards.iter().enumerate() {
            let counts = [
                ("frames sent", card.counts.sent),
                ("frames received", card.counts.received),
                ("frames dropped", card.counts.dropped),
                ("interrupts", card.counts.interrupts),
                ("kicks", card.kicks),
                ("sleeps", card.sleeps),
            ];
            let name = |what| format!("net{number} {what}");
            self.counts
                .extend(counts.map(|(what, count)| (name(what), count)));
        }
    }

    /// The report. `tsc_khz` is the counter's frequency.
    pub fn render(&self, format: TimingsFormat, tsc_khz: u32) -> String {
        let micros = |at: u64| (at - self.clock.start) as f64 * 1000.0 / f64::from(tsc_khz.max(1));
        let mut out = String::new();
        match format {
            TimingsFormat::Text => {
                for (phase, at) in &self.reached {
                    let _ = writeln!(out, "{phase:<18} {:>10.3} ms", micros(*at) / 1000.0);
                }
                for (what, count) in &self.counts {
                    let _ = writeln!(out, "{what:<20} {count:>8}");
                }
            }
            TimingsFormat::Json => {
                let key = |name: &str| name.replace(' ', "_").to_lowercase();
                let phases = self.reached.iter();
                let phases =
                    phases.map(|(phase, at)| format!("\"{}_us\":{:.1}", key(phase), micros(*at)));
                let counts = self.counts.iter();
                let counts = counts.map(|(what, count)| format!("\"{}\":{count}", key(what)));
                let fields: Vec<String> = phases.chain(counts).collect();
                let _ = writeln!(out, "{{{}}}", fields.join(","));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Timings {
        let clock = Clock { start: 1000 };
        let mut timings = Timings::new(clock);
        timings.reached.push(("VM ready", 3000));
        timings.mark_guest("guest entered", 5000);
        timings.mark_guest("main reached", 4000);
        timings.mark_guest("exit", u64::MAX);
        timings
    }

    #[test]
    fn nonsense_of_the_guest_is_left_out() {
        let json = sample().render(TimingsFormat::Json, 1000);
        assert_eq!(
            json,
            "{\"monitor_start_us\":0.0,\"vm_ready_us\":2000.0,\"guest_entered_us\":4000.0}\n"
        );
    }

    #[test]
    fn one_line_a_phase() {
        let text = sample().render(TimingsFormat::Text, 1000);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("VM ready                2.000 ms"), "{text}");
    }
}
