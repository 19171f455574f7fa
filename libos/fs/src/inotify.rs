//! `inotify(7)`: [`Inotify`], a queue of what happened to watched files, and [`Watchers`], all queues that want to hear.
//!
//! [`crate::vfs::Vfs`] and [`crate::file::OpenFile`] tell the [`Watchers`] of everything they do; while nobody watches that costs one
//! look at a counter. A file is known by its device and inode number. An object whose last name goes is reported as deleted at
//! once, even while it is open; writes through memory mappings are not reported (nor does Linux).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use linux_raw_sys::{general as linux, ioctl};

use crate::file::FileLike;
use crate::inode::{FileType, Inode, Metadata, Node};
use crate::system::UserMemory;
use crate::wait::{WaitQueue, ready};
use crate::{Errno, Result, anon};

/// Every event that can be watched for.
const EVENTS: u32 = linux::IN_ALL_EVENTS;
/// Events that wait at most (`fs.inotify.max_queued_events`).
const MOST_EVENTS: usize = 16_384;
/// Bytes of an event without its name.
const HEADER: usize = 16;

#[derive(Clone, PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// Bytes of the name: with its NUL, filled up to a multiple of the header.
    fn name_len(&self) -> usize {
        match self.name.len() {
            0 => 0,
            len => (len + 1).next_multiple_of(HEADER),
        }
    }

    fn len(&self) -> usize {
        HEADER + self.name_len()
    }

    fn put(&self, out: &mut [u8]) {
        let words = [
            self.watch as u32,
            self.mask,
            self.cookie,
            self.name_len() as u32,
        ];
        for (to, word) in out.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        out[HEADER..].fill(0);
        out[HEADER..HEADER + self.name.len()].copy_from_slice(&self.name);
    }
}

struct Watch {
    file: (u64, u64),
    mask: u32,
}

/// A queue of events, with the watches that fill it.
pub struct Inotify {
    watchers: Rc<Watchers>,
    watches: RefCell<BTreeMap<i32, Watch>>,
    next: Cell<i32>,
    events: RefCell<VecDeque<Event>>,
    queue: WaitQueue,
}

impl Inotify {
    /// An empty queue that hears of what `watchers` hear.
    pub fn new(watchers: &Rc<Watchers>) -> Rc<Self> {
        let new = Rc::new(Self {
            watchers: watchers.clone(),
            watches: RefCell::default(),
            next: Cell::new(1),
            events: RefCell::default(),
            queue: WaitQueue::new(),
        });
        watchers.queues.borrow_mut().push(Rc::downgrade(&new));
        new
    }

    /// Watches `node` for the events in `mask`, or changes what is watched for; the watch's number.
    pub fn add(&self, node: &dyn Inode, mask: u32) -> Result<i32> {
        if mask & EVENTS == 0 {
            return Err(Errno::EINVAL);
        }
        let file = (node.dev(), node.ino());
        let mut watches = self.watches.borrow_mut();
        if let Some((&number, watch)) = watches.iter_mut().find(|(_, w)| w.file == file) {
            if mask & linux::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let kept = if mask & linux::IN_MASK_ADD == 0 {
                0
            } else {
                watch.mask
            };
            watch.mask = kept | mask;
            return Ok(number);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        watches.insert(number, Watch { file, mask });
        self.watchers.count.set(self.watchers.count.get() + 1);
        Ok(number)
    }

    /// Ends a watch.
    pub fn remove(&self, number: i32) -> Result<()> {
        let gone = self.watches.borrow_mut().remove(&number);
        gone.ok_or(Errno::EINVAL)?;
        self.watchers.count.set(self.watchers.count.get() - 1);
        self.add_event(number, linux::IN_IGNORED, 0, &[]);
        Ok(())
    }

    fn tell(&self, file: (u64, u64), mask: u32, cookie: u32, name: &[u8]) {
        let found = self
            .watches
            .borrow()
            .iter()
            .find(|(_, watch)| watch.file == file)
            .map(|(&number, watch)| (number, watch.mask));
        let Some((number, wanted)) = found else {
            return;
        };
        if wanted & mask & EVENTS != 0 {
            self.add_event(number, mask, cookie, name);
        }
        let once = wanted & linux::IN_ONESHOT != 0 && wanted & mask & EVENTS != 0;
        if once || mask & linux::IN_DELETE_SELF != 0 {
            let _ = self.remove(number);
        }
    }

    fn add_event(&self, watch: i32, mask: u32, cookie: u32, name: &[u8]) {
        let mut events = self.events.borrow_mut();
        let (watch, mask) = match events.len() {
            MOST_EVENTS => (-1, linux::IN_Q_OVERFLOW),
            _ => (watch, mask),
        };
        let name = if watch < 0 { Vec::new() } else { name.to_vec() };
        let event = Event {
            watch,
            mask,
            cookie,
            name,
        };
        if events.len() > MOST_EVENTS || events.back() == Some(&event) {
            return;
        }
        events.push_back(event);
        drop(events);
        self.queue.wake(ready::IN | ready::RDNORM);
    }
}

impl FileLike for Inotify {
    fn metadata(&self) -> Metadata {
        anon::event_metadata()
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:inotify".to_vec()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    /// Whole events, as many as fit.
    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        let mut events = self.events.borrow_mut();
        let mut used = 0;
        while let Some(event) = events.front() {
            let end = used + event.len();
            let Some(place) = out.get_mut(used..end) else {
                break;
            };
            event.put(place);
            used = end;
            events.pop_front();
        }
        match used {
            0 if events.is_empty() => Err(Errno::EAGAIN),
            0 => Err(Errno::EINVAL),
            used => Ok(used),
        }
    }

    fn write(&self, _at: u64, _data: &[u8]) -> Result<usize> {
        Err(Errno::EBADF)
    }

    fn poll(&self) -> u32 {
        match self.events.borrow().is_empty() {
            true => 0,
            false => ready::IN | ready::RDNORM,
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        if command != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes: usize = self.events.borrow().iter().map(Event::len).sum();
        memory.write(argument, &(bytes as i32).to_ne_bytes())?;
        Ok(0)
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let count = self.watchers.count.get() - self.watches.borrow().len();
        self.watchers.count.set(count);
    }
}

/// Everybody who wants to hear of files.
#[derive(Default)]
pub struct Watchers {
    queues: RefCell<Vec<Weak<Inotify>>>,
    /// Watches in all queues.
    count: Cell<usize>,
    cookie: Cell<u32>,
}

impl Watchers {
    /// Whether anything is watched.
    pub fn any(&self) -> bool {
        self.count.get() > 0
    }

    /// Something happened to `node`: tells those who watch it, and those who watch the directory it is in.
    pub fn tell(&self, node: &Node, mask: u32) {
        if !self.any() {
            return;
        }
        let mask = mask | directory_bit(node.kind());
        if let Some((parent, name)) = node.place() {
            self.send(&*parent, mask, 0, &name);
        }
        self.send(&**node, mask, 0, &[]);
    }

    /// A name was made in `directory`, or removed there.
    pub fn tell_name(&self, directory: &Node, name: &[u8], kind: FileType, mask: u32) {
        if self.any() {
            self.send(&**directory, mask | directory_bit(kind), 0, name);
        }
    }

    /// `node` is no longer `from` but `to`, a name in a directory.
    pub fn tell_moved(&self, node: &Node, from: (&Node, &[u8]), to: (&Node, &[u8])) {
        if !self.any() {
            return;
        }
        let cookie = self.cookie.get().wrapping_add(1).max(1);
        self.cookie.set(cookie);
        let bit = directory_bit(node.kind());
        self.send(&**from.0, linux::IN_MOVED_FROM | bit, cookie, from.1);
        self.send(&**to.0, linux::IN_MOVED_TO | bit, cookie, to.1);
        self.send(&**node, linux::IN_MOVE_SELF, 0, &[]);
    }

    /// `node` lost or won a name: the last one may be gone.
    pub fn tell_links(&self, node: &Node) {
        if !self.any() {
            return;
        }
        if node.kind() != FileType::Directory {
            self.send(&**node, linux::IN_ATTRIB, 0, &[]);
        }
        if node.metadata().nlink == 0 {
            self.send(&**node, linux::IN_DELETE_SELF, 0, &[]);
        }
    }

    fn send(&self, node: &dyn Inode, mask: u32, cookie: u32, name: &[u8]) {
        let mut queues = self.queues.borrow_mut();
        queues.retain(|queue| queue.strong_count() > 0);
        let queues: Vec<_> = queues.iter().filter_map(Weak::upgrade).collect();
        for queue in queues {
            queue.tell((node.dev(), node.ino()), mask, cookie, name);
        }
    }
}

fn directory_bit(kind: FileType) -> u32 {
    match kind {
        FileType::Directory => linux::IN_ISDIR,
        _ => 0,
    }
}
