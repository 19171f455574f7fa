//! Pipes and FIFOs: [`pipe`] makes an unnamed pair, [`Fifo`] is the shared middle that a FIFO's inode holds, [`PipeEnd`] is an open end.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use linux_raw_sys::{general as linux, ioctl};

use crate::anon;
use crate::file::{FileLike, OpenFile};
use crate::inode::{FileType, Metadata, Node};
use crate::system::{PAGE, System, Time, UserMemory};
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result};

/// Capacity of a new pipe.
pub const DEFAULT_SIZE: usize = 65536;
/// Writes up to this size are never torn (`PIPE_BUF`).
pub const ATOMIC: usize = linux::PIPE_BUF as usize;
/// Largest size F_SETPIPE_SZ grants.
const MAX_SIZE: usize = 1 << 24;

/// The middle of a pipe.
pub struct Fifo {
    ring: RefCell<VecDeque<u8>>,
    capacity: Cell<usize>,
    readers: Cell<u32>,
    writers: Cell<u32>,
    /// How often an end was opened, for opens that wait and for POLLHUP before the first writer.
    reader_opens: Cell<u64>,
    writer_opens: Cell<u64>,
    queue: WaitQueue,
    ino: u64,
    born: Time,
    /// Permissions of a pipe without a name.
    mode: Cell<u32>,
    me: Weak<Fifo>,
}

/// An open end (a FIFO opened with `O_RDWR` is both).
pub struct PipeEnd {
    fifo: Rc<Fifo>,
    reads: bool,
    writes: bool,
    /// The inode of a FIFO.
    node: Option<Node>,
    /// Writer opens (for a reader) or reader opens (for a writer) that had been seen when this end was opened.
    seen: u64,
    waits: Cell<bool>,
}

/// `pipe2`: the reading and the writing end. `flags` may hold `O_NONBLOCK`.
pub fn pipe(system: &Rc<dyn System>, flags: u32) -> (Rc<OpenFile>, Rc<OpenFile>) {
    let fifo = Fifo::new(system);
    let status = flags & (linux::O_NONBLOCK | linux::O_DIRECT);
    let read = fifo.end(None, true, false);
    let write = fifo.end(None, false, true);
    (
        OpenFile::new(read, status | linux::O_RDONLY),
        OpenFile::new(write, status | linux::O_WRONLY),
    )
}

impl Fifo {
    /// An empty pipe without ends.
    pub fn new(system: &Rc<dyn System>) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            ring: RefCell::default(),
            capacity: Cell::new(DEFAULT_SIZE),
            readers: Cell::new(0),
            writers: Cell::new(0),
            reader_opens: Cell::new(0),
            writer_opens: Cell::new(0),
            queue: WaitQueue::new(),
            ino: anon::next_ino(),
            born: system.now(),
            mode: Cell::new(0o600),
            me: me.clone(),
        })
    }

    /// `open` of the FIFO `node`. The answer may be [`FileLike::open_pending`].
    pub fn open(&self, node: Node, flags: u32) -> Result<Rc<dyn FileLike>> {
        let (reads, writes) = match flags & linux::O_ACCMODE {
            linux::O_RDONLY => (true, false),
            linux::O_WRONLY => (false, true),
            _ => (true, true),
        };
        let nonblocking = flags & linux::O_NONBLOCK != 0;
        if writes && !reads && nonblocking && self.readers.get() == 0 {
            return Err(Errno::ENXIO);
        }
        let fifo = self.me.upgrade().ok_or(Errno::ENXIO)?;
        let end = fifo.end(Some(node), reads, writes);
        let alone = if reads {
            self.writers.get() == 0
        } else {
            self.readers.get() == 0
        };
        end.waits.set(!nonblocking && alone);
        self.queue.wake(ready::IN | ready::OUT);
        Ok(end)
    }

    fn end(self: &Rc<Self>, node: Option<Node>, reads: bool, writes: bool) -> Rc<PipeEnd> {
        let seen = match (&node, reads) {
            (None, _) => u64::MAX,
            (_, true) => self.writer_opens.get(),
            (_, false) => self.reader_opens.get(),
        };
        if reads {
            self.readers.set(self.readers.get() + 1);
            self.reader_opens.set(self.reader_opens.get() + 1);
        }
        if writes {
            self.writers.set(self.writers.get() + 1);
            self.writer_opens.set(self.writer_opens.get() + 1);
        }
        Rc::new(PipeEnd {
            fifo: self.clone(),
            reads,
            writes,
            node,
            seen,
            waits: Cell::new(false),
        })
    }

    fn read(&self, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let mut ring = self.ring.borrow_mut();
        if ring.is_empty() {
            return if self.writers.get() == 0 {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let len = out.len().min(ring.len());
        let (front, back) = ring.as_slices();
        let split = front.len().min(len);
        out[..split].copy_from_slice(&front[..split]);
        out[split..len].copy_from_slice(&back[..len - split]);
        ring.drain(..len);
        drop(ring);
        self.queue.wake(ready::OUT | ready::WRNORM);
        Ok(len)
    }

    fn write(&self, data: &[u8]) -> Result<usize> {
        if self.readers.get() == 0 {
            return Err(Errno::EPIPE);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let room = self.room();
        if room == 0 || (data.len() <= ATOMIC && room < data.len()) {
            return Err(Errno::EAGAIN);
        }
        let len = data.len().min(room);
        self.ring.borrow_mut().extend(&data[..len]);
        self.queue.wake(ready::IN | ready::RDNORM);
        Ok(len)
    }

    fn room(&self) -> usize {
        self.capacity.get() - self.ring.borrow().len()
    }
}

impl PipeEnd {
    /// Bytes waiting to be read.
    pub fn available(&self) -> usize {
        self.fifo.ring.borrow().len()
    }

    /// F_GETPIPE_SZ.
    pub fn capacity(&self) -> usize {
        self.fifo.capacity.get()
    }

    /// F_SETPIPE_SZ: rounds up to a power of two of pages; answers the new size.
    pub fn set_capacity(&self, wanted: usize) -> Result<usize> {
        if wanted > MAX_SIZE {
            return Err(Errno::EINVAL);
        }
        let size = wanted.max(PAGE).next_power_of_two();
        if size < self.available() {
            return Err(Errno::EBUSY);
        }
        self.fifo.capacity.set(size);
        self.fifo.queue.wake(ready::OUT);
        Ok(size)
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let fifo = &self.fifo;
        if self.reads {
            fifo.readers.set(fifo.readers.get() - 1);
        }
        if self.writes {
            fifo.writers.set(fifo.writers.get() - 1);
        }
        if fifo.readers.get() == 0 && fifo.writers.get() == 0 {
            *fifo.ring.borrow_mut() = VecDeque::new();
        }
        fifo.queue
            .wake(ready::IN | ready::OUT | ready::ERR | ready::HUP);
    }
}

impl FileLike for PipeEnd {
    fn metadata(&self) -> Metadata {
        match &self.node {
            Some(node) => node.metadata(),
            None => anon::metadata(
                anon::PIPE_DEV,
                self.fifo.ino,
                FileType::Fifo.mode() | self.fifo.mode.get(),
                self.fifo.born,
            ),
        }
    }

    fn set_mode(&self, mode: u32) {
        self.fifo.mode.set(mode);
    }

    fn label(&self) -> Vec<u8> {
        format!("pipe:[{}]", self.fifo.ino).into_bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn node(&self) -> Option<Node> {
        self.node.clone()
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        self.fifo.read(out)
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        self.fifo.write(data)
    }

    fn poll(&self) -> u32 {
        let mut mask = 0;
        if self.reads {
            if self.available() > 0 {
                mask |= ready::IN | ready::RDNORM;
            }
            if self.fifo.writers.get() == 0 && self.fifo.writer_opens.get() != self.seen {
                mask |= ready::HUP;
            }
        }
        if self.writes {
            if self.fifo.room() >= ATOMIC {
                mask |= ready::OUT | ready::WRNORM;
            }
            if self.fifo.readers.get() == 0 {
                mask |= ready::ERR;
            }
        }
        mask
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.fifo.queue)
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        if command != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        memory.write(argument, &(self.available() as i32).to_ne_bytes())?;
        Ok(0)
    }

    fn reopen(&self, flags: u32) -> Result<Rc<dyn FileLike>> {
        let (reads, writes) = match flags & linux::O_ACCMODE {
            linux::O_RDONLY => (true, false),
            linux::O_WRONLY => (false, true),
            _ => (true, true),
        };
        Ok(self.fifo.end(self.node.clone(), reads, writes))
    }

    fn open_pending(&self) -> bool {
        if !self.waits.get() {
            return false;
        }
        let opens = if self.reads {
            self.fifo.writer_opens.get()
        } else {
            self.fifo.reader_opens.get()
        };
        self.waits.set(opens == self.seen);
        self.waits.get()
    }
}
