//! Waiting without threads: [`WaitQueue`] tells its [`Listener`]s that a file's readiness may have changed.
//!
//! The kernel registers a listener that makes a thread runnable; an epoll instance registers one for each file of its
//! interest list. All calls happen under the kernel's one lock, so a caller that saw "would block", registered itself and
//! then released the lock cannot miss a wake-up.

use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// Readiness bits, the values of `poll(2)` and `epoll(7)` (they agree for all bits used here).
pub mod ready {
    /// Data to read.
    pub const IN: u32 = 0x1;
    /// Urgent data.
    pub const PRI: u32 = 0x2;
    /// Room to write.
    pub const OUT: u32 = 0x4;
    /// An error stands.
    pub const ERR: u32 = 0x8;
    /// The other side is gone.
    pub const HUP: u32 = 0x10;
    /// Not an open descriptor (`poll` only).
    pub const NVAL: u32 = 0x20;
    /// As [`IN`], the name `select` uses.
    pub const RDNORM: u32 = 0x40;
    /// As [`OUT`].
    pub const WRNORM: u32 = 0x100;
    /// The other side has shut its writing half.
    pub const RDHUP: u32 = 0x2000;
}

/// Told about changes of readiness.
pub trait Listener {
    /// The bits of `mask` may have become true. Called with the queue free for new registrations; must not block.
    fn notify(&self, mask: u32);
}

struct Entry {
    id: u64,
    mask: u32,
    exclusive: bool,
    listener: Weak<dyn Listener>,
}

/// Who wants to hear of one file. Listeners are held weakly: a dropped listener is forgotten at the next wake-up.
#[derive(Default)]
pub struct WaitQueue {
    entries: RefCell<Vec<Entry>>,
    next: Cell<u64>,
}

/// Names a registration, for [`WaitQueue::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            entries: RefCell::new(Vec::new()),
            next: Cell::new(0),
        }
    }

    /// Registers `listener` for changes of the bits in `mask` (ERR and HUP always count).
    pub fn add(&self, listener: &Rc<dyn Listener>, mask: u32) -> Ticket {
        self.insert(listener, mask, false)
    }

    /// As [`Self::add`], but a wake-up reaches only one of the exclusive listeners, in turn.
    pub fn add_exclusive(&self, listener: &Rc<dyn Listener>, mask: u32) -> Ticket {
        self.insert(listener, mask, true)
    }

    fn insert(&self, listener: &Rc<dyn Listener>, mask: u32, exclusive: bool) -> Ticket {
        let id = self.next.get();
        self.next.set(id + 1);
        let mask = mask | ready::ERR | ready::HUP;
        self.entries.borrow_mut().push(Entry {
            id,
            mask,
            exclusive,
            listener: Rc::downgrade(listener),
        });
        Ticket(id)
    }

    /// Undoes a registration; nothing happens when it is gone already.
    pub fn remove(&self, ticket: Ticket) {
        self.entries
            .borrow_mut()
            .retain(|entry| entry.id != ticket.0);
    }

    /// True when nobody listens.
    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Tells every interested listener, and the first interested exclusive one (which then goes to the end of the line).
    pub fn wake(&self, mask: u32) {
        if self.entries.borrow().is_empty() {
            return;
        }
        for listener in self.chosen(mask) {
            listener.notify(mask);
        }
    }

    fn chosen(&self, mask: u32) -> Vec<Rc<dyn Listener>> {
        let mut entries = self.entries.borrow_mut();
        let mut chosen = Vec::new();
        let mut turn = None;
        entries.retain(|entry| {
            let Some(listener) = entry.listener.upgrade() else {
                return false;
            };
            if entry.mask & mask != 0 && !(entry.exclusive && turn.is_some()) {
                if entry.exclusive {
                    turn = Some(entry.id);
                }
                chosen.push(listener);
            }
            true
        });
        if let Some(at) = turn.and_then(|id| entries.iter().position(|entry| entry.id == id)) {
            let entry = entries.remove(at);
            entries.push(entry);
        }
        chosen
    }
}
