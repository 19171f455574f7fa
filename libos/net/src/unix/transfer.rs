//! Sending and receiving.

use super::connection::{Target, wake_all};
use super::inbox::Message;
use super::{Kind, State, UnixSocket};
use crate::addr::{Address, UnixName};
use crate::errno::{Errno, Result};
use crate::message::{Ancillary, Received, gather, total};
use crate::ready;
use alloc::rc::Rc;
use alloc::vec::Vec;

/// Messages that may wait at one datagram socket. (Linux: net.unix.max_dgram_qlen, 10 by default and raised by most distributions.)
const MAX_DATAGRAMS: usize = 512;

/// A `sk_buff`'s overhead, by which a message must be smaller than the send buffer.
const OVERHEAD: usize = 32;

/// Largest piece of a stream kept as one message.
const CHUNK: usize = 32 * 1024;

impl UnixSocket {
    /// Sends the concatenation of `data`. `target` is for datagrams only. Returns how many bytes went: all of a message, or what fits of a stream.
    ///
    /// # Errors
    /// `EAGAIN`: no room now. `EPIPE`, `ENOTCONN`, `ECONNREFUSED`, `ECONNRESET`, `EMSGSIZE`, `EISCONN`, `EOPNOTSUPP`, `EINVAL`.
    pub fn send(
        self: &Rc<Self>,
        data: &[&[u8]],
        target: Option<&Target>,
        ancillary: Ancillary,
    ) -> Result<usize> {
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        match self.kind {
            Kind::Datagram => self.send_datagram(data, target, ancillary),
            _ if target.is_some() => Err(if self.peer_name().is_ok() {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            }),
            Kind::Stream => self.send_stream(data, ancillary),
            Kind::SeqPacket => {
                let peer = self.live_peer()?;
                self.deliver(&peer, data, ancillary)
            }
        }
    }

    /// The other end of a connection that takes bytes.
    fn live_peer(&self) -> Result<Rc<Self>> {
        let inner = self.inner.borrow();
        if inner.shut_write {
            return Err(Errno::EPIPE);
        }
        match &inner.state {
            State::Connected(peer) => peer.upgrade().ok_or(Errno::EPIPE),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn send_stream(self: &Rc<Self>, data: &[&[u8]], ancillary: Ancillary) -> Result<usize> {
        let peer = self.live_peer()?;
        let len = total(data);
        let limit = self.send_buffer();
        let mut there = peer.inner.borrow_mut();
        let room = limit.saturating_sub(there.inbox.bytes()).min(len);
        if len == 0 {
            return Ok(0);
        }
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let mut extra = self.with_credentials(&peer, ancillary);
        let mut done = 0;
        while done < room {
            let part = (room - done).min(CHUNK);
            if extra.is_plain()
                && let Some(last) = there.inbox.joinable(part)
            {
                gather(data, done, part, last);
            } else {
                let mut bytes = Vec::with_capacity(part);
                gather(data, done, part, &mut bytes);
                there.inbox.push(Message {
                    data: bytes,
                    start: 0,
                    from: UnixName::Unnamed,
                    ancillary: core::mem::take(&mut extra),
                });
            }
            done += part;
        }
        drop(there);
        // Every arrival counts, not only the first: edge-triggered waiters rely on it.
        peer.hook.wake(ready::IN);
        Ok(done)
    }

    fn with_credentials(&self, peer: &Self, mut ancillary: Ancillary) -> Ancillary {
        if ancillary.credentials.is_none()
            && (peer.pass_credentials.get() || self.pass_credentials.get())
        {
            ancillary.credentials = Some(self.own_credentials());
        }
        ancillary
    }

    fn send_datagram(
        self: &Rc<Self>,
        data: &[&[u8]],
        target: Option<&Target>,
        ancillary: Ancillary,
    ) -> Result<usize> {
        if self.inner.borrow().shut_write {
            return Err(Errno::EPIPE);
        }
        let receiver = match target {
            Some(target) => self.find_receiver(target)?,
            None => match &self.inner.borrow().state {
                State::Connected(peer) => peer.upgrade().ok_or(Errno::ECONNREFUSED)?,
                _ => return Err(Errno::ENOTCONN),
            },
        };
        if matches!(receiver.inner.borrow().state, State::Closed) {
            return Err(Errno::ECONNREFUSED);
        }
        if receiver.inner.borrow().shut_read {
            return Err(Errno::EPIPE);
        }
        // A connected receiver takes messages of its own peer only.
        if let State::Connected(only) = &receiver.inner.borrow().state
            && !only.ptr_eq(&Rc::downgrade(self))
        {
            return Err(Errno::EPERM);
        }
        self.deliver(&receiver, data, ancillary)
    }

    /// Queues one message at `receiver`.
    fn deliver(
        self: &Rc<Self>,
        receiver: &Rc<Self>,
        data: &[&[u8]],
        ancillary: Ancillary,
    ) -> Result<usize> {
        let len = total(data);
        if len + OVERHEAD > self.send_buffer() {
            return Err(Errno::EMSGSIZE);
        }
        if !receiver.accepts(len, self.send_buffer()) {
            receiver.remember(self);
            return Err(Errno::EAGAIN);
        }
        let mut bytes = Vec::with_capacity(len);
        gather(data, 0, len, &mut bytes);
        let ancillary = self.with_credentials(receiver, ancillary);
        let message = Message {
            data: bytes,
            start: 0,
            from: self.local_name(),
            ancillary,
        };
        receiver.inner.borrow_mut().inbox.push(message);
        receiver.hook.wake(ready::IN);
        Ok(len)
    }

    /// Room in the inbox for a message of `len` bytes of a sender with `limit` bytes of send buffer.
    fn accepts(&self, len: usize, limit: usize) -> bool {
        let inbox = &self.inner.borrow().inbox;
        inbox.len() < MAX_DATAGRAMS && (inbox.is_empty() || inbox.bytes() + len <= limit)
    }

    /// Notes a sender that waits for room, once.
    fn remember(&self, sender: &Rc<Self>) {
        let sender = Rc::downgrade(sender);
        let blocked = &mut self.inner.borrow_mut().blocked;
        if !blocked.iter().any(|known| known.ptr_eq(&sender)) {
            blocked.push(sender);
        }
    }

    /// POLLOUT: for streams when at most a quarter of the buffer is in use, so that a woken writer has something to do.
    pub(super) fn can_send(self: &Rc<Self>) -> bool {
        let inner = self.inner.borrow();
        let limit = inner.send_buffer;
        let (peer, shut) = (inner.peer(), inner.shut_write);
        drop(inner);
        let Some(peer) = peer.filter(|_| !shut) else {
            return true;
        };
        if self.kind == Kind::Stream {
            return peer.inner.borrow().inbox.bytes() * 4 <= limit;
        }
        let room = peer.accepts(1, limit);
        if !room {
            peer.remember(self);
        }
        room
    }

    /// Receives into the slices of `out`: bytes of a stream, or one message. `peek` leaves it there.
    /// End of input is a `Received` of length 0.
    ///
    /// # Errors
    /// `EAGAIN`: nothing there. `ECONNRESET`, `ENOTCONN`, `EINVAL`.
    pub fn receive(self: &Rc<Self>, out: &mut [&mut [u8]], peek: bool) -> Result<Received> {
        let mut inner = self.inner.borrow_mut();
        match inner.state {
            State::Listening { .. } => return Err(Errno::EINVAL),
            State::Idle if self.kind == Kind::Stream => return Err(Errno::EINVAL),
            State::Idle if self.kind == Kind::SeqPacket => return Err(Errno::ENOTCONN),
            _ => {}
        }
        if inner.inbox.is_empty() {
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            return if inner.shut_read {
                Ok(Received::default())
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let received = if self.kind == Kind::Stream {
            let (len, ancillary) = inner.inbox.read_stream(out, peek);
            Received {
                len,
                full_len: len,
                from: None,
                ancillary,
            }
        } else {
            let (len, full_len, from, ancillary) =
                inner.inbox.read_message(out, peek).ok_or(Errno::EAGAIN)?;
            let from = (self.kind == Kind::Datagram).then_some(Address::Unix(from));
            Received {
                len,
                full_len,
                from,
                ancillary,
            }
        };
        let blocked = core::mem::take(&mut inner.blocked);
        let peer = if self.kind == Kind::Stream {
            inner.peer()
        } else {
            None
        };
        drop(inner);
        if !peek {
            wake_all(&blocked, ready::OUT);
            if let Some(peer) = peer
                && peer.can_send()
            {
                peer.hook.wake(ready::OUT);
            }
        }
        Ok(self.filtered(received))
    }

    /// Credentials are shown to those who asked for them.
    fn filtered(&self, mut received: Received) -> Received {
        if !self.pass_credentials.get() {
            received.ancillary.credentials = None;
        }
        received
    }
}
