//! TCP connections: [`Conn`] is one smoltcp socket with what Linux's semantics need around it.
//!
//! A connection outlives its socket: what was sent before `close` still has to arrive. It is touched by packets, by calls
//! and by time; each touch ends in [`Stack::pump`], which sends what can be sent and tells whoever waits.

use super::{Role, Stack};
use crate::errno::{Errno, Result};
use crate::ready;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smoltcp::iface::{PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Duration;

/// A connection by its two ends, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Who a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A socket.
    Sock(usize),
    /// It waits to be accepted at this listening socket.
    Listener(usize),
    /// Its socket was closed.
    Nobody,
}

/// Linux gives up a connection attempt after about this time (tcp_syn_retries 6).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// ... and a connection whose peer is silent after about this (tcp_retries2 15).
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(924);
/// How long a connection without socket may take to end, and a handshake to complete; nanoseconds.
pub(crate) const ORPHAN_TIME: u64 = 60_000_000_000;
/// A neighbour that does not answer for so long is unreachable; nanoseconds.
const NEIGHBOUR_TIME: u64 = 3_000_000_000;

/// Bytes of buffers kept for the next connections.
const SPARE_BYTES: usize = 8 << 20;

/// Packets with so many bytes are acknowledged at once, smaller ones with the answer that usually follows.
pub(crate) const BULK: usize = 4096;
/// ... or after this time.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(10);

/// A TCP connection.
pub(crate) struct Conn {
    pub key: Key,
    pub serial: u64,
    pub link: usize,
    /// The neighbour that takes its packets.
    pub next_hop: IpAddr,
    pub owner: Owner,
    pub set: SocketSet<'static>,
    pub handle: SocketHandle,
    /// Still connecting (from this side).
    pub connecting: bool,
    /// Bytes in the receive buffer when it was last looked at.
    pub seen: usize,
    /// The end of the peer's bytes was announced.
    pub end_seen: bool,
    /// A reset came.
    pub was_reset: bool,
    /// An error decided by something else than smoltcp (ICMP, an unreachable neighbour).
    pub cause: Option<Errno>,
    /// When a connection without socket, or a handshake, is given up; nanoseconds.
    pub expires: Option<u64>,
    /// When a connection attempt began; nanoseconds.
    pub begun: u64,
    pub deadline: Option<u64>,
    pub queued: bool,
    /// A packet went out: the neighbour answered ARP or neighbour solicitation.
    pub sent: bool,
    /// Bytes of both buffers.
    pub memory: usize,
}

impl Conn {
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    pub fn peek(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    pub fn state(&self) -> State {
        self.peek().state()
    }

    /// The peer sends no more.
    pub fn peer_done(&self) -> bool {
        matches!(
            self.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed
        )
    }

    /// Readiness, without what the socket itself adds.
    pub fn poll(&self) -> u32 {
        let socket = self.peek();
        if self.connecting {
            return 0;
        }
        let mut mask = 0;
        if socket.can_recv() || self.peer_done() {
            mask |= ready::IN;
        }
        if self.peer_done() {
            mask |= ready::RDHUP;
        }
        if has_room(socket) || !socket.may_send() {
            mask |= ready::OUT;
        }
        if matches!(
            socket.state(),
            State::Closed | State::TimeWait | State::LastAck | State::Closing
        ) {
            mask |= ready::HUP;
        }
        mask
    }
}

/// Room that makes a socket writable: a third of the buffer (sk_stream_is_writeable).
fn has_room(socket: &Socket<'_>) -> bool {
    socket.may_send()
        && (socket.send_capacity() - socket.send_queue()) * 3 >= socket.send_capacity()
}

impl Stack {
    /// Makes a connection in the table. `options_of` is the socket whose options it takes over.
    pub(crate) fn insert_conn(
        &mut self,
        key: Key,
        link: usize,
        owner: Owner,
        options_of: usize,
    ) -> Result<usize> {
        if self.conns.len() >= self.limits.tcp_connections {
            return Err(Errno::ENOBUFS);
        }
        let sizes = self.buffer_sizes(options_of);
        self.pool_used += (sizes.0 + sizes.1).saturating_sub(self.limits.tcp_floor);
        let (mut set, handle) = self.take_spare(sizes);
        let socket: &mut Socket<'static> = set.get_mut(handle);
        let lossy = self.links[link].info.lossy;
        self.sockets[options_of].options.apply(socket, lossy);
        socket.set_congestion_control(if lossy {
            CongestionControl::Reno
        } else {
            CongestionControl::None
        });
        socket.set_timeout(Some(CONNECT_TIMEOUT));
        self.serial += 1;
        let now = self.host.now();
        let id = self.conns.insert(Conn {
            key,
            serial: self.serial,
            link,
            next_hop: key.remote.ip(),
            owner,
            set,
            handle,
            connecting: false,
            seen: 0,
            end_seen: false,
            was_reset: false,
            cause: None,
            expires: None,
            begun: now,
            deadline: None,
            queued: false,
            sent: false,
            memory: sizes.0 + sizes.1,
        });
        self.flows.insert(key, id);
        Ok(id)
    }

    /// A smoltcp socket with buffers of these sizes, one that was used before if there is one: clearing fresh buffers costs more than a connection.
    fn take_spare(&mut self, sizes: (usize, usize)) -> (SocketSet<'static>, SocketHandle) {
        let fits = |s: &Socket<'_>| (s.recv_capacity(), s.send_capacity()) == sizes;
        let socket = match self.spares.iter().rposition(fits) {
            Some(at) => self.spares.swap_remove(at),
            None => Socket::new(
                SocketBuffer::new(vec![0; sizes.0]),
                SocketBuffer::new(vec![0; sizes.1]),
            ),
        };
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        (set, handle)
    }

    /// Sizes of the two buffers of a new connection: what the socket asked for, else a share of what is left.
    fn buffer_sizes(&self, sock: usize) -> (usize, usize) {
        let options = &self.sockets[sock].options;
        let left = self.limits.tcp_pool.saturating_sub(self.pool_used);
        let share = (self.limits.tcp_floor + left / 32).min(self.limits.tcp_default) / 2;
        let room = left / 2 + self.limits.tcp_floor / 2;
        let size = |asked: Option<usize>| asked.map_or(share, |bytes| bytes.min(room)).max(2048);
        (size(options.receive_buffer), size(options.send_buffer))
    }

    /// `connect` of a TCP socket: begins, and says EINPROGRESS unless it is decided at once (on the loopback it is).
    pub(crate) fn connect_tcp(&mut self, id: usize, to: SocketAddr) -> Result<()> {
        let sock = &self.sockets[id];
        let route = self
            .route(to, sock.options.bound_link)
            .ok_or(Errno::ENETUNREACH)?;
        let bound = sock.local.filter(|local| !local.ip().is_unspecified());
        let source = bound.map_or(route.source, |local| local.ip());
        if source.is_ipv4() != to.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let remote = SocketAddr::new(to.ip(), to.port());
        let port = match sock.local {
            Some(local) => local.port(),
            None => self
                .ephemeral(super::Proto::Tcp, |stack, port| {
                    !stack.flows.contains_key(&Key {
                        local: SocketAddr::new(source, port),
                        remote,
                    })
                })
                .ok_or(Errno::EADDRNOTAVAIL)?,
        };
        let key = Key {
            local: SocketAddr::new(source, port),
            remote,
        };
        if self.flows.contains_key(&key) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let conn = self.insert_conn(key, route.link, Owner::Sock(id), id)?;
        let entry = &mut self.conns[conn];
        entry.connecting = true;
        entry.next_hop = route.next_hop;
        let (iface, _) = self.links[route.link].split(None);
        let socket: &mut Socket<'static> = entry.set.get_mut(entry.handle);
        if socket
            .connect(iface.context(), key.remote, key.local)
            .is_err()
        {
            self.remove_conn(conn);
            return Err(Errno::EADDRNOTAVAIL);
        }
        if self.sockets[id].local.is_none() {
            self.ports
                .entry((super::Proto::Tcp, port))
                .or_default()
                .push(id);
        }
        let sock = &mut self.sockets[id];
        (sock.local, sock.remote) = (Some(key.local), Some(key.remote));
        sock.role = Role::Connection(conn);
        self.touch(conn);
        Ok(())
    }

    /// Notes that a connection has to be looked at before the operation ends.
    pub(crate) fn touch(&mut self, conn: usize) {
        let entry = &mut self.conns[conn];
        if !core::mem::replace(&mut entry.queued, true) {
            self.dirty.push_back(conn);
        }
    }

    /// Sends what a connection has, then tells whoever waits, then sets its timer.
    pub(crate) fn pump(&mut self, conn: usize) {
        let now = self.now();
        let Some(entry) = self.conns.get_mut(conn) else {
            return;
        };
        entry.queued = false;
        // Nobody will read it: the peer must hear that, else it waits for room (RFC 1122 4.2.2.13; TCPABORTONDATA in Linux).
        if entry.owner == Owner::Nobody && entry.peek().can_recv() {
            entry.socket().abort();
        }
        let link = &mut self.links[entry.link];
        let (sent, asked) = (link.sent.tcp_frames, link.sent.frames);
        let (iface, mut port) = link.split(None);
        while iface.poll_egress(now, &mut port, &mut entry.set) != PollResult::None {}
        entry.sent |= link.sent.tcp_frames != sent;
        if entry.connecting && !entry.sent && link.sent.frames == asked {
            link.solicit(now, entry.next_hop);
        }
        match entry.owner {
            Owner::Sock(id) => self.notice(conn, id),
            Owner::Listener(id) => self.notice_pending(conn, id),
            Owner::Nobody => {
                if matches!(
                    entry.state(),
                    State::Closed | State::TimeWait | State::Listen
                ) {
                    return self.remove_conn(conn);
                }
            }
        }
        self.schedule(conn);
    }

    /// Looks what has changed for the socket of a connection, and wakes it.
    fn notice(&mut self, conn: usize, id: usize) {
        let entry = &mut self.conns[conn];
        let state = entry.state();
        let mut mask = 0;
        if entry.connecting && !matches!(state, State::SynSent | State::SynReceived) {
            entry.connecting = false;
            entry.socket().set_timeout(Some(SILENCE_TIMEOUT));
            mask |= ready::OUT;
            if state == State::Closed {
                let error = entry.cause.unwrap_or(if entry.was_reset {
                    Errno::ECONNREFUSED
                } else {
                    Errno::ETIMEDOUT
                });
                self.sockets[id].error = Some(error);
                mask |= ready::ERR | ready::HUP | ready::IN;
            }
        } else if state == State::Closed && entry.cause.is_none() && !entry.end_seen {
            let error = if entry.was_reset {
                Errno::ECONNRESET
            } else {
                Errno::ETIMEDOUT
            };
            entry.cause = Some(error);
            self.sockets[id].error = Some(error);
            mask |= ready::ERR | ready::HUP | ready::IN | ready::OUT | ready::RDHUP;
        }
        let entry = &mut self.conns[conn];
        let waiting = entry.peek().recv_queue();
        if waiting > entry.seen {
            mask |= ready::IN;
        }
        entry.seen = waiting;
        if entry.peer_done() && !core::mem::replace(&mut entry.end_seen, true) {
            mask |= ready::IN | ready::RDHUP;
        }
        if matches!(state, State::TimeWait | State::Closed) {
            mask |= ready::HUP | ready::OUT;
        }
        if self.sockets[id].blocked && has_room(self.conns[conn].peek()) {
            self.sockets[id].blocked = false;
            mask |= ready::OUT;
        }
        if mask != 0 {
            self.wake(id, mask);
        }
    }

    /// Ends a connection at once with a reset.
    pub(crate) fn abort(&mut self, conn: usize, cause: Option<Errno>) {
        let entry = &mut self.conns[conn];
        entry.cause = entry.cause.or(cause);
        entry.socket().abort();
        self.touch(conn);
    }

    /// The socket of a connection is closed.
    pub(crate) fn orphan(&mut self, conn: usize, linger_zero: bool) {
        let expires = self.host.now() + ORPHAN_TIME;
        let entry = &mut self.conns[conn];
        entry.owner = Owner::Nobody;
        entry.expires = Some(expires);
        let unread = entry.peek().can_recv();
        if unread || linger_zero || entry.connecting {
            entry.socket().abort();
        } else {
            entry.socket().close();
        }
        self.touch(conn);
    }

    /// Forgets a connection.
    pub(crate) fn remove_conn(&mut self, conn: usize) {
        let mut entry = self.conns.remove(conn);
        self.flows.remove(&entry.key);
        self.pool_used -= entry
            .memory
            .saturating_sub(self.limits.tcp_floor)
            .min(self.pool_used);
        let kept: usize = self
            .spares
            .iter()
            .map(|s| s.recv_capacity() + s.send_capacity())
            .sum();
        if kept + entry.memory <= SPARE_BYTES
            && let smoltcp::socket::Socket::Tcp(mut socket) = entry.set.remove(entry.handle)
        {
            socket.abort();
            self.spares.push(socket);
        }
    }

    /// What time alone does to a connection.
    pub(crate) fn expire_conn(&mut self, conn: usize) {
        let now = self.host.now();
        let entry = &mut self.conns[conn];
        if entry.expires.is_some_and(|at| at <= now) {
            entry.expires = None;
            return self.abort(conn, Some(Errno::ETIMEDOUT));
        }
        let lost = entry.connecting && !entry.sent && now - entry.begun >= NEIGHBOUR_TIME;
        if lost {
            return self.abort(conn, Some(Errno::EHOSTUNREACH));
        }
        self.touch(conn);
    }
}
