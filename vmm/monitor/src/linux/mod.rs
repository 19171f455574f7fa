//! `unik-vmm linux`: boots a stock Linux kernel. Arguments -> kernel and tables in memory -> machine -> event loop.
//!
//! - [`crate::loader::linux`]: kernel files. [`boot`], [`acpi`], [`layout`]: what the kernel finds in memory, and where.
//! - [`control`]: what can be changed while it runs.
//! - [`ports`], [`serial`], [`power`]: devices at fixed ports. [`supervisor`]: the event loop and how it all ends.

pub mod acpi;
pub mod args;
pub mod boot;
pub mod control;
pub mod layout;
pub mod ports;
pub mod power;
pub mod serial;
pub mod supervisor;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unik_abi::MAX_VCPUS;
use unik_host::signals::SignalFd;
use vm_memory::{Bytes, GuestAddress};

use crate::error::Error;
use crate::errors::say;
use crate::loader::linux::{Initrd, Kernel, KernelError, Loaded, Protocol, load_initrd};
use crate::machine::net::Cards;
use crate::machine::socket::Socket;
use crate::machine::vcpus::{Entry, LinuxStart};
use crate::machine::{self, Machine, Size, balloon, disk, vsock};
use crate::net::{self, Card, NetArgs, NetError, Wishes};
use crate::timings::{Clock, Timings};
use args::{EntryChoice, LinuxArgs};
use control::Control;
use ports::LinuxPorts;
use power::Power;
use serial::SerialLine;
use supervisor::Supervisor;

/// What the monitor itself tells every kernel: where the console is, that a panic ends the machine, and what not to look for.
const CMDLINE: &str = "console=ttyS0 reboot=a panic=-1 pci=off i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on";

/// Why a machine cannot be what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// Number of vCPUs.
    #[error("a guest cannot have {0} vCPUs: give 1 to {most} (--cpus)", most = MAX_VCPUS)]
    Cpus(u32),
    /// Too many devices.
    #[error("{wanted} devices are more than the {most} that a machine has interrupts for: leave out some disks", most = layout::MAX_DEVICES)]
    Devices {
        /// How many.
        wanted: usize,
    },
    /// The host's side of a device cannot be opened.
    #[error(
        "cannot listen at {path}: {source}; give a path in a folder that you may write to, which nothing else uses"
    )]
    Socket {
        /// As given.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The kernel cannot be entered as asked.
    #[error("the kernel has no {0} entry point: leave out --entry, and the one it has is used")]
    Entry(&'static str),
}

/// Runs a kernel and returns the process's exit code.
pub fn run(args: &LinuxArgs, clock: Clock) -> Result<u8, Error> {
    let mut timings = Timings::new(clock);
    // Before the first thread, so that every thread leaves the signals to the event loop.
    let signals = SignalFd::block_forwarded().map_err(Error::host("take over signals"))?;
    let first = machine::prepare()?;
    let kernel = Kernel::open(&args.kernel)?;
    let protocol = protocol(args.entry, &kernel)?;
    let size = Size {
        memory: args.memory,
        cpus: cpus(args.cpus)?,
    };
    let ram = machine::reserve(size.memory)?;
    let loading = kernel.load(&ram, protocol, Some(first.alarm()))?;
    let mut machine = Machine::with_ram(first, size, ram)?;
    timings.mark("VM ready");
    let loaded = loading.loaded;
    let initrd = args
        .initrd
        .as_ref()
        .map(|path| load_initrd(path, &loaded, &mut machine.ram))
        .transpose()?;
    machine.attach_entropy();
    let balloon = args.balloon || args.control.is_some();
    let others = usize::from(args.vsock.is_some()) + usize::from(balloon);
    let cards = cards(&args.network)?;
    let wanted = args.disks.len() + cards.len() + others + machine.devices();
    if wanted > layout::MAX_DEVICES {
        return Err(LinuxError::Devices { wanted }.into());
    }
    for (number, text) in args.disks.iter().enumerate() {
        let (path, read_only) = split_disk(text);
        disk::attach(&mut machine, path, read_only, number)?;
    }
    let cards = Cards::attach(&mut machine, &cards, args.network.pcap.as_deref())?;
    // Removed from the host's folders when this function ends.
    let _vsock = attach_vsock(args, &mut machine)?;
    let _control = attach_balloon(args, &mut machine, balloon)?;
    let serial =
        SerialLine::new(machine.line(layout::COM1_GSI)).map_err(Error::host("create an event"))?;
    let serial = Arc::new(serial);
    machine.set_ports(Arc::new(LinuxPorts {
        serial: Arc::clone(&serial),
        power: Power::default(),
        boot_timer: args.boot_timer.then_some((clock, machine.tsc_khz)),
    }));
    hand_over(args, &machine, &loaded, initrd)?;
    loading.finish()?;
    timings.mark("kernel loaded");
    let tsc_khz = machine.tsc_khz;
    let button = machine.line(layout::BUTTON_GSI);
    let running = machine.power_on(Entry::Linux(start(&loaded)))?;
    timings.mark("guest entered");
    let exits = running.exits();
    let code = Supervisor::new(running, serial, button)?.watch(signals)?;
    let tallies = cards.finish();
    if let Some(format) = args.timings {
        timings.mark("monitor done");
        timings.count_exits(&exits);
        timings.count_frames(&tallies);
        say(&timings.render(format, tsc_khz));
    }
    Ok(code)
}

/// The network cards; a guest gets one only when it is asked for.
fn cards(args: &NetArgs) -> Result<Vec<Card>, NetError> {
    if args.net.is_empty() && args.publish.is_empty() {
        return Ok(Vec::new());
    }
    net::resolve(args, &Wishes::default())
}

fn attach_vsock(args: &LinuxArgs, machine: &mut Machine) -> Result<Option<Socket>, Error> {
    let Some(wanted) = &args.vsock else {
        return Ok(None);
    };
    let socket = listen(&wanted.path)?;
    vsock::attach(machine, &socket, wanted.cid)?;
    Ok(Some(socket))
}

/// Attaches a balloon where it is `wanted`, and listens for commands if asked to.
fn attach_balloon(
    args: &LinuxArgs,
    machine: &mut Machine,
    wanted: bool,
) -> Result<Option<Socket>, Error> {
    if !wanted {
        return Ok(None);
    }
    let balloon = balloon::attach(machine);
    let Some(path) = &args.control else {
        return Ok(None);
    };
    let socket = listen(path)?;
    let button = machine.line(layout::BUTTON_GSI);
    Control { balloon, button }.serve(&socket)?;
    Ok(Some(socket))
}

fn listen(path: &Path) -> Result<Socket, LinuxError> {
    Socket::listen(path).map_err(|source| LinuxError::Socket {
        path: path.into(),
        source,
    })
}

/// `FILE` or `FILE:ro`.
fn split_disk(text: &OsStr) -> (&Path, bool) {
    match text.as_bytes().strip_suffix(b":ro") {
        Some(path) => (Path::new(OsStr::from_bytes(path)), true),
        None => (Path::new(text), false),
    }
}

fn cpus(wanted: u32) -> Result<u8, LinuxError> {
    match u8::try_from(wanted) {
        Ok(count) if count >= 1 && usize::from(count) <= MAX_VCPUS => Ok(count),
        _ => Err(LinuxError::Cpus(wanted)),
    }
}

fn protocol(choice: EntryChoice, kernel: &Kernel) -> Result<Protocol, LinuxError> {
    let (wanted, name) = match choice {
        EntryChoice::Auto if kernel.offers(Protocol::Pvh) => return Ok(Protocol::Pvh),
        EntryChoice::Auto | EntryChoice::Linux64 => (Protocol::Linux64, "64-bit"),
        EntryChoice::Pvh => (Protocol::Pvh, "PVH"),
    };
    kernel
        .offers(wanted)
        .then_some(wanted)
        .ok_or(LinuxError::Entry(name))
}

fn hand_over(
    args: &LinuxArgs,
    machine: &Machine,
    kernel: &Loaded,
    initrd: Option<Initrd>,
) -> Result<(), Error> {
    let cmdline = if args.bare_cmdline {
        args.cmdline.clone()
    } else {
        format!("{CMDLINE} {}", args.cmdline)
    };
    if cmdline.len() > kernel.cmdline_max {
        return Err(KernelError::CommandLine {
            len: cmdline.len(),
            most: kernel.cmdline_max,
        }
        .into());
    }
    let tables = acpi::tables(layout::ACPI, machine.cpus(), machine.devices());
    let mem = machine.ram.view();
    let handover = boot::Handover {
        regions: machine.ram.regions(),
        kernel,
        cmdline: &cmdline,
        initrd,
        rsdp: layout::ACPI,
    };
    mem.write_slice(&tables, GuestAddress(layout::ACPI))
        .and_then(|()| handover.write(mem))
        .map_err(|_| crate::handover::HandoverError::NoRoom)?;
    Ok(())
}

fn start(kernel: &Loaded) -> LinuxStart {
    match kernel.protocol {
        Protocol::Linux64 => LinuxStart::Long(unik_host::vcpu::LongStart {
            entry: kernel.entry,
            zero_page: layout::ZERO_PAGE,
            page_tables: layout::PAGE_TABLES,
            gdt: layout::GDT,
            stack: layout::STACK,
        }),
        Protocol::Pvh => LinuxStart::Pvh {
            entry: kernel.entry as u32,
            start_info: layout::ZERO_PAGE as u32,
            stack: layout::STACK as u32,
        },
    }
}
