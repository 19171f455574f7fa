//! The host's standard input for the guest: read only while the guest waits for it.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read};
use std::sync::Arc;

use unik_host::poll::Watch;
use unik_host::terminal;

use crate::machine::console::ConsoleWindow;

/// Most bytes read at once.
const CHUNK: usize = 64 << 10;

/// Standard input on its way to a console.
pub struct Input {
    console: Arc<ConsoleWindow>,
    stream: File,
    terminal: bool,
    waiting: Vec<u8>,
    ended: bool,
}

/// What the input waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The guest posts buffers.
    Room,
    /// The host's stream has something.
    Data,
    /// The terminal belongs to another process group: look again in a while.
    Foreground,
}

impl Input {
    /// Connects `stream` to `console`.
    pub fn new(console: Arc<ConsoleWindow>, stream: File) -> Self {
        let terminal = stream.is_terminal();
        Self {
            console,
            stream,
            terminal,
            waiting: Vec::new(),
            ended: false,
        }
    }

    /// Rings when the guest posted buffers.
    pub fn bell(&self) -> Watch {
        Watch::readable(self.console.receive.event())
    }

    /// The host's stream.
    pub fn stream(&self) -> Watch {
        Watch::readable(&self.stream)
    }

    /// Passes on what waits, and says what is needed to go on.
    pub fn advance(&mut self) -> Wants {
        self.console.receive.clear();
        loop {
            self.flush();
            if self.wants() {
                return self.source();
            }
            // From here on the guest rings for the next buffer, unless one came just now.
            if !self.listen() {
                return Wants::Room;
            }
        }
    }

    /// Where the next bytes come from.
    fn source(&self) -> Wants {
        if self.ended {
            Wants::Room
        } else if self.terminal && terminal::in_background(&self.stream) {
            Wants::Foreground
        } else {
            Wants::Data
        }
    }

    fn listen(&self) -> bool {
        self.console
            .slot
            .with(|device, mem| device.listen_for_input(mem))
    }

    fn wants(&self) -> bool {
        self.console
            .slot
            .with(|device, mem| device.wants_input(mem))
    }

    fn flush(&mut self) {
        if !self.waiting.is_empty() {
            let waiting = &self.waiting;
            let taken = self
                .console
                .slot
                .with(|device, mem| device.give_input(mem, waiting));
            self.waiting.drain(..taken);
        } else if self.ended && self.wants() {
            self.console.slot.with(|device, mem| device.end_input(mem));
        }
    }

    /// Reads once from the stream, which was ready.
    pub fn read(&mut self) {
        if self.ended || !self.waiting.is_empty() {
            return;
        }
        let mut buffer = vec![0; CHUNK];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(n) => {
                buffer.truncate(n);
                self.waiting = buffer;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => self.ended = true,
        }
    }
}
