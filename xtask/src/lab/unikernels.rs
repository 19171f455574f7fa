//! Images under kvm-amd: every example and some programs of others, bound and not, with their numbers of vCPUs, judged as the end-to-end
//! tests judge.

use super::build::Parts;
use super::outer::{Laboratory, Payload};
use super::repeat::{Machines, SPARES};
use super::{MONITOR, boot, job};
use crate::e2e::case::Case;
use crate::e2e::run::{judge, native};
use crate::e2e::subject::{self, Subject};
use crate::e2e::third_party;
use crate::e2e::tools::Tools;
use crate::sh::{self, Outcome};
use crate::tally::{Tally, Verdict};
use anyhow::Result;
use lab_agent::Done;
use std::collections::HashMap;
use std::time::Duration;

/// The longest that a program may take. None needs 10 s when the machine is well, and one that broke down is waited for as long.
const LIMIT: Duration = Duration::from_secs(60);

/// One run to do.
struct Test<'a> {
    subject: &'a Subject,
    case: &'a Case,
    bound: bool,
    cpus: u32,
}

impl Test<'_> {
    fn title(&self) -> String {
        let bound = if self.bound { "bound" } else { "unbound" };
        format!(
            "{}/{} lab {bound} {} cpu",
            self.subject.name, self.case.name, self.cpus
        )
    }

    fn image(&self) -> String {
        image(self.subject, self.bound)
    }

    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = [MONITOR, "run", "--quiet", "--cpus", &self.cpus.to_string()]
            .map(str::to_owned)
            .to_vec();
        for (name, value) in &self.case.env {
            words.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        words.extend([self.image(), "--".to_owned()]);
        words.extend(self.case.args(true).iter().cloned());
        words
    }

    /// Runs it and judges.
    fn run(&self, lab: &Laboratory, native: Option<&Outcome>) -> Result<(Outcome, Verdict)> {
        let mut job = job(&self.words(), LIMIT);
        job.stdin = self.case.stdin.as_bytes().to_vec();
        if let Some(signal) = &self.case.signal {
            job.signal = signal.number()?.as_raw() as u64;
            job.signal_after = signal.after.clone().into_bytes();
        }
        let outcome = outcome(lab.run(job)?);
        lab.sound()?;
        let judged = judge(self.case, &outcome, native).map_err(|why| {
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            match stderr.lines().next() {
                Some(first) => format!("{why} ({first})"),
                None => why,
            }
        });
        Ok((outcome, judged))
    }
}

fn image(subject: &Subject, bound: bool) -> String {
    format!(
        "/lab/{}{}.unik",
        subject.name,
        if bound { "" } else { ".unbound" }
    )
}

fn outcome(done: Done) -> Outcome {
    Outcome {
        stdout: done.stdout,
        stderr: done.stderr,
        code: i32::try_from(done.code).unwrap_or(-1),
        time: Duration::from_nanos(done.nanos),
        late: done.late != 0,
    }
}

/// Builds the images, boots the laboratory, runs what the filter leaves. `own`: without programs from crates.io.
pub fn tests(parts: &Parts, filter: &[String], own: bool) -> Result<Tally> {
    if filter.iter().any(|f| f.starts_with("linux")) {
        return Ok(Tally::default());
    }
    let tools = Tools::build(false)?;
    let mut subjects = subject::examples(&tools)?;
    subjects.extend(subject::foreign(&tools)?);
    if !own {
        subjects.extend(third_party::subjects(&tools)?);
    }
    let tests = wanted(&subjects, filter);
    let mut payload = vec![Payload::new(MONITOR, &parts.monitor)];
    for subject in &subjects {
        for (bound, file) in [(true, &subject.bound), (false, &subject.unbound)] {
            let path = image(subject, bound);
            if tests.iter().any(|test| test.image() == path) {
                payload.push(Payload::new(&path, file));
            }
        }
    }
    let mut spares = SPARES;
    let machines = Machines::new(&mut spares, || boot(&parts.maker, &payload))?;
    run_all(&tools, machines, &tests)
}

fn wanted<'a>(subjects: &'a [Subject], filter: &[String]) -> Vec<Test<'a>> {
    let mut tests = Vec::new();
    for subject in subjects {
        for case in &subject.cases {
            for &cpus in &case.cpus {
                tests.extend([true, false].map(|bound| Test {
                    subject,
                    case,
                    bound,
                    cpus,
                }));
            }
        }
    }
    tests.retain(|test| filter.iter().all(|f| test.title().contains(f.as_str())));
    tests
}

fn run_all(
    tools: &Tools,
    mut machines: Machines<'_, Laboratory>,
    tests: &[Test<'_>],
) -> Result<Tally> {
    let (mut tally, mut natives) = (Tally::default(), HashMap::new());
    for test in tests {
        let key = (test.subject.name.clone(), test.case.name.clone());
        if !natives.contains_key(&key) {
            let outcome = native(test.subject, test.case, true, tools.scratch.clone())?;
            natives.insert(key.clone(), outcome);
        }
        let native = natives.get(&key).and_then(Option::as_ref);
        let title = test.title();
        match machines.judge(&title, |lab| test.run(lab, native)) {
            Ok((outcome, verdict)) => {
                tell(test, &outcome, &verdict);
                tally.count(title, verdict);
            }
            Err(error) => tally.error(title, &error),
        }
    }
    Ok(tally)
}

fn tell(test: &Test<'_>, outcome: &Outcome, judged: &Verdict) {
    let (good, fail, time) = (sh::GOOD, sh::FAIL, outcome.time.as_secs_f64());
    match judged {
        Ok(()) => anstream::println!("{good}ok{good:#}   {} {time:.3} s", test.title()),
        Err(why) => {
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            let lines: Vec<_> = stderr.lines().rev().take(20).collect();
            let tail: String = lines
                .iter()
                .rev()
                .map(|line| format!("\n         | {line}"))
                .collect();
            anstream::println!(
                "{fail}FAIL{fail:#} {} {time:.3} s: {why}{tail}",
                test.title()
            );
        }
    }
}
