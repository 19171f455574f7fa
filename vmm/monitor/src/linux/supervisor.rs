//! The event loop of a Linux guest: its end, signals, the terminal.
//!
//! A signal presses the power button; a second one, or [`PATIENCE`] without an end, stops the guest. On a terminal Ctrl-A x
//! ends it at once, and Ctrl-A twice sends one Ctrl-A.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unik_host::poll::{self, Watch};
use unik_host::seccomp::Kind;
use unik_host::signals::SignalFd;
use unik_host::terminal::{self, Raw};

use super::power::End;
use super::serial::SerialLine;
use crate::control::LastWords;
use crate::error::Error;
use crate::errors::say;
use crate::exit_codes;
use crate::machine;
use crate::machine::interrupts::Line;
use crate::machine::vcpus::{Ending, Running};
use crate::report;

/// How long a guest may take to switch itself off.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long the last output may take once the guest has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// How often a process in the background looks whether its terminal came back.
const FOREGROUND_CHECK: Duration = Duration::from_millis(200);

/// Starts a command on a terminal.
const ESCAPE: u8 = 1;

/// Most bytes read at once.
const CHUNK: usize = 4096;

/// Everything the loop looks at.
pub struct Supervisor {
    running: Running,
    serial: Arc<SerialLine>,
    button: Line,
    stdin: File,
    raw: Option<Raw>,
    waiting: Vec<u8>,
    escaped: bool,
    input_ended: bool,
    pressed: Option<(Instant, u8)>,
}

impl Supervisor {
    /// Takes over the standard streams for a running machine.
    pub fn new(running: Running, serial: Arc<SerialLine>, button: Line) -> Result<Self, Error> {
        // The guest is starting meanwhile. The serial line's thread inherits it.
        machine::confine(Kind::EventLoop)?;
        let own = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map(File::from)
                .map_err(Error::host("use a standard stream"))
        };
        let (stdin, stdout) = (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?);
        serial
            .outbox()
            .carry_to(stdout)
            .map_err(Error::host("start a thread"))?;
        let raw = if stdin.is_terminal() && !terminal::in_background(&stdin) {
            Raw::enter(&stdin)
        } else {
            None
        };
        Ok(Self {
            running,
            serial,
            button,
            stdin,
            raw,
            waiting: Vec::new(),
            escaped: false,
            input_ended: false,
            pressed: None,
        })
    }

    /// Serves the guest until it ends; returns the exit code.
    pub fn watch(mut self, mut signals: SignalFd) -> Result<u8, Error> {
        // While the guest starts. Reading the kernel's headers and writing its tables needed more than what comes will.
        unik_host::limits::give_back_start();
        let stopped = loop {
            self.pass_on();
            let background = self.stdin.is_terminal() && terminal::in_background(&self.stdin);
            let listen = self.waiting.is_empty() && !self.input_ended && !background;
            let mut watches = [
                Watch::readable(self.running.ended()),
                Watch::readable(&signals),
                Watch::readable(&self.stdin).only_if(listen),
                Watch::readable(self.serial.room()).only_if(!self.waiting.is_empty()),
            ];
            poll::wait(&mut watches, self.timeout(background))
                .map_err(Error::host("wait for events"))?;
            if watches[0].ready {
                break None;
            }
            if let Some(ending) = self.signals(&mut signals) {
                break Some(ending);
            }
            if watches[2].ready && self.read() {
                break Some(Ending::Stopped(0));
            }
        };
        Ok(self.finish(stopped))
    }

    fn timeout(&self, background: bool) -> Option<Duration> {
        let patience = self
            .pressed
            .map(|(at, _)| (at + PATIENCE).saturating_duration_since(Instant::now()));
        [background.then_some(FOREGROUND_CHECK), patience]
            .into_iter()
            .flatten()
            .min()
    }

    /// Hands waiting input to the guest.
    fn pass_on(&mut self) {
        let _ = self.serial.room().read();
        let taken = self.serial.receive(&self.waiting);
        self.waiting.drain(..taken);
    }

    fn signals(&mut self, signals: &mut SignalFd) -> Option<Ending> {
        while let Some(signal) = signals.take() {
            let signal = signal as u8;
            if self.pressed.is_some() {
                return Some(Ending::Stopped(signal));
            }
            self.pressed = Some((Instant::now(), signal));
            self.button.raise();
            say("unik: pressed the guest's power button; a second signal ends it at once\r\n");
        }
        let late = self.pressed.filter(|(at, _)| at.elapsed() >= PATIENCE);
        late.map(|(_, signal)| Ending::Stopped(signal))
    }

    /// Reads once from standard input; `true`: the user wants the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; CHUNK];
        match self.stdin.read(&mut buffer) {
            Ok(0) => self.input_ended = true,
            Ok(n) if self.raw.is_some() => return buffer[..n].iter().any(|&byte| self.key(byte)),
            Ok(n) => self.waiting.extend_from_slice(&buffer[..n]),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => self.input_ended = true,
        }
        false
    }

    /// A key on the terminal; `true`: end.
    fn key(&mut self, byte: u8) -> bool {
        match (std::mem::take(&mut self.escaped), byte) {
            (true, b'x') => return true,
            (false, ESCAPE) => self.escaped = true,
            _ => self.waiting.push(byte),
        }
        false
    }

    fn finish(self, stopped: Option<Ending>) -> u8 {
        if stopped.is_some() {
            self.serial.outbox().close();
        }
        let seen = self.running.stop();
        self.serial.outbox().finish(LAST_OUTPUT);
        drop(self.raw);
        let (text, code) = words(&stopped.or(seen).unwrap_or(Ending::Vanished));
        say(&text);
        code
    }
}

/// How it ended, as words and as an exit code.
fn words(ending: &Ending) -> (String, u8) {
    match ending {
        Ending::Exit(value) => match End::from_u32(*value) {
            Some(End::Off) => (String::new(), 0),
            Some(End::Reset) => (String::new(), exit_codes::GUEST_RESET),
            Some(End::Panic) | None => (
                "unik: the guest's kernel panicked\n".into(),
                exit_codes::CRASH,
            ),
        },
        Ending::Stopped(0) => (
            "unik: ended from the terminal\n".into(),
            exit_codes::STOPPED,
        ),
        Ending::Stopped(signal) => (
            format!("unik: the guest was stopped by signal {signal}\n"),
            exit_codes::signal(*signal),
        ),
        other => {
            let words = LastWords::default();
            let context = report::Context {
                name: "the guest",
                words: &words,
                symbol: &|_| None,
                quiet: false,
            };
            let report = context.report(other);
            (report.text, report.code)
        }
    }
}
