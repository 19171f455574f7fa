//! One run: plan, machine, event loop, report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unik_abi::control::PORT_BATCH;
use unik_host::clock;
use unik_host::poll::{self, Watch};
use unik_host::seccomp::Kind;
use unik_host::signals::SignalFd;
use vm_memory::GuestMemoryMmap;

use crate::cli::RunArgs;
use crate::config::Records;
use crate::control::{LastWords, Mailbox};
use crate::error::Error;
use crate::errors::say;
use crate::handover::Handover;
use crate::input::{Input, Wants};
use crate::loader::Image;
use crate::machine::console::Pump;
use crate::machine::net::Cards;
use crate::machine::vcpus::{Ending, Entry, Running};
use crate::machine::{self, Machine, Size};
use crate::plan::Plan;
use crate::report::Context;
use crate::signals::{Policy, Verdict};
use crate::streams::Streams;
use crate::symbols;
use crate::timezone;
use crate::timings::{Clock, Timings};

/// How often a process in the background looks whether its terminal came back.
const FOREGROUND_CHECK: Duration = Duration::from_millis(200);

/// How long the last output of a guest that ended by a signal may take.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Runs an image and returns the process's exit code.
pub fn run(args: &RunArgs, clock: Clock) -> Result<u8, Error> {
    let mut timings = Timings::new(clock);
    // Before the first thread, so that every thread leaves the signals to the event loop.
    let signals = SignalFd::block_forwarded().map_err(Error::host("take over signals"))?;
    let first = machine::prepare()?;
    let image = Image::open(&args.image)?;
    let plan = Plan::new(args, &image)?;
    let mut ram = machine::reserve(plan.memory)?;
    let free = image.load(&mut ram)?;
    ram.advise_huge_from(free);
    let warmer = ram.warmer();
    // Threads started from here on leave the signals to the event loop, too.
    let machine = std::thread::scope(|scope| {
        let warm_up = std::thread::Builder::new()
            .name("warm-up".into())
            .spawn_scoped(scope, || image.warm_up(&warmer))
            .map_err(Error::host("start a thread"))?;
        let size = Size {
            memory: plan.memory,
            cpus: plan.cpus,
        };
        let machine = Machine::with_ram(first, size, ram)?;
        timings.mark("VM ready");
        warm_up.join().unwrap_or(Ok(()))?;
        Ok::<_, Error>(machine)
    });
    let mut machine = machine?;
    timings.mark("image mapped");
    let mut records = plan.records.clone();
    let streams = Streams::connect(&mut machine, &mut records)?;
    machine.attach_entropy();
    let cards = Cards::attach(&mut machine, &plan.cards, plan.pcap.as_deref())?;
    cards
        .records
        .iter()
        .for_each(|card| _ = records.add("net", card));
    let guest = Guest::of(&machine);
    complete(&mut records, &plan, &guest);
    let entry = enter(&image, &machine, &records)?;
    let running = machine.power_on(entry)?;
    let exits = running.exits();
    let ending = Supervisor::new(running, streams, &guest)?.watch(signals)?;
    let tallies = cards.finish();
    let words = LastWords::read(&guest.mem);
    let report = Context {
        name: &plan.name,
        words: &words,
        symbol: &|addr| symbols::name(&image.file, addr, words.program_base),
        quiet: plan.quiet,
    }
    .report(&ending);
    say(&report.text);
    if let Some(format) = plan.timings {
        timings.mark_guest_phases(&words.phases, guest.tsc_offset);
        timings.mark("monitor done");
        timings.count_exits(&exits);
        timings.count_frames(&tallies);
        say(&timings.render(format, guest.tsc_khz));
    }
    Ok(report.code)
}

/// What is needed of a machine after it was given away to run.
struct Guest {
    mem: GuestMemoryMmap,
    tsc_khz: u32,
    tsc_offset: i64,
}

impl Guest {
    fn of(machine: &Machine) -> Self {
        Self {
            mem: machine.ram.view().clone(),
            tsc_khz: machine.tsc_khz,
            tsc_offset: machine.tsc_offset,
        }
    }
}

/// Adds what only the machine knows.
fn complete(records: &mut Records, plan: &Plan, guest: &Guest) {
    let mut seed = [0u8; 32];
    if unik_host::entropy::fill(&mut seed) {
        let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        records.add("seed", digits);
    }
    let (wall_ns, tsc) = clock::wall_and_tsc();
    records.add("cpus", plan.cpus.to_string());
    records.add("tsc_khz", guest.tsc_khz.to_string());
    records.add("wall_ns", wall_ns.to_string());
    records.add(
        "wall_tsc",
        tsc.wrapping_add_signed(guest.tsc_offset).to_string(),
    );
    records.add("monitor", "unik");
    records.add("batch", format!("{PORT_BATCH:#x}"));
    if let Some(zone) = timezone::host() {
        records.add("tz", zone);
    }
}

fn enter(image: &Image, machine: &Machine, records: &Records) -> Result<Entry, Error> {
    let cmdline = machine.device_cmdline();
    let handover = Handover {
        regions: machine.ram.regions(),
        cmdline: &cmdline,
        module: records.as_bytes(),
    };
    Ok(Entry::Pvh {
        address: image.entry,
        placed: handover.write(machine.ram.view())?,
        extended: image.manifest.is_some(),
    })
}

/// The event loop of a running guest.
struct Supervisor {
    running: Running,
    pump: Pump,
    input: Input,
    mailbox: Mailbox,
    policy: Policy,
}

impl Supervisor {
    fn new(running: Running, streams: Streams, guest: &Guest) -> Result<Self, Error> {
        // The guest is starting meanwhile. The output's thread inherits it.
        machine::confine(Kind::EventLoop)?;
        unik_host::limits::give_back_start();
        let mailbox = Mailbox::new(guest.mem.clone(), Arc::clone(&running.vm));
        let far_end = mailbox.clone();
        let pump = Pump::start(streams.outlets, move |stream| far_end.hang_up(stream))
            .map_err(Error::host("start a thread"))?;
        Ok(Self {
            running,
            pump,
            input: streams.input,
            mailbox,
            policy: Policy::default(),
        })
    }

    /// Serves the guest until it ends or is stopped.
    fn watch(mut self, mut signals: SignalFd) -> Result<Ending, Error> {
        let ending = loop {
            let wants = self.input.advance();
            let mut watches = [
                Watch::readable(self.running.ended()),
                Watch::readable(&signals),
                self.input.bell().only_if(wants == Wants::Room),
                self.input.stream().only_if(wants == Wants::Data),
            ];
            poll::wait(&mut watches, self.timeout(wants))
                .map_err(Error::host("wait for events"))?;
            if watches[0].ready {
                break None;
            }
            if let Some(signal) = self.pass_on(&mut signals) {
                break Some(Ending::Stopped(signal));
            }
            if watches[3].ready {
                self.input.read();
            }
        };
        self.finish(ending, signals)
    }

    fn timeout(&self, wants: Wants) -> Option<Duration> {
        let check = (wants == Wants::Foreground).then_some(FOREGROUND_CHECK);
        let patience = self.policy.timeout(Instant::now());
        [check, patience].into_iter().flatten().min()
    }

    /// Passes signals on; `Some`: the guest is to be stopped because of this one.
    fn pass_on(&mut self, signals: &mut SignalFd) -> Option<u8> {
        let now = Instant::now();
        while let Some(signal) = signals.take() {
            let signal = signal as u8;
            let handled = self.mailbox.handles(signal);
            if self.policy.receive(signal, handled, now) == Verdict::Stop {
                return Some(signal);
            }
            self.mailbox.send(signal);
        }
        self.policy.expired(now)
    }

    /// Stops the vCPUs and lets the last output out. A reader that does not read holds that up, as it holds up any program;
    /// a signal ends the wait, and a guest that ended by a signal waits only [`LAST_OUTPUT`].
    fn finish(self, stopped: Option<Ending>, mut signals: SignalFd) -> Result<Ending, Error> {
        let seen = self.running.stop();
        let ending = stopped.or(seen).unwrap_or(Ending::Vanished);
        self.pump.finish();
        let mut watches = [Watch::readable(self.pump.done()), Watch::readable(&signals)];
        let limit = ending.by_signal().then_some(LAST_OUTPUT);
        poll::wait(&mut watches, limit).map_err(Error::host("wait for events"))?;
        if watches[0].ready {
            self.pump.join();
        } else {
            signals.take();
        }
        Ok(ending)
    }
}
