//! `--control PATH`: a Unix socket that takes lines and answers each with one line.
//!
//! | line | answer |
//! |---|---|
//! | `balloon SIZE` | `ok`: the guest is asked to do without SIZE of its memory, `0` gives all of it back |
//! | `stats` | one line of JSON: target and size of the balloon, what the guest reported as free, the guest's own statistics |
//! | `power` | `ok`: the guest's power button was pressed |
//! | anything else | `error: ` and what is wrong |

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use unik_devices::balloon::{STATISTIC_NAMES, State};
use unik_host::poll::{self, Watch};
use unik_host::seccomp::{self, Kind};

use crate::cli::parse_size;
use crate::error::Error;
use crate::machine::balloon::BalloonWindow;
use crate::machine::interrupts::Line;
use crate::machine::socket::Socket;

/// The longest line.
const LINE: u64 = 128;

/// How long a client may take for a line; the next one waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be controlled.
pub struct Control {
    /// The balloon.
    pub balloon: Arc<BalloonWindow>,
    /// The power button.
    pub button: Line,
}

impl Control {
    /// Starts the thread that serves `socket`.
    pub fn serve(self, socket: &Socket) -> Result<(), Error> {
        let listener = socket.listener().map_err(Error::host("use a socket"))?;
        let name = std::thread::Builder::new().name("unik-control".into());
        name.stack_size(64 << 10)
            .spawn(move || {
                // What cannot be confined does not serve; the event loop says why.
                if seccomp::enter(Kind::Network).is_err() {
                    return;
                }
                while poll::wait(&mut [Watch::readable(&listener)], None).is_ok() {
                    match listener.accept() {
                        // A client that goes away or says nothing costs only its own answer.
                        Ok((stream, _)) => _ = self.converse(&stream),
                        Err(_) => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            })
            .map_err(Error::host("start a thread"))?;
        Ok(())
    }

    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        loop {
            let mut line = String::new();
            BufReader::with_capacity(1, stream.take(LINE)).read_line(&mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            let answer = self.obey(line.trim());
            { stream }.write_all(format!("{answer}\n").as_bytes())?;
        }
    }

    fn obey(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["balloon", size] => match parse_size(size) {
                Ok(bytes) => {
                    self.balloon.set_target(bytes);
                    "ok".into()
                }
                Err(error) => format!("error: `{size}` is no size: {error}"),
            },
            ["stats"] => json(&self.balloon.state()),
            ["power"] => {
                self.button.raise();
                "ok".into()
            }
            _ => format!(
                "error: `{}` is no command: there are balloon SIZE, stats, power",
                line.escape_debug()
            ),
        }
    }
}

fn json(state: &State) -> String {
    let (target, actual) = state.bytes();
    let mut out = format!(
        "{{\"balloon_target_bytes\":{target},\"balloon_bytes\":{actual},\"reported_free_bytes\":{}",
        state.reported()
    );
    for (name, value) in STATISTIC_NAMES.iter().zip(state.statistics()) {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(out, ",\"guest_{name}\":{value}");
        }
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_one_line_of_json() {
        let text = json(&State::default());
        assert_eq!(
            text,
            "{\"balloon_target_bytes\":0,\"balloon_bytes\":0,\"reported_free_bytes\":0}"
        );
    }
}
