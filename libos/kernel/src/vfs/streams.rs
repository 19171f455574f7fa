//! Standard input, output and error: [`Stream`] is one direction pair on the virtio consoles.

use crate::errno::{Errno, Result};
use crate::{config, console, power, time};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use linux_raw_sys::general as linux;
use unik_fs::console::{Console, ConsoleDevice, FindTerminal};
use unik_fs::fdtable::FdTable;
use unik_fs::file::OpenFile;
use unik_fs::system::Time;
use unik_fs::vfs::AT_FDCWD;
use unik_fs::wait::WaitQueue;

/// Bytes of input taken ahead of a read, to know how many there are.
const LOOK_AHEAD: usize = 4096;

/// Input that was looked at and not read yet; shared by all streams, as there is one standard input.
#[derive(Default)]
struct Input {
    bytes: RefCell<VecDeque<u8>>,
    ended: Cell<bool>,
}

/// A console as a byte stream: reads standard input, writes console `output` (0 or 1) for descriptor `fd`.
struct Stream {
    input: Rc<Input>,
    output: usize,
    fd: u32,
    queues: Rc<console::Queues>,
}

/// Opens descriptors 0, 1 and 2. The answer is the terminal that `/dev/tty` stands for: the first of them that is one.
pub fn open(fds: &FdTable) -> Option<Rc<Console>> {
    let mut first = None;
    let born = Time::from_ns(time::realtime());
    let input: Rc<Input> = Rc::default();
    for fd in 0..3u32 {
        let output = if fd == 2 { 1 } else { 0 };
        let device = Rc::new(Stream {
            input: input.clone(),
            output,
            fd,
            queues: console::queues(),
        });
        let terminal: Option<FindTerminal> =
            config::get().tty[fd as usize].then(|| Rc::new(terminal_node) as FindTerminal);
        let access = match (terminal.is_some(), fd) {
            (true, _) => linux::O_RDWR,
            (false, 0) => linux::O_RDONLY,
            (false, _) => linux::O_WRONLY,
        };
        let console = Console::new(device, terminal, born);
        if first.is_none() && console.is_tty() {
            first = Some(console.clone());
        }
        let _ = fds.insert(OpenFile::new(console, access), false);
    }
    first
}

fn terminal_node() -> Option<unik_fs::Node> {
    super::vfs()
        .find(AT_FDCWD, b"/dev/console", 0)
        .ok()?
        .into_node()
        .ok()
}

impl Stream {
    fn hung_up(&self) -> bool {
        // SAFETY: the control page is mapped for ever; the monitor sets bits of this field, which is read as one word.
        let hangups = unsafe { (&raw const (*power::control_page()).hangups).read_volatile() };
        self.fd > 0 && hangups >> self.fd & 1 == 1
    }
}

impl ConsoleDevice for Stream {
    fn read(&self, out: &mut [u8]) -> Result<usize> {
        let mut ahead = self.input.bytes.borrow_mut();
        if !ahead.is_empty() {
            let len = out.len().min(ahead.len());
            out[..len]
                .iter_mut()
                .zip(ahead.drain(..len))
                .for_each(|(to, from)| *to = from);
            return Ok(len);
        }
        if self.input.ended.get() {
            return Ok(0);
        }
        console::read(out).ok_or(Errno::EAGAIN)
    }

    fn write(&self, data: &[u8]) -> Result<usize> {
        if self.hung_up() {
            return Err(Errno::EPIPE);
        }
        loop {
            match console::write(self.output, data) {
                // Asking for room arms the interrupt that ends the wait; the device may have made some meanwhile.
                0 if !console::writable(self.output) => return Err(Errno::EAGAIN),
                0 => {}
                taken => return Ok(taken),
            }
        }
    }

    fn available(&self) -> Option<usize> {
        let mut ahead = self.input.bytes.borrow_mut();
        if ahead.is_empty() && !self.input.ended.get() {
            let mut look = alloc::vec![0; LOOK_AHEAD];
            match console::read(&mut look) {
                None => return Some(0),
                Some(0) => self.input.ended.set(true),
                Some(len) => ahead.extend(&look[..len]),
            }
        }
        if ahead.is_empty() {
            None
        } else {
            Some(ahead.len())
        }
    }

    fn writable(&self) -> bool {
        self.hung_up() || console::writable(self.output)
    }

    fn queue(&self) -> &WaitQueue {
        &self.queues.0[self.output]
    }

    fn window(&self) -> (u16, u16) {
        match config::get().winsize {
            (0, _) | (_, 0) => (80, 24),
            window => window,
        }
    }
}
