//! Waiting on files: a thread listens on their wait queues while it is blocked.

use super::{Wake, block, current_rc, thread::Thread, wake};
use alloc::rc::Rc;
use alloc::vec::Vec;
use unik_fs::wait::{Listener, Ticket, WaitQueue};

/// Wakes its thread when a file says something.
struct WakeThread(Rc<Thread>);

impl Listener for WakeThread {
    fn notify(&self, _mask: u32) {
        wake(&self.0, Wake::Event);
    }
}

/// Blocks until one of the queues speaks about its mask, the deadline (nanoseconds since boot) passes or a signal comes.
pub fn on_queues(queues: &[(&WaitQueue, u32)], deadline: Option<u64>) -> Wake {
    let Some(thread) = current_rc() else {
        return Wake::Event;
    };
    let listener: Rc<dyn Listener> = Rc::new(WakeThread(thread));
    let tickets: Vec<Ticket> = queues
        .iter()
        .map(|(queue, mask)| queue.add(&listener, *mask))
        .collect();
    let why = block(deadline, true);
    for ((queue, _), ticket) in queues.iter().zip(tickets) {
        queue.remove(ticket);
    }
    why
}
