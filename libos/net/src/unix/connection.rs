//! Listening, connecting, accepting, shutting down and closing.

use super::{Key, Kind, SOMAXCONN, State, UnixSocket};
use crate::addr::UnixName;
use crate::errno::{Errno, Result};
use crate::message::Credentials;
use crate::ready;
use crate::unix::InodeKey;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;

/// Whom a connection or a message goes to: a name, and for a path the inode that the kernel found there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name as the caller gave it.
    pub name: UnixName,
    /// The socket inode, for a path.
    pub inode: Option<InodeKey>,
}

impl UnixSocket {
    /// `listen`. A second call changes the backlog.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: a datagram socket. `EINVAL`: not bound, or connected.
    pub fn listen(&self, backlog: u32) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut inner = self.inner.borrow_mut();
        if inner.key.is_none() {
            return Err(Errno::EINVAL);
        }
        let wanted = backlog.min(SOMAXCONN) as usize;
        match &mut inner.state {
            State::Listening { backlog, .. } => *backlog = wanted,
            State::Idle => {
                inner.state = State::Listening {
                    backlog: wanted,
                    queue: VecDeque::new(),
                    waiting: Vec::new(),
                };
                inner.peer_credentials = Some(self.owner);
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// `accept`: the oldest waiting connection and its name.
    ///
    /// # Errors
    /// `EAGAIN`: none. `EINVAL`: not listening. `EOPNOTSUPP`: a datagram socket.
    pub fn accept(&self) -> Result<(Rc<Self>, UnixName)> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut inner = self.inner.borrow_mut();
        let shut = inner.shut_read;
        let State::Listening { queue, waiting, .. } = &mut inner.state else {
            return Err(Errno::EINVAL);
        };
        let Some(accepted) = queue.pop_front() else {
            return Err(if shut { Errno::EINVAL } else { Errno::EAGAIN });
        };
        let woken = core::mem::take(waiting);
        drop(inner);
        wake_all(&woken, ready::OUT);
        let name = accepted.inner.borrow().peer_name.clone();
        Ok((accepted, name))
    }

    fn find(&self, target: &Target) -> Result<Rc<Self>> {
        let key = match (&target.name, target.inode) {
            (UnixName::Abstract(name), _) => Key::Abstract(name.clone()),
            (UnixName::Path(_), Some(inode)) => Key::Inode(inode),
            _ => return Err(Errno::EINVAL),
        };
        let found = self.space.lookup(&key).ok_or(Errno::ECONNREFUSED)?;
        if found.kind == self.kind {
            Ok(found)
        } else {
            Err(Errno::EPROTOTYPE)
        }
    }

    /// The datagram socket that `target` names.
    pub(super) fn find_receiver(&self, target: &Target) -> Result<Rc<Self>> {
        self.find(target)
    }

    /// `connect`. For datagram sockets this sets the peer; `None` (AF_UNSPEC) dissolves it.
    ///
    /// # Errors
    /// `EAGAIN`: the queue of the listener is full (readiness changes when it may work). `ECONNREFUSED`, `EPROTOTYPE`, `EISCONN`, `EINVAL`.
    pub fn connect(self: &Rc<Self>, target: Option<&Target>) -> Result<()> {
        let Some(target) = target else {
            return self.disconnect();
        };
        if self.kind == Kind::Datagram {
            let peer = self.find(target)?;
            let name = peer.local_name();
            self.inner.borrow_mut().join(&peer, name, peer.owner);
            return Ok(());
        }
        match self.inner.borrow().state {
            State::Idle => {}
            State::Connected(_) => return Err(Errno::EISCONN),
            _ => return Err(Errno::EINVAL),
        }
        let listener = self.find(target)?;
        self.join_queue(&listener)?;
        listener.hook.wake(ready::IN);
        self.hook.wake(ready::OUT);
        Ok(())
    }

    /// Puts a new socket, joined with `self`, into the queue of `listener`.
    fn join_queue(self: &Rc<Self>, listener: &Rc<Self>) -> Result<()> {
        let mut there = listener.inner.borrow_mut();
        if there.shut_read {
            return Err(Errno::ECONNREFUSED);
        }
        let listener_name = there.name.clone();
        let send_buffer = there.send_buffer;
        let State::Listening {
            backlog,
            queue,
            waiting,
        } = &mut there.state
        else {
            return Err(Errno::ECONNREFUSED);
        };
        if queue.len() > *backlog {
            let me = Rc::downgrade(self);
            if !waiting.iter().any(|known| known.ptr_eq(&me)) {
                waiting.push(me);
            }
            return Err(Errno::EAGAIN);
        }
        let accepted = Self::new(&self.space, self.kind, listener.owner);
        accepted
            .pass_credentials
            .set(listener.pass_credentials.get());
        {
            let mut new = accepted.inner.borrow_mut();
            new.join(self, self.local_name(), self.owner);
            new.name = listener_name.clone();
            new.send_buffer = send_buffer;
        }
        self.inner
            .borrow_mut()
            .join(&accepted, listener_name, listener.owner);
        queue.push_back(accepted);
        Ok(())
    }

    fn disconnect(&self) -> Result<()> {
        if self.kind != Kind::Datagram {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.borrow_mut();
        inner.state = State::Idle;
        inner.peer_name = UnixName::Unnamed;
        Ok(())
    }

    /// `shutdown` of the reading half, the writing half, or both.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        if self.kind.is_connected() && matches!(inner.state, State::Idle) {
            return Err(Errno::ENOTCONN);
        }
        inner.shut_read |= read;
        inner.shut_write |= write;
        let peer = if self.kind.is_connected() {
            inner.peer()
        } else {
            None
        };
        drop(inner);
        if let Some(peer) = peer {
            let mut there = peer.inner.borrow_mut();
            there.shut_read |= write;
            there.shut_write |= read;
            drop(there);
            peer.hook.wake(all_bits());
        }
        self.hook.wake(all_bits());
        Ok(())
    }

    /// The last descriptor is gone: tells the other side and everyone who waits.
    pub fn close(&self) {
        let mut inner = self.inner.borrow_mut();
        if let Some(key) = inner.key.take() {
            self.space.bound.borrow_mut().remove(&key);
        }
        let unread = !inner.inbox.is_empty();
        let peer = if self.kind.is_connected() {
            inner.peer()
        } else {
            None
        };
        let state = core::mem::replace(&mut inner.state, State::Closed);
        let blocked = core::mem::take(&mut inner.blocked);
        let unread_messages = core::mem::take(&mut inner.inbox);
        (inner.shut_read, inner.shut_write) = (true, true);
        drop(inner);
        // Descriptors under way may be the last ones of other sockets, this one's peer among them: they close with nothing borrowed.
        drop(unread_messages);
        if let Some(peer) = peer {
            peer.lose_peer(unread);
        }
        if let State::Listening { queue, waiting, .. } = state {
            for pending in queue {
                let other = pending.inner.borrow().peer();
                if let Some(other) = other {
                    other.lose_peer(true);
                }
            }
            wake_all(&waiting, all_bits());
        }
        wake_all(&blocked, ready::OUT);
    }

    /// The other end of the connection closed; `reset` when it left bytes unread.
    fn lose_peer(&self, reset: bool) {
        let mut inner = self.inner.borrow_mut();
        (inner.shut_read, inner.shut_write) = (true, true);
        if reset {
            inner.error = Some(Errno::ECONNRESET);
        }
        drop(inner);
        self.hook.wake(all_bits());
    }

    /// Credentials that a message of this socket carries by itself.
    pub(super) fn own_credentials(&self) -> Credentials {
        self.owner
    }
}

pub(super) fn all_bits() -> u32 {
    ready::IN | ready::OUT | ready::ERR | ready::HUP | ready::RDHUP
}

pub(super) fn wake_all(sockets: &[Weak<UnixSocket>], mask: u32) {
    for socket in sockets.iter().filter_map(Weak::upgrade) {
        socket.hook.wake(mask);
    }
}
