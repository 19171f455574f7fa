//! AF_UNIX sockets (unix(7)): stream, datagram and seqpacket; pairs, abstract names and names in the file system.
//!
//! [`UnixSocket`] is one socket, [`Namespace`] knows who is bound where. A path name is resolved by the kernel's file system: binding
//! creates a socket inode and hands its [`InodeKey`] over, connecting looks the inode up. Neighbours: `connection` (listen, accept, connect,
//! close), `transfer` (send, receive), `inbox` (what waits to be read).

mod connection;
mod inbox;
#[cfg(test)]
mod tests;
mod transfer;

use crate::addr::UnixName;
use crate::errno::{Errno, Result};
use crate::message::Credentials;
use crate::ready::{self, Hook, HookSlot};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
pub use connection::Target;
use core::cell::{Cell, RefCell};
use inbox::Inbox;

/// Default of SO_SNDBUF (net.core.wmem_default).
pub const DEFAULT_BUFFER: usize = 212_992;

/// Longest queue of pending connections (net.core.somaxconn).
pub const SOMAXCONN: u32 = 4096;

/// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connected stream of bytes.
    Stream,
    /// Single messages.
    Datagram,
    /// A connection that keeps message boundaries.
    SeqPacket,
}

impl Kind {
    fn is_connected(self) -> bool {
        self != Self::Datagram
    }
}

/// A socket inode of the kernel's file system: device and inode number.
pub type InodeKey = (u64, u64);

/// What a name means: where to look it up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Abstract(Vec<u8>),
    Inode(InodeKey),
}

/// Who is bound where.
#[derive(Default)]
pub struct Namespace {
    bound: RefCell<BTreeMap<Key, Weak<UnixSocket>>>,
    next_autobind: Cell<u32>,
}

impl Namespace {
    /// An empty name space.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    fn bind(&self, key: Key, socket: &Rc<UnixSocket>) -> Result<()> {
        let mut bound = self.bound.borrow_mut();
        if bound.get(&key).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        bound.insert(key, Rc::downgrade(socket));
        Ok(())
    }

    fn lookup(&self, key: &Key) -> Option<Rc<UnixSocket>> {
        self.bound.borrow().get(key).and_then(Weak::upgrade)
    }

    /// A free abstract name of five hex digits, as Linux makes them.
    fn fresh_name(&self) -> Vec<u8> {
        loop {
            let number = self.next_autobind.get();
            self.next_autobind.set((number + 1) & 0xf_ffff);
            let name = format!("{number:05x}").into_bytes();
            if self.lookup(&Key::Abstract(name.clone())).is_none() {
                return name;
            }
        }
    }
}

/// What a socket is doing.
enum State {
    Idle,
    Listening {
        backlog: usize,
        queue: VecDeque<Rc<UnixSocket>>,
        waiting: Vec<Weak<UnixSocket>>,
    },
    Connected(Weak<UnixSocket>),
    Closed,
}

struct Inner {
    state: State,
    name: UnixName,
    key: Option<Key>,
    peer_name: UnixName,
    inbox: Inbox,
    shut_read: bool,
    shut_write: bool,
    error: Option<Errno>,
    peer_credentials: Option<Credentials>,
    send_buffer: usize,
    /// Senders that found the inbox full.
    blocked: Vec<Weak<UnixSocket>>,
}

/// An AF_UNIX socket. The kernel must call [`UnixSocket::close`] when its last descriptor goes.
pub struct UnixSocket {
    kind: Kind,
    owner: Credentials,
    space: Rc<Namespace>,
    hook: HookSlot,
    /// SO_PASSCRED.
    pub pass_credentials: Cell<bool>,
    inner: RefCell<Inner>,
}

impl UnixSocket {
    /// `socket(AF_UNIX, kind, 0)`, made by `owner`.
    pub fn new(space: &Rc<Namespace>, kind: Kind, owner: Credentials) -> Rc<Self> {
        Rc::new(Self {
            kind,
            owner,
            space: space.clone(),
            hook: HookSlot::default(),
            pass_credentials: Cell::new(false),
            inner: RefCell::new(Inner {
                state: State::Idle,
                name: UnixName::Unnamed,
                key: None,
                peer_name: UnixName::Unnamed,
                inbox: Inbox::default(),
                shut_read: false,
                shut_write: false,
                error: None,
                peer_credentials: None,
                send_buffer: DEFAULT_BUFFER,
                blocked: Vec::new(),
            }),
        })
    }

    /// `socketpair(AF_UNIX, kind, 0)`.
    pub fn pair(space: &Rc<Namespace>, kind: Kind, owner: Credentials) -> (Rc<Self>, Rc<Self>) {
        let (a, b) = (Self::new(space, kind, owner), Self::new(space, kind, owner));
        a.inner.borrow_mut().join(&b, UnixName::Unnamed, owner);
        b.inner.borrow_mut().join(&a, UnixName::Unnamed, owner);
        (a, b)
    }

    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Sets who is told about changes of readiness (held weakly).
    pub fn set_hook(&self, hook: &Rc<dyn Hook>) {
        self.hook.set(hook);
    }

    /// Binds to a name that is not a path; an unnamed one chooses a free abstract name.
    ///
    /// # Errors
    /// `EINVAL`: already bound, or a path (use [`Self::bind_path`]). `EADDRINUSE`.
    pub fn bind(self: &Rc<Self>, name: UnixName) -> Result<()> {
        let name = match name {
            UnixName::Unnamed if self.inner.borrow().key.is_some() => return Ok(()),
            UnixName::Unnamed => self.space.fresh_name(),
            UnixName::Abstract(name) => name,
            UnixName::Path(_) => return Err(Errno::EINVAL),
        };
        self.bind_key(UnixName::Abstract(name.clone()), Key::Abstract(name))
    }

    /// Binds to `path`, whose socket inode the kernel has just made.
    ///
    /// # Errors
    /// `EINVAL`: already bound.
    pub fn bind_path(self: &Rc<Self>, path: Vec<u8>, inode: InodeKey) -> Result<()> {
        self.bind_key(UnixName::Path(path), Key::Inode(inode))
    }

    /// True when a name is set: check before making an inode for [`Self::bind_path`].
    pub fn is_bound(&self) -> bool {
        self.inner.borrow().key.is_some()
    }

    fn bind_key(self: &Rc<Self>, name: UnixName, key: Key) -> Result<()> {
        if self.is_bound() {
            return Err(Errno::EINVAL);
        }
        self.space.bind(key.clone(), self)?;
        let mut inner = self.inner.borrow_mut();
        (inner.name, inner.key) = (name, Some(key));
        Ok(())
    }

    /// `getsockname`.
    pub fn local_name(&self) -> UnixName {
        self.inner.borrow().name.clone()
    }

    /// `getpeername`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_name(&self) -> Result<UnixName> {
        let inner = self.inner.borrow();
        match &inner.state {
            State::Connected(_) => Ok(inner.peer_name.clone()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// SO_PEERCRED.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_credentials(&self) -> Result<Credentials> {
        self.inner.borrow().peer_credentials.ok_or(Errno::ENOTCONN)
    }

    /// SO_ERROR: takes the standing error.
    pub fn take_error(&self) -> Option<Errno> {
        self.inner.borrow_mut().error.take()
    }

    /// SO_ACCEPTCONN.
    pub fn is_listening(&self) -> bool {
        matches!(self.inner.borrow().state, State::Listening { .. })
    }

    /// SO_SNDBUF as Linux shows it.
    pub fn send_buffer(&self) -> usize {
        self.inner.borrow().send_buffer
    }

    /// SO_SNDBUF: Linux doubles what is asked for and has bounds.
    pub fn set_send_buffer(&self, bytes: usize) {
        self.inner.borrow_mut().send_buffer = (bytes.min(DEFAULT_BUFFER) * 2).max(4608);
    }

    /// FIONREAD: bytes that a read would find (of the next message, for message sockets).
    pub fn bytes_available(&self) -> usize {
        let inner = self.inner.borrow();
        if self.kind == Kind::Stream {
            inner.inbox.bytes()
        } else {
            inner.inbox.first_len()
        }
    }

    /// Readiness now, bits of [`crate::ready`].
    pub fn poll(self: &Rc<Self>) -> u32 {
        let inner = self.inner.borrow();
        let mut mask = 0;
        if inner.error.is_some() {
            mask |= ready::ERR;
        }
        match &inner.state {
            State::Listening { queue, .. } => {
                return if queue.is_empty() {
                    mask
                } else {
                    mask | ready::IN
                };
            }
            State::Idle if self.kind.is_connected() => mask |= ready::HUP,
            _ => {}
        }
        if inner.shut_read && inner.shut_write {
            mask |= ready::HUP;
        }
        if inner.shut_read {
            mask |= ready::RDHUP | ready::IN;
        }
        if !inner.inbox.is_empty() {
            mask |= ready::IN;
        }
        drop(inner);
        if self.can_send() {
            mask | ready::OUT
        } else {
            mask
        }
    }
}

impl Inner {
    /// Enters the connected state towards `peer`.
    fn join(&mut self, peer: &Rc<UnixSocket>, peer_name: UnixName, credentials: Credentials) {
        self.state = State::Connected(Rc::downgrade(peer));
        self.peer_name = peer_name;
        self.peer_credentials = Some(credentials);
    }

    fn peer(&self) -> Option<Rc<UnixSocket>> {
        match &self.state {
            State::Connected(peer) => peer.upgrade(),
            _ => None,
        }
    }
}
