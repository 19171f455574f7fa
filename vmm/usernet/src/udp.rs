//! UDP: each port of the guest is one host socket, so that peers see one sender; only peers the guest has written to may answer.

use crate::flows::{Ctx, Source};
use crate::policy::Refusal;
use crate::wire::IpPacket;
use mio::Interest;
use mio::net::UdpSocket;
use slab::Slab;
use smoltcp::wire::UdpPacket;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// A port of the guest is forgotten after this time without traffic.
const IDLE: Duration = Duration::from_secs(120);
/// Peers remembered for one port.
const MAX_PEERS: usize = 64;
/// Datagrams taken from one socket before others get their turn.
const BURST: usize = 64;
/// Largest datagram.
const MAX_DATAGRAM: usize = 65_507;

struct Flow {
    guest: SocketAddr,
    socket: UdpSocket,
    /// Host address, and what the guest calls it; newest last.
    peers: VecDeque<(SocketAddr, SocketAddr)>,
    last: Instant,
    /// Identifiers of recent DNS queries: a repeated one goes to the next resolver.
    queries: VecDeque<(u16, usize)>,
}

/// All UDP ports of the guest that are in use.
pub struct UdpTable {
    flows: Slab<Flow>,
    index: HashMap<SocketAddr, usize>,
    stalled: VecDeque<usize>,
    /// One datagram on its way in.
    buffer: Vec<u8>,
}

impl UdpTable {
    pub fn new() -> Self {
        Self {
            flows: Slab::new(),
            index: HashMap::new(),
            stalled: VecDeque::new(),
            buffer: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// A datagram of the guest to somewhere beyond the router.
    pub fn datagram(&mut self, ctx: &mut Ctx<'_>, packet: &IpPacket<'_>, udp: &UdpPacket<&[u8]>) {
        let guest = SocketAddr::new(packet.src, udp.src_port());
        let dst = SocketAddr::new(packet.dst, udp.dst_port());
        let dns = ctx.policy.is_dns(dst);
        if let Err(refusal) = ctx.policy.to_host(dst, 0) {
            ctx.stats.refused += 1;
            if dns && ctx.policy.resolvers().is_empty() {
                return server_failure(ctx, guest, dst, udp.payload());
            }
            return ctx.unreachable(packet, refusal == Refusal::Prohibited);
        }
        let Some(at) = self.flow(ctx, guest, dst) else {
            return;
        };
        let flow = &mut self.flows[at];
        let attempt = if dns { flow.attempt(udp.payload()) } else { 0 };
        let Ok(host) = ctx.policy.to_host(dst, attempt) else {
            return;
        };
        flow.last = ctx.now;
        if !flow.peers.contains(&(host, dst)) {
            flow.peers.retain(|peer| peer.0 != host);
            flow.peers.push_back((host, dst));
            if flow.peers.len() > MAX_PEERS {
                flow.peers.pop_front();
            }
        }
        if let Err(error) = flow.socket.send_to(udp.payload(), host) {
            let gone = [
                std::io::ErrorKind::NetworkUnreachable,
                std::io::ErrorKind::HostUnreachable,
            ];
            if gone.contains(&error.kind()) {
                ctx.unreachable(packet, false);
            }
        }
    }

    /// The flow of a port of the guest, made when there is none.
    fn flow(&mut self, ctx: &mut Ctx<'_>, guest: SocketAddr, dst: SocketAddr) -> Option<usize> {
        if let Some(&at) = self.index.get(&guest) {
            return Some(at);
        }
        if self.flows.len() >= ctx.limits.udp_flows {
            let oldest = self
                .flows
                .iter()
                .min_by_key(|(_, f)| f.last)
                .map(|(at, _)| at)?;
            ctx.stats.evicted += 1;
            self.remove(ctx, oldest);
        }
        let host = ctx.policy.to_host(dst, 0).ok()?;
        let any: IpAddr = if host.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        let entry = self.flows.vacant_entry();
        let at = entry.key();
        ctx.registry
            .register(&mut socket, Source::Udp(at).token(), Interest::READABLE)
            .ok()?;
        entry.insert(Flow {
            guest,
            socket,
            peers: VecDeque::new(),
            last: ctx.now,
            queries: VecDeque::new(),
        });
        self.index.insert(guest, at);
        Some(at)
    }

    /// The host's socket of flow `at` has datagrams.
    pub fn event(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        // Made at the first use.
        self.buffer.resize(MAX_DATAGRAM, 0);
        for _ in 0..BURST {
            if !ctx.out.ready() {
                break;
            }
            let Ok((len, from)) = flow.socket.recv_from(&mut self.buffer) else {
                return;
            };
            if let Some(&(_, seen)) = flow.peers.iter().find(|peer| peer.0 == from) {
                flow.last = ctx.now;
                ctx.out.udp(seen, flow.guest, &self.buffer[..len]);
            }
        }
        if !self.stalled.contains(&at) {
            self.stalled.push_back(at);
        }
    }

    /// True when [`Self::resume`] has something to do while the guest has room.
    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Continues flows that were interrupted.
    pub fn resume(&mut self, ctx: &mut Ctx<'_>) {
        for _ in 0..self.stalled.len() {
            if !ctx.out.ready() {
                return;
            }
            if let Some(at) = self.stalled.pop_front() {
                self.event(ctx, at);
            }
        }
    }

    /// Forgets ports that have been silent for long.
    pub fn expire(&mut self, ctx: &mut Ctx<'_>) {
        let old: Vec<usize> = self
            .flows
            .iter()
            .filter(|(_, f)| ctx.now - f.last >= IDLE)
            .map(|(at, _)| at)
            .collect();
        for at in old {
            self.remove(ctx, at);
        }
    }

    fn remove(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let mut flow = self.flows.remove(at);
        self.index.remove(&flow.guest);
        self.stalled.retain(|&other| other != at);
        let _ = ctx.registry.deregister(&mut flow.socket);
    }
}

impl Flow {
    /// How often this DNS query was sent before.
    fn attempt(&mut self, query: &[u8]) -> usize {
        let Some(id) = query.first_chunk().map(|id| u16::from_be_bytes(*id)) else {
            return 0;
        };
        if let Some(known) = self.queries.iter_mut().find(|q| q.0 == id) {
            known.1 += 1;
            return known.1;
        }
        self.queries.push_back((id, 0));
        if self.queries.len() > 16 {
            self.queries.pop_front();
        }
        0
    }
}

/// Answers a DNS query with SERVFAIL (RFC 1035, 4.1.1): the host has no resolver.
fn server_failure(ctx: &mut Ctx<'_>, guest: SocketAddr, server: SocketAddr, query: &[u8]) {
    if query.len() < 12 || query[2] & 0x80 != 0 {
        return;
    }
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | 2;
    ctx.out.udp(server, guest, &answer);
}
