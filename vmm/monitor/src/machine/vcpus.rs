//! vCPU threads: prepare, run, dispatch, say how it ended, stop together.
//!
//! The first vCPU's thread is the first thing that a run starts: it asks KVM what it supports (more than half a millisecond
//! where `cpuid` traps), sets its vCPU up as soon as there is one, and enters the guest as soon as memory is filled.
//! The other vCPUs' threads start behind it; they wait in KVM until the guest starts them.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Builder, JoinHandle};

use unik_abi::control::ExitReport;
use unik_host::EventFd;
use unik_host::cpuid::{self, Policy};
use unik_host::exit::{Exit, InternalError};
use unik_host::kick::Kicker;
use unik_host::kvm::{Kvm, KvmError, Vm};
use unik_host::seccomp::Kind;
use unik_host::signals;
use unik_host::vcpu::{LongStart, Registers, Vcpu};

use super::bus::{Bus, Exits};
use super::{confine, lock};
use crate::error::Error;
use crate::handover::Placed;

/// How a guest ended, as the monitor saw it.
#[derive(Debug)]
pub enum Ending {
    /// The guest wrote this to its exit port.
    Exit(u32),
    /// It broke down in a way that only the monitor saw.
    Crash {
        /// Which vCPU.
        vcpu: u8,
        /// What happened.
        cause: CrashCause,
        /// Its registers then.
        registers: Box<Registers>,
    },
    /// The monitor stopped it, because it did not react to this signal.
    Stopped(u8),
    /// Every vCPU stopped running without a reason that anybody saw.
    Vanished,
    /// The host failed.
    Host(Error),
}

impl Ending {
    /// Whether a signal ended the guest.
    pub fn by_signal(&self) -> bool {
        match self {
            Self::Exit(value) => {
                matches!(ExitReport::from_u32(*value), Some(ExitReport::Signaled(_)))
            }
            Self::Stopped(_) => true,
            Self::Crash { .. } | Self::Vanished | Self::Host(_) => false,
        }
    }
}

/// Breakdowns that only the monitor sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashCause {
    /// An exception during an exception during an exception.
    TripleFault,
    /// KVM could not go on.
    Internal(InternalError),
    /// The processor refused the guest's state.
    Entry(u64),
    /// An exit that this monitor did not ask for.
    Unexpected(u32),
}

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// In the PVH state at this address, with what [`Placed`] says. `extended`: with XSAVE state switched on where possible
    /// (beyond what PVH says; Unik's images know it).
    Pvh {
        /// 32-bit entry point.
        address: u32,
        /// What `ebx` and `esp` point to.
        placed: Placed,
        /// Switch extended state on.
        extended: bool,
    },
    /// As a Linux kernel wants it.
    Linux(LinuxStart),
}

/// Ways into a Linux kernel.
#[derive(Clone, Copy, Debug)]
pub enum LinuxStart {
    /// In 64-bit mode.
    Long(LongStart),
    /// By PVH.
    Pvh {
        /// 32-bit entry point.
        entry: u32,
        /// For `ebx`.
        start_info: u32,
        /// For `esp`.
        stack: u32,
    },
}

/// Where the first ending is kept and announced.
struct Outcome {
    ending: Mutex<Option<Ending>>,
    announced: EventFd,
}

impl Outcome {
    fn new() -> Result<Arc<Self>, Error> {
        let announced = unik_host::event().map_err(Error::host("create an event"))?;
        Ok(Arc::new(Self {
            ending: Mutex::new(None),
            announced,
        }))
    }

    fn announce(&self, ending: Ending) {
        lock(&self.ending).get_or_insert(ending);
        // Writing fails only when the counter is full: then it is announced already.
        let _ = self.announced.write(1);
    }
}

/// Ends a machine from elsewhere, when the host fails it.
#[derive(Clone)]
pub struct Alarm(Arc<Outcome>);

impl Alarm {
    /// Of a machine with this outcome.
    fn of(outcome: &Arc<Outcome>) -> Self {
        Self(Arc::clone(outcome))
    }

    /// The machine ends with this, unless it has ended already.
    pub fn raise(&self, error: Error) {
        self.0.announce(Ending::Host(error));
    }

    /// One without a machine, and a wait for what is raised.
    #[cfg(test)]
    pub fn alone() -> (Self, impl FnOnce() -> Ending) {
        let outcome = Outcome::new().unwrap();
        let alarm = Self::of(&outcome);
        let wait = move || loop {
            if let Some(ending) = lock(&outcome.ending).take() {
                return ending;
            }
            std::thread::yield_now();
        };
        (alarm, wait)
    }
}

type SharedPolicy = Arc<OnceLock<Option<Policy>>>;

/// A vCPU for its thread.
struct Adopted {
    vcpu: Vcpu,
    kicker: Arc<Kicker>,
    count: u8,
}

impl Adopted {
    fn new(vcpu: Vcpu, count: u8) -> Result<Self, Error> {
        let kicker = Arc::new(vcpu.kicker()?);
        Ok(Self {
            vcpu,
            kicker,
            count,
        })
    }

    /// Gives the vCPU its features. XCR0 is set too, although every guest does that itself: an emulated processor that has
    /// SVM (QEMU) lets a guest's `xsetbv` go by unseen, and KVM then undoes it.
    fn set_features(&self, policy: &Policy) -> Result<(), KvmError> {
        self.vcpu
            .set_cpuid(&policy.vcpu(self.vcpu.id(), self.count)?)?;
        if let Some(value) = policy.xcr0() {
            // Refused where a guest cannot have it: then it does not have it.
            let _ = self.vcpu.set_xcr0(value);
        }
        Ok(())
    }
}

/// The word to start.
struct Go {
    entry: Entry,
    bus: Arc<Bus>,
}

/// The first vCPU's thread before it runs.
pub struct FirstVcpu {
    kvm: Arc<Kvm>,
    outcome: Arc<Outcome>,
    policy: SharedPolicy,
    adopt: SyncSender<Adopted>,
    go: SyncSender<Go>,
    thread: JoinHandle<()>,
    kicker: Option<Arc<Kicker>>,
}

impl FirstVcpu {
    /// Starts the thread, which begins to ask `kvm` what it supports.
    pub fn spawn(kvm: Arc<Kvm>) -> Result<Self, Error> {
        signals::install_kick().map_err(Error::host("set up a signal"))?;
        let outcome = Outcome::new()?;
        let policy = SharedPolicy::default();
        let (adopt, adopted) = sync_channel(1);
        let (go, word) = sync_channel(1);
        let parts = (Arc::clone(&kvm), Arc::clone(&policy), Arc::clone(&outcome));
        let thread = thread(0, move || {
            let (kvm, policy, outcome) = parts;
            if let Some(ending) = first(&kvm, &policy, &adopted, &word) {
                outcome.announce(ending);
            }
        })?;
        Ok(Self {
            kvm,
            outcome,
            policy,
            adopt,
            go,
            thread,
            kicker: None,
        })
    }

    /// For those who work for the machine in threads of their own.
    pub fn alarm(&self) -> Alarm {
        Alarm::of(&self.outcome)
    }

    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// Gives the thread its vCPU, one of `count`.
    pub(super) fn adopt(&mut self, vcpu: Vcpu, count: u8) -> Result<(), Error> {
        let adopted = Adopted::new(vcpu, count)?;
        self.kicker = Some(Arc::clone(&adopted.kicker));
        // A thread that has ended announced why.
        let _ = self.adopt.send(adopted);
        Ok(())
    }

    /// Sets the machine going.
    pub(super) fn start(
        self,
        vm: Arc<Vm>,
        bus: Arc<Bus>,
        entry: Entry,
        others: Vec<Vcpu>,
    ) -> Result<Running, Error> {
        let _ = self.go.send(Go {
            entry,
            bus: Arc::clone(&bus),
        });
        let mut running = Running {
            vm,
            bus,
            outcome: self.outcome,
            kickers: self.kicker.into_iter().collect(),
            threads: vec![self.thread],
        };
        let count = others.len() as u8 + 1;
        for vcpu in others {
            running.spawn(vcpu, count, Arc::clone(&self.policy))?;
        }
        Ok(running)
    }
}

fn thread(id: u8, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    Builder::new()
        .name(format!("unik-vcpu{id}"))
        .stack_size(128 << 10)
        .spawn(body)
        .map_err(Error::host("start a thread"))
}

/// The first vCPU's life; `None` when it was kicked or its creator gave up.
fn first(
    kvm: &Kvm,
    shared: &SharedPolicy,
    adopted: &Receiver<Adopted>,
    word: &Receiver<Go>,
) -> Option<Ending> {
    let policy = match cpuid::supported(kvm) {
        Ok(offered) => shared.get_or_init(|| Some(Policy::new(&offered, cpuid::this_processor))),
        Err(error) => {
            shared.get_or_init(|| None);
            return Some(Ending::Host(error.into()));
        }
    };
    let policy = policy.as_ref()?;
    let adopted = adopted.recv().ok()?;
    if let Err(error) = adopted.set_features(policy) {
        return Some(Ending::Host(error.into()));
    }
    // While memory is being filled elsewhere: it takes as long as some hundred thousand instructions.
    if let Err(error) = confine(Kind::Vcpu) {
        return Some(Ending::Host(error));
    }
    let Go { entry, bus } = word.recv().ok()?;
    let vcpu = &adopted.vcpu;
    let entered = match entry {
        Entry::Pvh {
            address,
            placed,
            extended,
        } => {
            let xcr0 = policy.xcr0().filter(|_| extended);
            vcpu.enter_pvh(address, placed.start_info, placed.stack, xcr0)
        }
        Entry::Linux(LinuxStart::Long(start)) => vcpu.enter_long(&start),
        Entry::Linux(LinuxStart::Pvh {
            entry,
            start_info,
            stack,
        }) => vcpu.enter_pvh(entry, start_info, stack, None),
    };
    match entered {
        Ok(()) => run(adopted, &bus),
        Err(error) => Some(Ending::Host(error.into())),
    }
}

/// A running machine.
pub struct Running {
    /// The virtual machine.
    pub vm: Arc<Vm>,
    bus: Arc<Bus>,
    outcome: Arc<Outcome>,
    kickers: Vec<Arc<Kicker>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    fn spawn(&mut self, vcpu: Vcpu, count: u8, policy: SharedPolicy) -> Result<(), Error> {
        let id = vcpu.id();
        let adopted = Adopted::new(vcpu, count)?;
        self.kickers.push(Arc::clone(&adopted.kicker));
        let (bus, outcome) = (Arc::clone(&self.bus), Arc::clone(&self.outcome));
        let thread = thread(id, move || {
            let Some(policy) = policy.wait() else { return };
            let ready = adopted.set_features(policy).map_err(Error::from);
            let ending = match ready.and_then(|()| confine(Kind::Vcpu)) {
                Ok(()) => run(adopted, &bus),
                Err(error) => Some(Ending::Host(error)),
            };
            if let Some(ending) = ending {
                outcome.announce(ending);
            }
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// How often its vCPUs left the guest.
    pub fn exits(&self) -> Arc<Exits> {
        Arc::clone(&self.bus.exits)
    }

    /// Readable once the guest has ended.
    pub fn ended(&self) -> &EventFd {
        &self.outcome.announced
    }

    /// Stops every vCPU and returns how the guest ended, `None` when it was still running.
    pub fn stop(self) -> Option<Ending> {
        self.bus.give_up();
        self.kickers.iter().for_each(|kicker| kicker.kick());
        for thread in self.threads {
            let _ = thread.join();
        }
        self.bus.flush();
        lock(&self.outcome.ending).take()
    }
}

/// Runs one vCPU until the guest ends (`Some`) or it is kicked (`None`).
fn run(adopted: Adopted, bus: &Bus) -> Option<Ending> {
    let Adopted {
        mut vcpu, kicker, ..
    } = adopted;
    kicker.attach();
    loop {
        let exit = vcpu.run();
        exit.iter().for_each(|exit| bus.exits.count(exit));
        let cause = match exit {
            Ok(Exit::IoOut { port, data }) => match bus.port_write(port, data) {
                ControlFlow::Continue(()) => continue,
                ControlFlow::Break(value) => return Some(Ending::Exit(value)),
            },
            Ok(Exit::IoIn { port, data }) => {
                bus.port_read(port, data);
                continue;
            }
            Ok(Exit::MmioRead { addr, data }) => {
                bus.mmio_read(addr, data);
                continue;
            }
            Ok(Exit::MmioWrite { addr, data }) => {
                bus.mmio_write(addr, data);
                continue;
            }
            Ok(Exit::EndOfInterrupt(vector)) => {
                bus.end_of_interrupt(vector);
                continue;
            }
            Ok(Exit::Halted | Exit::Debug { .. }) => continue,
            Ok(Exit::Interrupted) if kicker.kicked() => return None,
            Ok(Exit::Interrupted) => continue,
            Ok(Exit::Shutdown) => CrashCause::TripleFault,
            Ok(Exit::InternalError(error)) => CrashCause::Internal(error),
            Ok(Exit::FailEntry(reason)) => CrashCause::Entry(reason),
            Ok(Exit::Unexpected(number)) => CrashCause::Unexpected(number),
            Err(error) => return Some(Ending::Host(error.into())),
        };
        let registers = Box::new(vcpu.registers());
        return Some(Ending::Crash {
            vcpu: vcpu.id(),
            cause,
            registers,
        });
    }
}
