//! Dialogues: a program as server and the same program as its client, one of them a unikernel and the other a process.
//!
//! What the client prints must be what it prints when both are processes. An example's manifest lists its dialogues:
//!
//! ```toml
//! [[package.metadata.dialogue]]
//! name = "greeting"                       # of the dialogue
//! server = ["serve", "{listen}"]          # arguments of the server, which prints a line that begins with `listening`
//! client = ["get", "{peer}", "/"]         # arguments of the client; `{here}` is the example's folder, the root in a guest
//! guest = ["server", "client"]            # which of them is tried as unikernel; the server when absent
//! udp = true                              # publish the port of this protocol
//! emulated = false                        # not under emulation: too slow there
//! burst = true                            # connects many times at once: servers not under QEMU, whose forwarded ports queue one connection
//! cpus = [1, 2]                           # numbers of vCPUs; [1, 2] when absent
//! timeout = 60                            # seconds for the client (three times as many under emulation)
//! ```

use super::run::{Machine, Variant, difference, words};
use super::subject::Subject;
use super::{Args, Tools};
use crate::port;
use crate::sh::{self, Outcome};
use crate::tally::{Tally, Verdict};
use crate::tap::{self, Tap};
use anyhow::{Context, Result, bail};
use cargo_metadata::Package;
use serde::Deserialize;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The port of a server in its guest.
const GUEST_PORT: u16 = 7000;
/// Where a guest finds the host's loopback when it may.
const HOST: &str = "10.0.2.2";
/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(60);

/// One of the two programs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It listens.
    Server,
    /// It connects.
    Client,
}

/// One dialogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialogue {
    /// Its name.
    pub name: String,
    /// Arguments of the server.
    pub server: Vec<String>,
    /// Arguments of the client.
    pub client: Vec<String>,
    /// Which is a unikernel.
    #[serde(default = "server")]
    pub guest: Vec<Side>,
    /// The protocol is UDP.
    #[serde(default)]
    pub udp: bool,
    /// Try it under emulation too.
    #[serde(default = "yes")]
    pub emulated: bool,
    /// The client opens many connections at once. libslirp listens with a backlog of 1, so under QEMU all but one wait for the
    /// client's TCP to try again, up to 27 s.
    #[serde(default)]
    pub burst: bool,
    /// Numbers of vCPUs.
    #[serde(default = "one_and_two")]
    pub cpus: Vec<u32>,
    /// Seconds.
    #[serde(default = "a_minute")]
    pub timeout: u64,
    /// The example's folder.
    #[serde(skip)]
    pub here: String,
}

fn server() -> Vec<Side> {
    vec![Side::Server]
}

fn yes() -> bool {
    true
}

fn one_and_two() -> Vec<u32> {
    vec![1, 2]
}

fn a_minute() -> u64 {
    60
}

impl Dialogue {
    /// The dialogues of an example.
    pub fn of(package: &Package) -> Result<Vec<Self>> {
        let Some(found) = package.metadata.get("dialogue") else {
            return Ok(Vec::new());
        };
        let mut dialogues: Vec<Self> = serde_json::from_value(found.clone())
            .with_context(|| format!("dialogues of example {}", package.name))?;
        let here = package.manifest_path.parent().map(ToString::to_string);
        let here = here.unwrap_or_default();
        dialogues.iter_mut().for_each(|d| d.here.clone_from(&here));
        Ok(dialogues)
    }
}

/// One dialogue in one way.
struct Job<'a> {
    subject: &'a Subject,
    dialogue: &'a Dialogue,
    guest: Side,
    variant: Variant,
    /// Over a tap device, not the user network.
    tap: bool,
}

impl fmt::Display for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, guest) = (&self.dialogue.name, self.guest);
        let side = if guest == Side::Server {
            "server"
        } else {
            "client"
        };
        let over = match (self.tap, guest) {
            (false, _) => "",
            (true, Side::Server) => " over tap and user",
            (true, Side::Client) => " over tap",
        };
        write!(
            f,
            "{}/{name} {side} {}{over}",
            self.subject.name, self.variant
        )
    }
}

/// Runs all dialogues that the filter leaves, one after the other.
pub fn run(tools: &Tools, subjects: &[Subject], args: &Args, kvm: bool) -> Tally {
    let mut tally = Tally::default();
    for subject in subjects {
        for dialogue in &subject.dialogues {
            let jobs = jobs(subject, dialogue).filter(|job| {
                let line = job.to_string();
                args.filter.iter().all(|f| line.contains(f.as_str()))
            });
            let (possible, not): (Vec<_>, Vec<_>) = jobs
                .partition(|job| (kvm || job.variant.emulated()) && (!job.tap || tap::possible()));
            for job in not.iter().filter(|job| kvm && job.tap) {
                let fail = sh::FAIL;
                anstream::println!("{fail}SKIPPED{fail:#} {job}: needs root and iproute2");
            }
            tally.skipped += not.len();
            if possible.is_empty() {
                continue;
            }
            let native = match natively(subject, dialogue) {
                Ok(native) => native,
                Err(error) => {
                    let what = format!("{}/{} natively", subject.name, dialogue.name);
                    tally.error(what, &error);
                    continue;
                }
            };
            for job in possible {
                let verdict = job.judge(tools, &native);
                tally.judge(job, verdict);
            }
        }
    }
    tally
}

/// Every way to hold a dialogue.
fn jobs<'a>(subject: &'a Subject, dialogue: &'a Dialogue) -> impl Iterator<Item = Job<'a>> {
    let most = dialogue.cpus.iter().copied().max().unwrap_or(1);
    let variant = |machine, bound, cpus| Variant {
        machine,
        bound,
        cpus,
    };
    let mut variants: Vec<Variant> = dialogue
        .cpus
        .iter()
        .map(|&cpus| variant(Machine::Kvm, true, cpus))
        .collect();
    variants.push(variant(Machine::Kvm, false, 1));
    variants.push(variant(Machine::QemuKvm, true, most));
    variants.extend(
        dialogue
            .emulated
            .then(|| variant(Machine::Emulated, true, most)),
    );
    let mut ways: Vec<_> = variants.into_iter().map(|way| (way, false)).collect();
    ways.push((variant(Machine::Kvm, true, most), true));
    let jobs = dialogue.guest.iter().flat_map(move |&guest| {
        ways.clone().into_iter().map(move |(variant, tap)| Job {
            subject,
            dialogue,
            guest,
            variant,
            tap,
        })
    });
    jobs.filter(|job| {
        let ours = job.variant.machine == Machine::Kvm;
        !dialogue.burst || job.guest == Side::Client || ours
    })
}

fn fill(args: &[String], key: &str, value: &str) -> Vec<String> {
    args.iter().map(|arg| arg.replace(key, value)).collect()
}

/// One of the two as a process.
fn process(elf: &Path, args: &[String], dialogue: &Dialogue) -> Command {
    let mut command = Command::new(elf);
    command
        .args(fill(args, "{here}", &dialogue.here))
        .env_clear();
    command
}

/// Both as processes.
fn natively(subject: &Subject, dialogue: &Dialogue) -> Result<Outcome> {
    let at = format!("127.0.0.1:{}", port::free()?);
    let serve = fill(&dialogue.server, "{listen}", &at);
    let mut server = process(&subject.elf, &serve, dialogue);
    let server = sh::Background::start(&mut server, "listening", START)?;
    let ask = fill(&dialogue.client, "{peer}", &at);
    let mut client = process(&subject.elf, &ask, dialogue);
    let limit = Duration::from_secs(dialogue.timeout);
    let outcome = sh::capture(&mut client, b"", limit, None)?;
    server.stop()?;
    if outcome.late || outcome.code != 0 {
        let said = String::from_utf8_lossy(&outcome.stderr);
        bail!("the client fails with code {}: {said}", outcome.code);
    }
    Ok(outcome)
}

impl Job<'_> {
    /// The command lines of the server, and of the client for each way to it: a guest that serves over tap has a second card, of the user
    /// network, at the same time.
    fn commands(&self, tools: &Tools) -> Result<(Command, Vec<Command>)> {
        let port = port::free()?;
        let (subject, dialogue) = (self.subject, self.dialogue);
        let at = format!("127.0.0.1:{port}");
        let inside = format!("0.0.0.0:{GUEST_PORT}");
        let published = {
            let protocol = if dialogue.udp { "/udp" } else { "" };
            ["-p".to_owned(), format!("{at}:{GUEST_PORT}{protocol}")]
        };
        let card = |card: &str| ["--net".to_owned(), card.to_owned()];
        // Where the server listens, where the client finds it, and the guest's network.
        let (listen, peers, network) = match (self.guest, self.tap) {
            (Side::Server, false) => (inside, vec![at], published.to_vec()),
            (Side::Client, false) => {
                let network = card("user,host-loopback").to_vec();
                (at, vec![format!("{HOST}:{port}")], network)
            }
            (Side::Server, true) => {
                let over_tap = format!("{}:{GUEST_PORT}", tap::GUEST);
                let network = [card(&tap::flag()), card("user"), published].concat();
                (inside, vec![over_tap, at], network)
            }
            (Side::Client, true) => {
                let at = format!("{}:{port}", tap::HOST);
                (at.clone(), vec![at], card(&tap::flag()).to_vec())
            }
        };
        let server = fill(&dialogue.server, "{listen}", &listen);
        let clients = peers
            .iter()
            .map(|peer| fill(&dialogue.client, "{peer}", peer));
        let guest = |args: &[String]| {
            let mut guest = self.variant.command(tools);
            guest.args(&network).arg(subject.image(self.variant));
            guest.arg("--").args(fill(args, "{here}", ""));
            guest
        };
        let process = |args: &[String]| process(&subject.elf, args, dialogue);
        Ok(match self.guest {
            Side::Server => (guest(&server), clients.map(|args| process(&args)).collect()),
            Side::Client => (process(&server), clients.map(|args| guest(&args)).collect()),
        })
    }

    /// Holds the dialogue, with a new server for each way to it, and says how it went.
    fn judge(&self, tools: &Tools, native: &Outcome) -> Result<Verdict> {
        let _tap = self.tap.then(Tap::new).transpose()?;
        let (mut server, clients) = self.commands(tools)?;
        let (good, fail, mut time) = (sh::GOOD, sh::FAIL, 0.0);
        for mut client in clients {
            match self.hold(&mut server, &mut client, native)? {
                Ok(seconds) => time += seconds,
                Err(why) => {
                    let (serving, asking) = (words(&server), words(&client));
                    anstream::println!(
                        "{fail}FAIL{fail:#} {self}: {why}\n         again: {serving} & {asking}"
                    );
                    return Ok(Err(why));
                }
            }
        }
        anstream::println!("{good}ok{good:#}   {self} {time:.3} s");
        Ok(Ok(()))
    }

    /// The client's seconds, or what went wrong.
    fn hold(
        &self,
        server: &mut Command,
        client: &mut Command,
        native: &Outcome,
    ) -> Result<Result<f64, String>> {
        let slow = if self.variant.emulated() { 3 } else { 1 };
        let limit = Duration::from_secs(self.dialogue.timeout * slow);
        let running = match sh::Background::start(server, "listening", START) {
            Ok(running) => running,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        let outcome = sh::capture(client, b"", limit, None)?;
        let (said, seconds) = (running.stop()?, outcome.time.as_secs_f64());
        Ok(match verdict(&outcome, native) {
            None => Ok(seconds),
            Some(why) => {
                let errors = String::from_utf8_lossy(&outcome.stderr);
                Err(format!(
                    "after {seconds:.3} s: {why}\n         client | {errors}\n         server | {said}"
                ))
            }
        })
    }
}

/// What is wrong with the client's outcome.
fn verdict(got: &Outcome, native: &Outcome) -> Option<String> {
    if got.late {
        return Some(format!("was still running after {} s", got.time.as_secs()));
    }
    if got.code != native.code {
        return Some(format!("exit code {} instead of {}", got.code, native.code));
    }
    (got.stdout != native.stdout)
        .then(|| format!("other output: {}", difference(&got.stdout, &native.stdout)))
}
