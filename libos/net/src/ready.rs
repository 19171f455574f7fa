//! Readiness bits of `poll(2)` and `epoll(7)`, and the [`Hook`] by which a socket says that they may have changed.

use alloc::rc::{Rc, Weak};
use core::cell::RefCell;

/// Data (or a connection, or the end) to read. With POLLRDNORM.
pub const IN: u32 = 0x1 | 0x40;
/// Urgent data.
pub const PRI: u32 = 0x2;
/// Room to write. With POLLWRNORM.
pub const OUT: u32 = 0x4 | 0x100;
/// An error stands.
pub const ERR: u32 = 0x8;
/// Both directions are over.
pub const HUP: u32 = 0x10;
/// The other side sends no more.
pub const RDHUP: u32 = 0x2000;

/// Told by a socket about changes of its readiness.
pub trait Hook {
    /// The bits of `mask` may have become true. The socket is not borrowed meanwhile: it may be asked for its readiness.
    fn wake(&self, mask: u32);
}

/// Where a socket keeps its hook.
#[derive(Default)]
pub(crate) struct HookSlot(RefCell<Option<Weak<dyn Hook>>>);

impl HookSlot {
    pub fn set(&self, hook: &Rc<dyn Hook>) {
        *self.0.borrow_mut() = Some(Rc::downgrade(hook));
    }

    pub fn wake(&self, mask: u32) {
        let hook = self.0.borrow().as_ref().and_then(Weak::upgrade);
        if let Some(hook) = hook {
            hook.wake(mask);
        }
    }
}
