//! Standard error, which may be a pipe that nobody reads: what is written there waits for room, but never keeps the monitor alive.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use unik_host::EventFd;
use unik_host::poll::{self, Watch};

/// A stream that has room takes at least so much without waiting (pipe(7), PIPE_BUF).
const PIECE: usize = 1024;

/// How long the monitor's own words may wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Standard error for the guest's early and last words. A vCPU waits in it until there is room, or until [`Self::give_up`].
#[derive(Clone)]
pub struct Errors {
    enough: Arc<EventFd>,
}

impl Errors {
    /// A way to standard error.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            enough: Arc::new(unik_host::event()?),
        })
    }

    /// From now on what finds no room is dropped, by all clones.
    pub fn give_up(&self) {
        // Writing fails only when the counter is full: then everybody knows.
        let _ = self.enough.write(1);
    }
}

impl Write for Errors {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut watches = [
            Watch::writable(&io::stderr()),
            Watch::readable(&*self.enough),
        ];
        poll::wait(&mut watches, None)?;
        if watches[0].ready {
            io::stderr().write(&data[..data.len().min(PIECE)])
        } else {
            Ok(data.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells the user something. Standard error may be closed, or nobody may read it.
pub fn say(text: &str) {
    let end = Instant::now() + PATIENCE;
    for piece in text.as_bytes().chunks(PIECE) {
        let mut room = [Watch::writable(&io::stderr())];
        let left = end.saturating_duration_since(Instant::now());
        let waited = poll::wait(&mut room, Some(left));
        if waited.is_err() || !room[0].ready || io::stderr().write_all(piece).is_err() {
            return;
        }
    }
}
