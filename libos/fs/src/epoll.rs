//! `epoll(7)`: [`Epoll`], an interest list that collects the readiness of other files.
//!
//! Each interest (an `Item`) listens on its file's wait queue and puts itself on the ready list; [`Epoll::collect`] asks
//! the listed files for their state and keeps the level-triggered ones listed while they stay ready.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general as linux;

use crate::file::{FileLike, OpenFile};
use crate::inode::Metadata;
use crate::wait::{Listener, Ticket, WaitQueue, ready};
use crate::{Errno, Result, anon};

/// Report once per change.
pub const ET: u32 = 1 << 31;
/// Report once, then wait for EPOLL_CTL_MOD.
pub const ONESHOT: u32 = 1 << 30;
/// Accepted, without effect.
pub const WAKEUP: u32 = 1 << 29;
/// Wake one of several epolls.
pub const EXCLUSIVE: u32 = 1 << 28;
/// How deep epolls may watch epolls (`EP_MAX_NESTS`).
const MAX_NESTS: u32 = 4;
/// Bits that say how to report, not what.
const MODES: u32 = ET | ONESHOT | WAKEUP | EXCLUSIVE;
const EXCLUSIVE_ALLOWED: u32 =
    ready::IN | ready::OUT | ready::ERR | ready::HUP | ET | WAKEUP | EXCLUSIVE;

/// One reported event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `EPOLL*` bits.
    pub events: u32,
    /// The caller's word.
    pub data: u64,
}

/// An interest in one descriptor.
struct Item {
    file: Weak<OpenFile>,
    events: Cell<u32>,
    data: Cell<u64>,
    listed: Cell<bool>,
    epoll: Weak<Epoll>,
    ticket: Cell<Option<Ticket>>,
    me: Weak<Item>,
}

type Key = (i32, usize);

/// An epoll instance.
pub struct Epoll {
    items: RefCell<BTreeMap<Key, Rc<Item>>>,
    ready: RefCell<VecDeque<Rc<Item>>>,
    queue: WaitQueue,
    me: Weak<Epoll>,
}

impl Item {
    /// What the file is ready for, of what is wanted; 0 when it is gone or the interest is spent.
    fn state(&self) -> u32 {
        let events = self.events.get();
        if events & !MODES == 0 {
            return 0;
        }
        self.file.upgrade().map_or(0, |file| {
            file.object().poll() & (events | ready::ERR | ready::HUP)
        })
    }

    fn stop_listening(&self) {
        if let (Some(ticket), Some(file)) = (self.ticket.take(), self.file.upgrade())
            && let Some(queue) = file.object().wait_queue()
        {
            queue.remove(ticket);
        }
    }

    fn list(self: &Rc<Self>, epoll: &Epoll) {
        if !self.listed.replace(true) {
            epoll.ready.borrow_mut().push_back(self.clone());
        }
        epoll.queue.wake(ready::IN | ready::RDNORM);
    }
}

impl Listener for Item {
    fn notify(&self, mask: u32) {
        let (Some(item), Some(epoll)) = (self.me.upgrade(), self.epoll.upgrade()) else {
            return;
        };
        let wanted = self.events.get() & !MODES;
        if wanted != 0 && mask & (wanted | ready::ERR | ready::HUP) != 0 {
            item.list(&epoll);
        }
    }
}

impl Epoll {
    /// An empty instance.
    pub fn new() -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            items: RefCell::default(),
            ready: RefCell::default(),
            queue: WaitQueue::new(),
            me: me.clone(),
        })
    }

    /// `epoll_ctl`; `operation` is `EPOLL_CTL_*`. `EPERM` for a file that is always ready.
    pub fn control(
        &self,
        operation: u32,
        fd: i32,
        file: &Rc<OpenFile>,
        event: Event,
    ) -> Result<()> {
        if file.object().wait_queue().is_none() {
            return Err(Errno::EPERM);
        }
        let nested = file.downcast::<Self>();
        if nested.is_some_and(|other| core::ptr::eq(other, self)) {
            return Err(Errno::EINVAL);
        }
        if operation != linux::EPOLL_CTL_DEL && event.events & EXCLUSIVE != 0 {
            let allowed = operation == linux::EPOLL_CTL_ADD
                && nested.is_none()
                && event.events & !EXCLUSIVE_ALLOWED == 0;
            if !allowed {
                return Err(Errno::EINVAL);
            }
        }
        let key = (fd, Rc::as_ptr(file) as usize);
        match operation {
            linux::EPOLL_CTL_ADD => self.add(key, file, nested, event),
            linux::EPOLL_CTL_MOD => self.modify(key, event),
            linux::EPOLL_CTL_DEL => self.delete(key),
            _ => Err(Errno::EINVAL),
        }
    }

    fn add(
        &self,
        key: Key,
        file: &Rc<OpenFile>,
        nested: Option<&Self>,
        event: Event,
    ) -> Result<()> {
        if nested.is_some_and(|other| other.watches(self, 0) || other.depth(0) >= MAX_NESTS) {
            return Err(Errno::ELOOP);
        }
        self.forget_closed();
        if self.items.borrow().contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let item = Rc::new_cyclic(|me| Item {
            file: Rc::downgrade(file),
            events: Cell::new(event.events),
            data: Cell::new(event.data),
            listed: Cell::new(false),
            epoll: self.me.clone(),
            ticket: Cell::new(None),
            me: me.clone(),
        });
        let listener: Rc<dyn Listener> = item.clone();
        if let Some(queue) = file.object().wait_queue() {
            let ticket = if event.events & EXCLUSIVE != 0 {
                queue.add_exclusive(&listener, event.events)
            } else {
                queue.add(&listener, u32::MAX)
            };
            item.ticket.set(Some(ticket));
        }
        self.items.borrow_mut().insert(key, item.clone());
        self.list_if_ready(&item);
        Ok(())
    }

    fn modify(&self, key: Key, event: Event) -> Result<()> {
        let item = self
            .items
            .borrow()
            .get(&key)
            .cloned()
            .ok_or(Errno::ENOENT)?;
        if item.events.get() & EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        item.events.set(event.events);
        item.data.set(event.data);
        self.list_if_ready(&item);
        Ok(())
    }

    fn delete(&self, key: Key) -> Result<()> {
        let item = self.items.borrow_mut().remove(&key).ok_or(Errno::ENOENT)?;
        item.stop_listening();
        item.events.set(0);
        self.ready
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &item));
        Ok(())
    }

    fn list_if_ready(&self, item: &Rc<Item>) {
        if item.state() != 0 {
            item.list(self);
        }
    }

    /// Interests of files that were closed end with them.
    fn forget_closed(&self) {
        self.items
            .borrow_mut()
            .retain(|_, item| item.file.strong_count() > 0);
    }

    /// Up to `max` events that stand now; empty: wait on the queue and ask again.
    pub fn collect(&self, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        while events.len() < max {
            let Some(item) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            item.listed.set(false);
            let state = item.state();
            if state == 0 {
                continue;
            }
            events.push(Event {
                events: state,
                data: item.data.get(),
            });
            let how = item.events.get();
            if how & ONESHOT != 0 {
                item.events.set(how & MODES);
            } else if how & ET == 0 {
                again.push(item);
            }
        }
        for item in again {
            if !item.listed.replace(true) {
                self.ready.borrow_mut().push_back(item);
            }
        }
        events
    }

    /// Whether this instance watches `target`, directly or through others.
    fn watches(&self, target: &Self, level: u32) -> bool {
        self.nested(|other| {
            core::ptr::eq(other, target) || (level <= MAX_NESTS && other.watches(target, level + 1))
        })
    }

    /// Levels of epolls below this one.
    fn depth(&self, level: u32) -> u32 {
        let mut deepest = 0;
        self.nested(|other| {
            if level <= MAX_NESTS {
                deepest = deepest.max(other.depth(level + 1) + 1);
            }
            false
        });
        deepest
    }

    /// Whether `test` holds for any epoll among the interests.
    fn nested(&self, mut test: impl FnMut(&Self) -> bool) -> bool {
        let files: Vec<_> = self
            .items
            .borrow()
            .values()
            .filter_map(|item| item.file.upgrade())
            .collect();
        files
            .iter()
            .any(|file| file.downcast::<Self>().is_some_and(&mut test))
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in self.items.borrow().values() {
            item.stop_listening();
        }
    }
}

impl FileLike for Epoll {
    fn metadata(&self) -> Metadata {
        anon::event_metadata()
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:[eventpoll]".to_vec()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self) -> u32 {
        let listed: Vec<_> = self.ready.borrow().iter().cloned().collect();
        if listed.iter().any(|item| item.state() != 0) {
            ready::IN | ready::RDNORM
        } else {
            0
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
}
