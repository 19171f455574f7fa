//! The host's standard streams and the consoles that stand for them in the guest.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use unik_devices::console::{Console, RECEIVE, TRANSMIT};

use crate::config::Records;
use crate::error::Error;
use crate::input::Input;
use crate::machine::Machine;
use crate::machine::console::{ConsoleWindow, Outlet};
use crate::machine::slot::{Bell, Slot};
use crate::terminal;

/// Streams connected to a machine.
pub struct Streams {
    /// Standard input.
    pub input: Input,
    /// Standard output and standard error.
    pub outlets: Vec<Outlet>,
}

impl Streams {
    /// Attaches a console for standard input and output and one for standard error to `machine`, and says in `records` where
    /// they are. One thread carries both: a guest that waits until one is taken before it writes to the other keeps its lines in order.
    pub fn connect(machine: &mut Machine, records: &mut Records) -> Result<Self, Error> {
        let [stdin, stdout, stderr] = [
            own(io::stdin().as_fd())?,
            own(io::stdout().as_fd())?,
            own(io::stderr().as_fd())?,
        ];
        let size = terminal::size().unwrap_or_default();
        let console = attach(machine, "console", size, records)?;
        let errors = attach(machine, "console.err", size, records)?;
        let outlets = vec![
            Outlet::new(Arc::clone(&console), stdout, 1),
            Outlet::new(errors, stderr, 2),
        ];
        Ok(Self {
            input: Input::new(console, stdin),
            outlets,
        })
    }
}

/// A descriptor of our own for a standard stream, without the standard library's buffer.
fn own(stream: std::os::fd::BorrowedFd<'_>) -> Result<File, Error> {
    stream
        .try_clone_to_owned()
        .map(File::from)
        .map_err(Error::host("use a standard stream"))
}

fn attach(
    machine: &mut Machine,
    key: &str,
    size: (u16, u16),
    records: &mut Records,
) -> Result<Arc<ConsoleWindow>, Error> {
    let place = machine.next_place();
    records.add(key, format!("{:#x}", place.window));
    let bell = |queue| {
        Bell::new(Arc::clone(&machine.vm), place.window, queue)
            .map_err(Error::host("create an event"))
    };
    let (receive, transmit) = (bell(RECEIVE)?, bell(TRANSMIT)?);
    let mem = machine.ram.view().clone();
    let console = Arc::new(ConsoleWindow {
        slot: Slot::new(Console::new(size.0, size.1), mem, place.line),
        receive,
        transmit,
    });
    machine.attach(console.clone());
    Ok(console)
}
