//! Terminal and piped standard streams: [`Console`] over the kernel's [`ConsoleDevice`].
//!
//! Line editing, echo and signals of a terminal are the host terminal's work; this side moves bytes, keeps the `termios`
//! that the program sets, hands it to the device and answers the ioctls of `ioctl_tty(2)`.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use linux_raw_sys::ioctl;

use crate::file::FileLike;
use crate::inode::{FileType, Metadata, Node};
use crate::system::{Time, UserMemory};
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, anon};

/// Size of the kernel's `struct termios`.
pub const TERMIOS: usize = 36;
/// Size of the kernel's `struct termios2`: a `termios` and two speeds.
const TERMIOS2: usize = TERMIOS + 8;

/// A stream of bytes to and from the monitor.
pub trait ConsoleDevice {
    /// Takes what has arrived; `Ok(0)` at the end of input, `EAGAIN` when nothing is there yet.
    fn read(&self, out: &mut [u8]) -> Result<usize>;
    /// Sends; `EAGAIN` when the device is full.
    fn write(&self, data: &[u8]) -> Result<usize>;
    /// Bytes that [`Self::read`] would give now; `None`: the end of input.
    fn available(&self) -> Option<usize>;
    /// Whether [`Self::write`] would take something.
    fn writable(&self) -> bool {
        true
    }
    /// Woken when input arrives or room appears.
    fn queue(&self) -> &WaitQueue;
    /// The program changed the terminal's settings (a `struct termios` of the kernel).
    fn set_termios(&self, _termios: &[u8; TERMIOS]) {}
    /// Columns and rows.
    fn window(&self) -> (u16, u16) {
        (80, 24)
    }
}

/// Finds the inode of `/dev/console`. Asked when it is needed first, so that the file tree need not be there before.
pub type FindTerminal = Rc<dyn Fn() -> Option<Node>>;

/// One standard stream. On a terminal, input and output are the same device.
pub struct Console {
    device: Rc<dyn ConsoleDevice>,
    /// Finds the terminal's device node; `None`: the stream is not a terminal and looks like a pipe.
    terminal: Option<FindTerminal>,
    termios: RefCell<[u8; TERMIOS2]>,
    window: Cell<Option<(u16, u16)>>,
    group: Cell<i32>,
    ino: u64,
    born: Time,
}

/// Settings of a fresh terminal: cooked, echoing, 38400 baud (`tty_std_termios`).
fn standard_termios() -> [u8; TERMIOS2] {
    let mut bytes = [0; TERMIOS2];
    let words: [u32; 4] = [0x4500, 0x5, 0xbf, 0x8a3b];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let control: [u8; 19] = [
        3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0,
    ];
    bytes[17..36].copy_from_slice(&control);
    bytes[36..40].copy_from_slice(&38400u32.to_le_bytes());
    bytes[40..44].copy_from_slice(&38400u32.to_le_bytes());
    bytes
}

impl Console {
    /// A stream over `device`; with `terminal` it is a terminal.
    pub fn new(
        device: Rc<dyn ConsoleDevice>,
        terminal: Option<FindTerminal>,
        born: Time,
    ) -> Rc<Self> {
        let termios = RefCell::new(standard_termios());
        Rc::new(Self {
            device,
            terminal,
            termios,
            window: Cell::new(None),
            group: Cell::new(1),
            ino: anon::next_ino(),
            born,
        })
    }

    /// Whether this is a terminal.
    pub fn is_tty(&self) -> bool {
        self.terminal.is_some()
    }

    fn terminal_ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        match command {
            ioctl::TCGETS => memory.write(argument, &self.termios.borrow()[..TERMIOS])?,
            ioctl::TCGETS2 => memory.write(argument, &self.termios.borrow()[..])?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                self.set_termios(argument, memory, TERMIOS)?
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                self.set_termios(argument, memory, TERMIOS2)?
            }
            ioctl::TIOCGWINSZ => memory.write(argument, &self.window_bytes())?,
            ioctl::TIOCSWINSZ => {
                let mut bytes = [0; 8];
                memory.read(argument, &mut bytes)?;
                let word = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
                self.window.set(Some((word(2), word(0))));
            }
            ioctl::TIOCGPGRP => memory.write(argument, &self.group.get().to_le_bytes())?,
            ioctl::TIOCSPGRP => {
                let mut bytes = [0; 4];
                memory.read(argument, &mut bytes)?;
                self.group.set(i32::from_le_bytes(bytes));
            }
            ioctl::TIOCGSID => memory.write(argument, &1i32.to_le_bytes())?,
            ioctl::TIOCOUTQ => memory.write(argument, &0i32.to_le_bytes())?,
            ioctl::TIOCSCTTY
            | ioctl::TIOCNOTTY
            | ioctl::TCSBRK
            | ioctl::TCSBRKP
            | ioctl::TCXONC
            | ioctl::TCFLSH => {}
            ioctl::TIOCEXCL | ioctl::TIOCNXCL => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    fn set_termios(&self, argument: u64, memory: &dyn UserMemory, len: usize) -> Result<()> {
        let mut bytes = *self.termios.borrow();
        memory.read(argument, &mut bytes[..len])?;
        *self.termios.borrow_mut() = bytes;
        if let Some(termios) = bytes.first_chunk() {
            self.device.set_termios(termios);
        }
        Ok(())
    }

    fn window_bytes(&self) -> [u8; 8] {
        let (columns, rows) = self.window.get().unwrap_or_else(|| self.device.window());
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&rows.to_le_bytes());
        bytes[2..4].copy_from_slice(&columns.to_le_bytes());
        bytes
    }
}

impl FileLike for Console {
    fn metadata(&self) -> Metadata {
        match self.node() {
            Some(node) => node.metadata(),
            None => anon::metadata(
                anon::PIPE_DEV,
                self.ino,
                FileType::Fifo.mode() | 0o600,
                self.born,
            ),
        }
    }

    fn label(&self) -> Vec<u8> {
        if self.is_tty() {
            b"/dev/console".to_vec()
        } else {
            format!("pipe:[{}]", self.ino).into_bytes()
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn node(&self) -> Option<Node> {
        self.terminal.as_ref().and_then(|find| find())
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() {
            Ok(0)
        } else {
            self.device.read(out)
        }
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            Ok(0)
        } else {
            self.device.write(data)
        }
    }

    fn poll(&self) -> u32 {
        let input = match self.device.available() {
            None if self.is_tty() => ready::IN | ready::RDNORM,
            None => ready::HUP,
            Some(0) => 0,
            Some(_) => ready::IN | ready::RDNORM,
        };
        let output = if self.device.writable() {
            ready::OUT | ready::WRNORM
        } else {
            0
        };
        input | output
    }

    /// Input is looked at only for who asks for it: on a virtual console that means posting buffers to the device.
    fn poll_for(&self, events: u32) -> u32 {
        if events & (ready::IN | ready::RDNORM) != 0 {
            return self.poll();
        }
        if events & (ready::OUT | ready::WRNORM) != 0 && self.device.writable() {
            ready::OUT | ready::WRNORM
        } else {
            0
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.device.queue())
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        if command == ioctl::FIONREAD {
            let available = self.device.available().unwrap_or(0) as i32;
            return memory.write(argument, &available.to_le_bytes()).map(|()| 0);
        }
        if self.is_tty() {
            self.terminal_ioctl(command, argument, memory)
        } else {
            Err(Errno::ENOTTY)
        }
    }

    fn reopen(&self, _flags: u32) -> Result<Rc<dyn FileLike>> {
        let again = Self::new(self.device.clone(), self.terminal.clone(), self.born);
        Ok(again)
    }
}
