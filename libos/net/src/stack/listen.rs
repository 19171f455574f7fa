//! Listening: backlog, handshakes under way, accepting.

use super::conn::{Key, Owner, SILENCE_TIMEOUT};
use super::{Kind, Options, Proto, Role, Sock, Stack};
use crate::errno::{Errno, Result};
use crate::ready;
use alloc::collections::VecDeque;
use core::net::SocketAddr;
use smoltcp::socket::tcp::State;

/// Longest queue of connections to accept (net.core.somaxconn).
pub const SOMAXCONN: u32 = 4096;
/// Handshakes under way at one listener (net.ipv4.tcp_max_syn_backlog).
const MAX_HANDSHAKES: usize = 2048;
/// At this age, in nanoseconds, the oldest of them makes room for a new one. The end of a younger one may be on its way, and would be answered
/// with a reset: then the new request is dropped, and its sender asks again.
const ROOM_AFTER: u64 = 50_000_000;
/// A handshake is given up after this time, nanoseconds.
const HANDSHAKE_TIME: u64 = 30_000_000_000;

/// The listening side of a socket.
#[derive(Default)]
pub(crate) struct Listener {
    pub backlog: usize,
    /// Connections to accept.
    pub queue: VecDeque<usize>,
    /// Connections whose handshake is under way, oldest first, with their serial numbers.
    pub handshakes: VecDeque<(usize, u64)>,
}

impl Sock {
    fn listener(&mut self) -> Option<&mut Listener> {
        match &mut self.role {
            Role::Listener(listener) => Some(listener),
            _ => None,
        }
    }
}

impl Stack {
    /// `listen`.
    pub(crate) fn listen(&mut self, id: usize, backlog: u32) -> Result<()> {
        let sock = &mut self.sockets[id];
        if sock.kind != Kind::Tcp {
            return Err(Errno::EOPNOTSUPP);
        }
        let backlog = backlog.min(SOMAXCONN) as usize;
        match &mut sock.role {
            Role::Listener(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Role::Idle => {}
            _ => return Err(Errno::EINVAL),
        }
        let Some(local) = sock.local else {
            let any = SocketAddr::new(sock.any(), 0);
            self.bind(id, any)?;
            return self.listen(id, backlog as u32);
        };
        let rivals = self
            .at_port(Proto::Tcp, local.port())
            .iter()
            .filter(|&&other| other != id);
        let taken = rivals.map(|&other| &self.sockets[other]).any(|other| {
            let shared = other.options.reuse_port && self.sockets[id].options.reuse_port;
            matches!(other.role, Role::Listener(_))
                && other.local.is_some_and(|l| l.ip() == local.ip())
                && !shared
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        self.sockets[id].role = Role::Listener(Listener {
            backlog,
            ..Listener::default()
        });
        Ok(())
    }

    /// The listening socket for a connection request.
    pub(crate) fn listener_for(&self, key: &Key) -> Option<usize> {
        let mut best: Option<(u32, usize)> = None;
        let spread =
            key.remote.port() as usize ^ u16::from_le_bytes(first_bytes(key.remote)) as usize;
        let candidates = self.at_port(Proto::Tcp, key.local.port());
        for (i, &id) in candidates.iter().enumerate() {
            let sock = &self.sockets[id];
            let (Role::Listener(_), Some(local)) = (&sock.role, sock.local) else {
                continue;
            };
            if !sock.takes(local, key.local.ip()) {
                continue;
            }
            // The most exact address wins; sockets that share a port take turns by peer.
            let exact = u32::from(!local.ip().is_unspecified()) * 4
                + u32::from(local.is_ipv4() == key.local.is_ipv4()) * 2;
            let turn = u32::from(i == spread % candidates.len());
            if best.is_none_or(|(score, _)| exact + turn > score) {
                best = Some((exact + turn, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// A connection request came for a listening socket: the new connection, to be given the packet.
    pub(crate) fn begin_handshake(
        &mut self,
        listener: usize,
        key: Key,
        link: usize,
    ) -> Option<usize> {
        let entry = self.sockets[listener].listener()?;
        if entry.queue.len() > entry.backlog {
            self.counters.backlog_full += 1;
            return None;
        }
        if entry.handshakes.len() >= MAX_HANDSHAKES
            && let Some(&(oldest, serial)) = entry.handshakes.front()
        {
            let known = self.conns.get(oldest).filter(|c| c.serial == serial);
            let begun = known.map(|c| c.begun);
            if begun.is_some_and(|begun| self.host.now() < begun + ROOM_AFTER) {
                self.counters.backlog_full += 1;
                return None;
            }
            entry.handshakes.pop_front();
            if begun.is_some() {
                self.remove_conn(oldest);
            }
        }
        let conn = self
            .insert_conn(key, link, Owner::Listener(listener), listener)
            .ok()?;
        let now = self.host.now();
        let new = &mut self.conns[conn];
        new.expires = Some(now + HANDSHAKE_TIME);
        let serial = new.serial;
        if new
            .socket()
            .listen((
                smoltcp::wire::IpAddress::from(key.local.ip()),
                key.local.port(),
            ))
            .is_err()
        {
            self.remove_conn(conn);
            return None;
        }
        self.sockets[listener]
            .listener()?
            .handshakes
            .push_back((conn, serial));
        Some(conn)
    }

    /// Looks whether a handshake is over.
    pub(crate) fn notice_pending(&mut self, conn: usize, listener: usize) {
        let (state, serial) = (self.conns[conn].state(), self.conns[conn].serial);
        let Some(entry) = self.sockets.get_mut(listener).and_then(Sock::listener) else {
            return self.abort_or_remove(conn, state);
        };
        let position = entry
            .handshakes
            .iter()
            .position(|&(c, s)| c == conn && s == serial);
        match state {
            State::SynReceived => {}
            State::Closed | State::Listen => {
                if let Some(at) = position {
                    entry.handshakes.remove(at);
                    self.remove_conn(conn);
                }
            }
            _ => {
                if let Some(at) = position {
                    entry.handshakes.remove(at);
                    entry.queue.push_back(conn);
                    let new = &mut self.conns[conn];
                    new.expires = None;
                    new.socket().set_timeout(Some(SILENCE_TIMEOUT));
                    self.wake(listener, ready::IN);
                }
            }
        }
    }

    fn abort_or_remove(&mut self, conn: usize, state: State) {
        if matches!(state, State::Closed | State::Listen) {
            self.remove_conn(conn);
        } else {
            self.conns[conn].owner = Owner::Nobody;
            self.abort(conn, None);
        }
    }

    /// `accept`: a new socket for the oldest connection.
    pub(crate) fn accept(&mut self, id: usize) -> Result<(usize, SocketAddr)> {
        let sock = &mut self.sockets[id];
        if sock.kind != Kind::Tcp {
            return Err(Errno::EOPNOTSUPP);
        }
        let (v6, options, shut) = (
            sock.v6,
            Options {
                ..sock.options.clone()
            },
            sock.shut_read,
        );
        let Some(listener) = sock.listener() else {
            return Err(Errno::EINVAL);
        };
        let Some(conn) = listener.queue.pop_front() else {
            return Err(if shut { Errno::EINVAL } else { Errno::EAGAIN });
        };
        let key = self.conns[conn].key;
        let new = self.sockets.insert(Sock {
            kind: Kind::Tcp,
            v6,
            options,
            local: Some(key.local),
            remote: Some(key.remote),
            role: Role::Connection(conn),
            error: None,
            shut_read: false,
            shut_write: false,
            blocked: false,
            hook: None,
            inode: 0,
        });
        self.conns[conn].owner = Owner::Sock(new);
        self.touch(conn);
        Ok((new, key.remote))
    }

    /// A listening socket is closed: so are the connections that nobody accepted.
    pub(crate) fn drop_listener(&mut self, listener: &Listener) {
        let handshakes = listener
            .handshakes
            .iter()
            .filter(|(c, s)| self.conns.get(*c).is_some_and(|e| e.serial == *s))
            .map(|(c, _)| *c);
        let all: alloc::vec::Vec<usize> =
            handshakes.chain(listener.queue.iter().copied()).collect();
        for conn in all {
            self.conns[conn].owner = Owner::Nobody;
            self.abort(conn, None);
        }
    }
}

/// Two bytes of an address, to spread peers.
fn first_bytes(addr: SocketAddr) -> [u8; 2] {
    match addr.ip() {
        core::net::IpAddr::V4(ip) => [ip.octets()[2], ip.octets()[3]],
        core::net::IpAddr::V6(ip) => [ip.octets()[14], ip.octets()[15]],
    }
}
