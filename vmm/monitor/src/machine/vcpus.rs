//! vCPU threads: run, dispatch, report how it ended, stop together.

use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use unik_host::EventFd;
use unik_host::kvm::{KvmError, Vm};
use unik_host::signals;
use unik_host::vcpu::{Exit, InternalError, Kicker, Registers, Vcpu};

use super::bus::Bus;
use crate::error::Error;

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
    /// The host failed.
    Host(KvmError),
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

/// Where the first ending is kept and announced.
struct Outcome {
    ending: Mutex<Option<Ending>>,
    announced: EventFd,
}

impl Outcome {
    fn announce(&self, ending: Ending) {
        self.ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(ending);
        // Writing fails only when the counter is full: then it is announced already.
        let _ = self.announced.write(1);
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
    /// Starts a thread for each vCPU.
    pub(super) fn start(vm: Arc<Vm>, bus: Arc<Bus>, vcpus: Vec<Vcpu>) -> Result<Self, Error> {
        signals::install_kick().map_err(Error::host("set up a signal"))?;
        let announced = EventFd::new(EFD_NONBLOCK).map_err(Error::host("create an event"))?;
        let outcome = Arc::new(Outcome {
            ending: Mutex::new(None),
            announced,
        });
        let mut running = Self {
            vm,
            bus,
            outcome,
            kickers: Vec::new(),
            threads: Vec::new(),
        };
        for vcpu in vcpus {
            running.spawn(vcpu)?;
        }
        Ok(running)
    }

    fn spawn(&mut self, mut vcpu: Vcpu) -> Result<(), Error> {
        let kicker = Arc::new(vcpu.kicker()?);
        self.kickers.push(Arc::clone(&kicker));
        let (bus, outcome) = (Arc::clone(&self.bus), Arc::clone(&self.outcome));
        let thread = std::thread::Builder::new()
            .name(format!("unik-vcpu{}", vcpu.id()))
            .stack_size(128 << 10)
            .spawn(move || {
                kicker.attach();
                if let Some(ending) = run(&mut vcpu, &bus) {
                    outcome.announce(ending);
                }
            })
            .map_err(Error::host("start a thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Readable once the guest has ended.
    pub fn ended_fd(&self) -> RawFd {
        self.outcome.announced.as_raw_fd()
    }

    /// Stops every vCPU and returns how the guest ended, `None` when it was still running.
    pub fn stop(self) -> Option<Ending> {
        self.kickers.iter().for_each(|kicker| kicker.kick());
        for thread in self.threads {
            let _ = thread.join();
        }
        self.bus.flush();
        self.outcome
            .ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

const EFD_NONBLOCK: i32 = 0o4000;

/// Runs one vCPU until the guest ends (`Some`) or it is kicked (`None`).
fn run(vcpu: &mut Vcpu, bus: &Bus) -> Option<Ending> {
    loop {
        let cause = match vcpu.run() {
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
            Ok(Exit::EndOfInterrupt(_) | Exit::Halted | Exit::Debug { .. }) => continue,
            Ok(Exit::Interrupted) => return None,
            Ok(Exit::Shutdown) => CrashCause::TripleFault,
            Ok(Exit::InternalError(error)) => CrashCause::Internal(error),
            Ok(Exit::FailEntry(reason)) => CrashCause::Entry(reason),
            Ok(Exit::Unexpected(number)) => CrashCause::Unexpected(number),
            Err(error) => return Some(Ending::Host(error)),
        };
        let registers = Box::new(vcpu.registers());
        return Some(Ending::Crash {
            vcpu: vcpu.id(),
            cause,
            registers,
        });
    }
}
