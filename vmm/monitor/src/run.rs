//! One run: plan, machine, event loop, report.

use unik_host::signals::SignalFd;
use unik_host::{clock, poll};

use crate::cli::RunArgs;
use crate::error::Error;
use crate::handover::Handover;
use crate::loader::Image;
use crate::machine::vcpus::{Ending, Running};
use crate::machine::{Capabilities, Machine, Size};
use crate::plan::Plan;
use crate::report::{self, Control};
use crate::timings::{Clock, Timings};

/// Runs an image and returns the process's exit code.
pub fn run(args: &RunArgs, clock: Clock) -> Result<u8, Error> {
    let mut timings = Timings::new(clock);
    let signals = SignalFd::block_forwarded().map_err(Error::host("take over signals"))?;
    let capabilities = Capabilities::ask()?;
    let image = Image::open(&args.image)?;
    let plan = Plan::new(args, &image)?;
    let mut machine = Machine::build(
        capabilities,
        Size {
            memory: plan.memory,
            cpus: plan.cpus,
        },
    )?;
    timings.mark("VM ready");
    let free = image.load(&mut machine.ram)?;
    machine.ram.advise_huge_from(free);
    timings.mark("image mapped");
    let tsc_khz = machine.tsc_khz().unwrap_or(0);
    let module = complete_records(&plan, tsc_khz);
    let handover = Handover {
        regions: machine.ram.regions(),
        cmdline: "",
        module: module.as_bytes(),
    };
    let placed = handover.write(machine.ram.view())?;
    let memory = machine.ram.view().clone();
    let running = machine.start(image.entry, placed)?;
    let ending = event_loop(running, signals)?;
    let control = Control::read(&memory);
    let report = report::report(&ending, &control, &plan.name);
    eprint!("{}", report.text);
    if let Some(format) = plan.timings {
        for (phase, tsc) in [
            "guest entered",
            "library OS start",
            "library OS ready",
            "main reached",
            "exit",
        ]
        .iter()
        .zip(control.phases())
        {
            timings.mark_guest(phase, *tsc);
        }
        timings.mark("monitor exit");
        eprint!("{}", timings.render(format, tsc_khz));
    }
    Ok(report.code)
}

fn complete_records(plan: &Plan, tsc_khz: u32) -> crate::config::Records {
    let mut records = plan.records.clone();
    let (wall_ns, wall_tsc) = clock::wall_and_tsc();
    records.add("cpus", plan.cpus.to_string());
    records.add("tsc_khz", tsc_khz.to_string());
    records.add("wall_ns", wall_ns.to_string());
    records.add("wall_tsc", wall_tsc.to_string());
    records.add("monitor", "unik");
    records
}

fn event_loop(running: Running, mut signals: SignalFd) -> Result<Ending, Error> {
    use std::os::fd::AsRawFd;
    loop {
        let ready = poll::readable(&[running.ended_fd(), signals.as_raw_fd()])
            .map_err(Error::host("wait for events"))?;
        if ready[0] {
            break;
        }
        if let Some(signal) = signals.next() {
            running.stop();
            return Ok(Ending::Exit(0x100 | signal as u32));
        }
    }
    Ok(running.stop().unwrap_or(Ending::Exit(0x200)))
}
