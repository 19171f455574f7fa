//! TCP: each connection of the guest ends here in a smoltcp socket and goes on as a host connection.
//!
//! [`TcpTable`] finds the flow of a packet by its addresses and gives smoltcp that one socket only, so the cost of a packet does
//! not grow with the number of connections. The guest's SYN is answered when the host's connection stands, so a refusal
//! reaches the guest as one. Bytes move only where both sides have room: a side that stops reading stops the other, and nothing is kept in between
//! but the two buffers that the flow got when it was opened.

mod flow;

use crate::flows::{Ctx, Source};
use crate::policy::Refusal;
use crate::wire::IpPacket;
use flow::{Flow, Key, Phase, to_guest, to_host};
use mio::Interest;
use mio::net::TcpStream;
use slab::Slab;
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::TcpPacket;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long the host's connection may take to stand.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long the guest may take for its part of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Packets with so many bytes are acknowledged at once: more will not come before. Smaller ones with the answer that usually follows.
const BULK: usize = 1500;
/// ... or after this time.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Smallest buffer for one direction.
const MIN_BUFFER: usize = 4096;

/// All TCP connections.
pub struct TcpTable {
    flows: Slab<Flow>,
    index: HashMap<Key, usize>,
    half_open: VecDeque<(usize, u64)>,
    half_open_count: usize,
    serial: u64,
    /// Buffer bytes in use beyond the floors.
    pool_used: usize,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Flows that have something for a guest that had no room.
    stalled: VecDeque<(usize, u64)>,
    nobody: SocketSet<'static>,
}

impl TcpTable {
    pub fn new() -> Self {
        Self {
            flows: Slab::new(),
            index: HashMap::new(),
            half_open: VecDeque::new(),
            half_open_count: 0,
            serial: 0,
            pool_used: 0,
            timers: BinaryHeap::new(),
            stalled: VecDeque::new(),
            nobody: SocketSet::new(Vec::new()),
        }
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Bytes of buffers.
    pub fn memory(&self) -> usize {
        self.flows.iter().map(|(_, f)| f.memory).sum()
    }

    /// True when a flow waits for room at the guest.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// True when a connection from the host side can be taken.
    pub fn has_room(&self, ctx: &Ctx<'_>) -> bool {
        self.flows.len() < ctx.limits.tcp_flows && self.half_open_count < ctx.limits.tcp_half_open
    }

    /// A TCP packet of the guest.
    pub fn packet(&mut self, ctx: &mut Ctx<'_>, packet: &IpPacket<'_>) {
        let Ok(tcp) = TcpPacket::new_checked(packet.payload) else {
            return;
        };
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return;
        }
        let key = Key {
            guest: SocketAddr::new(packet.src, tcp.src_port()),
            remote: SocketAddr::new(packet.dst, tcp.dst_port()),
        };
        if let Some(&at) = self.index.get(&key) {
            let at_once = tcp.payload().len() >= BULK;
            // Not "no delay": smoltcp would leave a timer that a small packet has started as it is.
            let delay = if at_once { Duration::ZERO } else { ACK_DELAY };
            self.flows[at].socket().set_ack_delay(Some(delay.into()));
            ctx.feed(&mut self.flows[at].sockets, packet.bytes);
            self.pump(ctx, at);
        } else if tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin() {
            self.open(ctx, key, packet);
        } else {
            ctx.feed(&mut self.nobody, packet.bytes);
        }
    }

    /// The guest wants a connection: start the host's.
    fn open(&mut self, ctx: &mut Ctx<'_>, key: Key, packet: &IpPacket<'_>) {
        let host = match ctx.policy.to_host(key.remote, 0) {
            Ok(host) => host,
            Err(Refusal::Prohibited) => {
                ctx.stats.refused += 1;
                return ctx.feed(&mut self.nobody, packet.bytes);
            }
            Err(Refusal::NoSuchHost) => return ctx.unreachable(packet, false),
        };
        if self.half_open_count >= ctx.limits.tcp_half_open {
            self.drop_oldest_half_open(ctx);
        }
        if self.flows.len() >= ctx.limits.tcp_flows {
            ctx.stats.refused += 1;
            return ctx.feed(&mut self.nobody, packet.bytes);
        }
        match TcpStream::connect(host) {
            Ok(stream) => {
                let Some(at) = self.insert(ctx, key, stream, Phase::Connecting) else {
                    return;
                };
                let flow = &mut self.flows[at];
                flow.socket().pause_synack(true);
                if flow.socket().listen(key.remote).is_ok() {
                    ctx.feed(&mut flow.sockets, packet.bytes);
                }
                if flow.socket().state() == State::SynReceived {
                    self.schedule(ctx, at)
                } else {
                    self.remove(ctx, at)
                }
            }
            Err(error) => self.refuse(ctx, error.kind(), packet),
        }
    }

    fn refuse(&mut self, ctx: &mut Ctx<'_>, kind: ErrorKind, packet: &IpPacket<'_>) {
        ctx.stats.refused += 1;
        match kind {
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable => ctx.unreachable(packet, false),
            _ => ctx.feed(&mut self.nobody, packet.bytes),
        }
    }

    /// A connection came in on a forwarded host port.
    pub fn accept(
        &mut self,
        ctx: &mut Ctx<'_>,
        stream: TcpStream,
        peer: SocketAddr,
        guest: SocketAddr,
    ) {
        let ip = ctx.policy.seen_by_guest(peer);
        let first = peer.port().max(1024);
        let free = (first..=u16::MAX).chain(1024..first).find(|&port| {
            let remote = SocketAddr::new(ip, port);
            !self.index.contains_key(&Key { guest, remote })
        });
        let Some(port) = free else { return };
        let key = Key {
            guest,
            remote: SocketAddr::new(ip, port),
        };
        let Some(at) = self.insert(ctx, key, stream, Phase::Handshake) else {
            return;
        };
        let flow = &mut self.flows[at];
        flow.readable = true;
        flow.writable = true;
        let socket = flow.sockets.get_mut::<Socket<'static>>(flow.handle);
        if socket
            .connect(ctx.iface.context(), guest, key.remote)
            .is_err()
        {
            return self.remove(ctx, at);
        }
        self.pump(ctx, at);
    }

    fn insert(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: Key,
        mut host: TcpStream,
        phase: Phase,
    ) -> Option<usize> {
        let entry = self.flows.vacant_entry();
        let at = entry.key();
        ctx.registry
            .register(
                &mut host,
                Source::Tcp(at).token(),
                Interest::READABLE | Interest::WRITABLE,
            )
            .ok()?;
        let _ = host.set_nodelay(true);
        let memory = buffer_bytes(ctx, self.pool_used);
        self.pool_used += memory.saturating_sub(ctx.limits.tcp_buffer_floor);
        let buffer = || SocketBuffer::new(vec![0; (memory / 2).max(MIN_BUFFER)]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        self.serial += 1;
        let limit = if phase == Phase::Connecting {
            CONNECT_TIME
        } else {
            HANDSHAKE_TIME
        };
        entry.insert(Flow {
            key,
            serial: self.serial,
            phase,
            sockets,
            handle,
            host,
            readable: false,
            writable: false,
            host_done: false,
            guest_done: false,
            stalled: false,
            memory,
            expires: Some(ctx.now + limit),
            deadline: None,
        });
        self.index.insert(key, at);
        self.half_open.push_back((at, self.serial));
        self.half_open_count += 1;
        ctx.stats.tcp_opened += 1;
        Some(at)
    }

    fn drop_oldest_half_open(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((at, serial)) = self.half_open.pop_front() {
            if self
                .flows
                .get(at)
                .is_some_and(|f| f.serial == serial && f.phase != Phase::Open)
            {
                ctx.stats.evicted += 1;
                return self.remove(ctx, at);
            }
        }
    }

    /// The host's socket of flow `at` reports something.
    pub fn event(&mut self, ctx: &mut Ctx<'_>, at: usize, readable: bool, writable: bool) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        flow.readable |= readable;
        flow.writable |= writable;
        if flow.phase == Phase::Connecting && !self.connected(ctx, at) {
            return;
        }
        self.pump(ctx, at);
    }

    /// Looks whether the host's connection stands; true when it does.
    fn connected(&mut self, ctx: &mut Ctx<'_>, at: usize) -> bool {
        let flow = &mut self.flows[at];
        if let Ok(Some(_)) | Err(_) = flow.host.take_error() {
            ctx.stats.refused += 1;
            flow.socket().abort();
            ctx.drain(&mut flow.sockets);
            self.remove(ctx, at);
            return false;
        }
        if flow.host.peer_addr().is_err() {
            return false;
        }
        flow.phase = Phase::Handshake;
        flow.expires = Some(ctx.now + HANDSHAKE_TIME);
        flow.writable = true;
        flow.socket().pause_synack(false);
        true
    }

    /// Moves what can be moved, then looks whether the flow is over.
    fn pump(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let flow = &mut self.flows[at];
        if flow.phase == Phase::Connecting {
            if flow.socket().state() == State::SynReceived {
                self.schedule(ctx, at)
            } else {
                self.remove(ctx, at)
            }
            return;
        }
        loop {
            let moved = to_host(flow) | to_guest(flow);
            if !ctx.drain(&mut flow.sockets) && !moved {
                break;
            }
        }
        let state = flow.socket().state();
        if flow.phase == Phase::Handshake && !matches!(state, State::SynSent | State::SynReceived) {
            flow.phase = Phase::Open;
            flow.expires = None;
            self.half_open_count -= 1;
        }
        let flow = &mut self.flows[at];
        if !ctx.out.ready() && !flow.stalled {
            flow.stalled = true;
            self.stalled.push_back((at, flow.serial));
        }
        match state {
            State::Closed | State::Listen | State::TimeWait if ctx.out.ready() => {
                self.remove(ctx, at)
            }
            _ => self.schedule(ctx, at),
        }
    }

    /// Continues flows that waited for room at the guest.
    pub fn resume(&mut self, ctx: &mut Ctx<'_>) {
        for _ in 0..self.stalled.len() {
            if !ctx.out.ready() {
                return;
            }
            let Some((at, serial)) = self.stalled.pop_front() else {
                return;
            };
            if let Some(flow) = self.flows.get_mut(at).filter(|f| f.serial == serial) {
                flow.stalled = false;
                self.pump(ctx, at);
            }
        }
    }

    /// Lets time pass for flows whose moment has come.
    pub fn expire(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(&Reverse((when, at, serial))) = self.timers.peek() {
            if when > ctx.now {
                return;
            }
            self.timers.pop();
            let Some(flow) = self
                .flows
                .get_mut(at)
                .filter(|f| f.serial == serial && f.deadline == Some(when))
            else {
                continue;
            };
            flow.deadline = None;
            if flow.expires.is_some_and(|e| e <= ctx.now) {
                flow.socket().abort();
                ctx.drain(&mut flow.sockets);
                ctx.stats.evicted += 1;
                self.remove(ctx, at);
            } else {
                self.pump(ctx, at);
            }
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((when, ..))| *when)
    }

    fn schedule(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let now = ctx.stack_now();
        let flow = &mut self.flows[at];
        let stack = ctx
            .iface
            .poll_at(now, &flow.sockets)
            .map(|t| ctx.moment_of(t).max(ctx.now + Duration::from_millis(1)));
        let next = [stack, flow.expires].into_iter().flatten().min();
        if let Some(when) = next.filter(|&when| flow.deadline.is_none_or(|d| when < d)) {
            flow.deadline = Some(when);
            self.timers.push(Reverse((when, at, flow.serial)));
        }
    }

    fn remove(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let mut flow = self.flows.remove(at);
        self.index.remove(&flow.key);
        self.pool_used -= flow.memory.saturating_sub(ctx.limits.tcp_buffer_floor);
        if flow.phase != Phase::Open {
            self.half_open_count -= 1;
        }
        if !(flow.host_done && flow.guest_done) {
            // The guest broke the connection: so do we.
            let _ = socket2::SockRef::from(&flow.host).set_linger(Some(Duration::ZERO));
        }
        let _ = ctx.registry.deregister(&mut flow.host);
        ctx.stats.tcp_closed += 1;
    }
}

/// Bytes of buffers for a new flow: the floor, and a share of what is left of the pool.
fn buffer_bytes(ctx: &Ctx<'_>, pool_used: usize) -> usize {
    let limits = ctx.limits;
    let share = limits.tcp_buffer_pool.saturating_sub(pool_used) / 16;
    (limits.tcp_buffer_floor + share).min(limits.tcp_buffer_ceiling)
}
