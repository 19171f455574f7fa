//! UDP and ICMP echo sockets: [`Mailbox`] holds what came; sending builds packets and finds their way.

use super::link::Link;
use super::route::Route;
use super::{Kind, Proto, Role, Stack};
use crate::errno::{Errno, Result};
use crate::ready;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smoltcp::iface::PollResult;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr,
};

/// Largest UDP payload over IPv4.
const MAX_PAYLOAD: usize = 65_507;
/// Largest IPv4 packet that is cut into fragments here (smoltcp's buffer).
const MAX_FRAGMENTED: usize = 16_384;
/// What a datagram counts for besides its bytes (a `sk_buff`).
const OVERHEAD: usize = 512;
/// Default of SO_RCVBUF (net.core.rmem_default).
pub(crate) const DEFAULT_RECEIVE: usize = 212_992;
/// Packets to a silent neighbour are dropped after this time, microseconds.
const NEIGHBOUR_TIME: i64 = 3_000_000;

/// A datagram that waits to be read.
pub(crate) struct Datagram {
    pub data: Vec<u8>,
    pub from: SocketAddr,
    /// The local address it came to.
    pub to: IpAddr,
    pub link: usize,
    pub hop_limit: u8,
    pub traffic_class: u8,
    /// CLOCK_REALTIME, nanoseconds.
    pub time: u64,
}

/// Received datagrams of a socket.
#[derive(Default)]
pub(crate) struct Mailbox {
    pub queue: VecDeque<Datagram>,
    pub bytes: usize,
    /// Multicast groups joined on links.
    pub groups: Vec<(usize, IpAddr)>,
}

impl Mailbox {
    pub fn push(&mut self, datagram: Datagram, limit: usize) -> bool {
        let cost = datagram.data.len() + OVERHEAD;
        if self.bytes + cost > limit {
            return false;
        }
        self.bytes += cost;
        self.queue.push_back(datagram);
        true
    }

    pub fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.pop_front()?;
        self.bytes -= datagram.data.len() + OVERHEAD;
        Some(datagram)
    }
}

/// What to send besides bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    pub source: Option<IpAddr>,
    pub link: Option<usize>,
    pub hop_limit: Option<u8>,
}

impl Stack {
    /// Sends one datagram of socket `id`.
    pub(crate) fn send_datagram(
        &mut self,
        id: usize,
        to: SocketAddr,
        payload: &[u8],
        extra: Extra,
    ) -> Result<()> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Errno::EMSGSIZE);
        }
        let sock = &self.sockets[id];
        if self.is_broadcast(to.ip()) && !sock.options.broadcast {
            return Err(Errno::EACCES);
        }
        let (kind, hop_limit) = (
            sock.kind,
            extra
                .hop_limit
                .or(sock.options.hop_limit_for(to.ip()))
                .unwrap_or(64),
        );
        let bound_link = extra.link.or(sock.options.bound_link).or(sock
            .options
            .multicast_link
            .filter(|_| to.ip().is_multicast()));
        let route = self.route(to, bound_link).ok_or(Errno::ENETUNREACH)?;
        let bound = sock
            .local
            .map(|l| l.ip())
            .filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        let source = extra.source.or(bound).unwrap_or(route.source);
        if source.is_ipv4() != to.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let port = match self.sockets[id].local {
            Some(local) => local.port(),
            None => self.autobind(id)?,
        };
        let from = SocketAddr::new(source, port);
        if route.link == 0 {
            return self.deliver_locally(id, kind, from, to, payload);
        }
        if to.ip().is_multicast() && self.sockets[id].options.multicast_loop {
            self.deliver_udp(route.link, from, to, payload, hop_limit, 0);
        }
        let packet = self.build(kind, route, from, to, payload, hop_limit)?;
        self.transmit(id, route, &packet)
    }

    /// Gives a socket an ephemeral port.
    pub(crate) fn autobind(&mut self, id: usize) -> Result<u16> {
        let any = SocketAddr::new(self.sockets[id].any(), 0);
        self.bind(id, any)?;
        Ok(self.sockets[id].local.map_or(0, |l| l.port()))
    }

    /// A datagram that stays on this machine.
    fn deliver_locally(
        &mut self,
        id: usize,
        kind: Kind,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> Result<()> {
        match kind {
            Kind::Udp => {
                if !self.deliver_udp(0, from, to, payload, 64, 0)
                    && self.sockets[id].remote == Some(to)
                {
                    self.fail(id, Errno::ECONNREFUSED);
                }
            }
            Kind::Ping => {
                if let Some(reply) = echo_reply(payload, from, to.ip().is_ipv4()) {
                    self.deliver_ping(0, to.ip(), from.ip(), &reply, 64);
                }
            }
            Kind::Tcp => {}
        }
        Ok(())
    }

    /// Makes the IP packet of a datagram.
    fn build(
        &self,
        kind: Kind,
        route: Route,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        hop_limit: u8,
    ) -> Result<Vec<u8>> {
        let (src, dst) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        let info = &self.links[route.link].info;
        let udp = UdpRepr {
            src_port: from.port(),
            dst_port: to.port(),
        };
        let (protocol, len) = match kind {
            Kind::Udp => (IpProtocol::Udp, udp.header_len() + payload.len()),
            _ if to.is_ipv4() => (IpProtocol::Icmp, payload.len()),
            _ => (IpProtocol::Icmpv6, payload.len()),
        };
        let ip = IpRepr::new(src, dst, protocol, len, hop_limit);
        let total = ip.buffer_len();
        if total > info.mtu && (to.is_ipv6() || total > MAX_FRAGMENTED) {
            return Err(Errno::EMSGSIZE);
        }
        let mut packet = vec![0; total];
        let mut caps = ChecksumCapabilities::default();
        if info.checksum && total <= info.mtu {
            caps.udp = smoltcp::phy::Checksum::None;
        }
        ip.emit(&mut packet, &caps);
        let body = &mut packet[ip.header_len()..];
        match kind {
            Kind::Udp => udp.emit(
                &mut UdpPacket::new_unchecked(body),
                &src,
                &dst,
                payload.len(),
                |b| b.copy_from_slice(payload),
                &caps,
            ),
            _ => write_echo(body, payload, from, to),
        }
        Ok(packet)
    }

    /// Puts a packet into the lane of its next hop and sends what can be sent.
    fn transmit(&mut self, id: usize, route: Route, packet: &[u8]) -> Result<()> {
        let now = self.now();
        let link = &mut self.links[route.link];
        link.run_lanes(now);
        let socket = link.lane(route.next_hop).socket(packet[0] >> 4 == 4);
        if socket.send_slice(packet).is_err() {
            self.sockets[id].blocked = true;
            return Err(Errno::EAGAIN);
        }
        link.run_lanes(now);
        Ok(())
    }

    /// Lets the lanes of all links send, and wakes those who wait for room.
    pub(crate) fn run_lanes(&mut self) {
        let now = self.now();
        for link in &mut self.links[1..] {
            link.run_lanes(now);
        }
        let full = self.links[1..]
            .iter_mut()
            .any(|link| link.lanes.iter_mut().any(|lane| !lane.is_empty()));
        if full {
            return;
        }
        let blocked: Vec<usize> = self
            .sockets
            .iter()
            .filter(|(_, s)| s.blocked && s.kind != Kind::Tcp)
            .map(|(id, _)| id)
            .collect();
        for id in blocked {
            self.sockets[id].blocked = false;
            self.wake(id, ready::OUT);
        }
    }

    /// Gives a UDP datagram to the sockets it is for. False when there is none.
    pub(crate) fn deliver_udp(
        &mut self,
        link: usize,
        from: SocketAddr,
        to: SocketAddr,
        data: &[u8],
        hop_limit: u8,
        traffic_class: u8,
    ) -> bool {
        let many = to.ip().is_multicast() || self.is_broadcast(to.ip());
        let receivers: Vec<usize> = if many {
            self.group_receivers(link, from, to)
        } else {
            self.receiver(from, to).into_iter().collect()
        };
        let time = self.host.realtime();
        for &id in &receivers {
            let datagram = Datagram {
                data: data.to_vec(),
                from,
                to: to.ip(),
                link,
                hop_limit,
                traffic_class,
                time,
            };
            self.post(id, datagram);
        }
        !receivers.is_empty()
    }

    fn post(&mut self, id: usize, datagram: Datagram) {
        let sock = &mut self.sockets[id];
        let limit = sock.options.receive_buffer.unwrap_or(DEFAULT_RECEIVE);
        let Role::Mailbox(mailbox) = &mut sock.role else {
            return;
        };
        if sock.shut_read {
            return;
        }
        if mailbox.push(datagram, limit) {
            self.wake(id, ready::IN);
        } else {
            self.counters.buffer_full += 1;
        }
    }

    /// The socket for a datagram: the one that is bound and connected most exactly.
    fn receiver(&self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        let candidates = self.at_port(Proto::Udp, to.port());
        let spread = from.port() as usize;
        let mut best: Option<(u32, usize)> = None;
        for (i, &id) in candidates.iter().enumerate() {
            let Some(score) = self.score(id, from, to) else {
                continue;
            };
            let score = score * 2 + u32::from(i == spread % candidates.len());
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, id));
            }
        }
        best.map(|(_, id)| id)
    }

    fn score(&self, id: usize, from: SocketAddr, to: SocketAddr) -> Option<u32> {
        let sock = &self.sockets[id];
        let local = sock.local.filter(|local| sock.takes(*local, to.ip()))?;
        if sock.remote.is_some_and(|remote| !same(remote, from)) {
            return None;
        }
        let exact =
            u32::from(!local.ip().is_unspecified()) + u32::from(local.is_ipv4() == to.is_ipv4());
        Some(u32::from(sock.remote.is_some()) * 4 + exact)
    }

    fn group_receivers(&self, link: usize, from: SocketAddr, to: SocketAddr) -> Vec<usize> {
        let broadcast = !to.ip().is_multicast();
        let wants = |id: &usize| {
            let sock = &self.sockets[*id];
            let Role::Mailbox(mailbox) = &sock.role else {
                return false;
            };
            let bound = sock.local.is_some_and(|l| {
                l.ip() == to.ip() || sock.takes(l, to.ip()) && l.ip().is_unspecified()
            });
            let member = broadcast
                || mailbox
                    .groups
                    .iter()
                    .any(|(l, group)| *group == to.ip() && (*l == link || link == 0));
            bound && member && sock.remote.is_none_or(|remote| same(remote, from))
        };
        self.at_port(Proto::Udp, to.port())
            .iter()
            .copied()
            .filter(wants)
            .collect()
    }

    /// Gives an echo reply to the socket with its identifier. False when there is none.
    pub(crate) fn deliver_ping(
        &mut self,
        link: usize,
        from: IpAddr,
        to: IpAddr,
        message: &[u8],
        hop_limit: u8,
    ) -> bool {
        let Some(ident) = message.get(4..6).map(|b| u16::from_be_bytes([b[0], b[1]])) else {
            return false;
        };
        let owners = self.at_port(Proto::Ping, ident).to_vec();
        let mine = |id: &usize| self.sockets[*id].v6 == from.is_ipv6();
        let Some(id) = owners.into_iter().find(mine) else {
            return false;
        };
        let time = self.host.realtime();
        let datagram = Datagram {
            data: message.to_vec(),
            from: SocketAddr::new(from, 0),
            to,
            link,
            hop_limit,
            traffic_class: 0,
            time,
        };
        self.post(id, datagram);
        true
    }
}

impl Link {
    /// Sends what waits in the lanes; drops what a silent neighbour does not take.
    pub fn run_lanes(&mut self, now: smoltcp::time::Instant) {
        let mut lanes = core::mem::take(&mut self.lanes);
        for lane in &mut lanes {
            if lane.is_empty() {
                lane.waiting = None;
                continue;
            }
            let asked = self.sent.frames;
            while self.poll_lane(now, lane) {}
            let empty = lane.is_empty();
            if !empty && self.sent.frames == asked {
                self.solicit(now, lane.next_hop);
            }
            let since = *lane.waiting.get_or_insert(now.total_micros());
            if empty {
                lane.waiting = None;
            } else if now.total_micros() - since > NEIGHBOUR_TIME {
                *lane = super::link::Lane::empty(lane.next_hop);
            }
        }
        self.lanes = lanes;
    }
}

impl Link {
    /// Sends one packet of a lane with all its fragments. False when there is none, or no room.
    fn poll_lane(&mut self, now: smoltcp::time::Instant, lane: &mut super::link::Lane) -> bool {
        let (iface, mut port) = self.split(None);
        if iface.poll_egress(now, &mut port, &mut lane.set) == PollResult::None {
            return false;
        }
        // smoltcp has one place for a packet that is being cut up, and says "now" while it is in use.
        let mut nobody = smoltcp::iface::SocketSet::new(Vec::new());
        while iface.poll_at(now, &nobody) == Some(smoltcp::time::Instant::ZERO) && port.ready() {
            iface.poll_egress(now, &mut port, &mut nobody);
        }
        true
    }
}

/// The same peer; scope and flow do not matter.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && a.port() == b.port()
}

/// Writes an echo request: the socket's port is its identifier, whatever the program put there.
fn write_echo(body: &mut [u8], message: &[u8], from: SocketAddr, to: SocketAddr) {
    body.copy_from_slice(message);
    if body.len() < 8 {
        return;
    }
    body[4..6].copy_from_slice(&from.port().to_be_bytes());
    match (from.ip(), to.ip()) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Icmpv6Packet::new_unchecked(body).fill_checksum(&src, &dst)
        }
        _ => Icmpv4Packet::new_unchecked(body).fill_checksum(),
    }
}

/// The reply of this machine to an echo request of its own.
fn echo_reply(request: &[u8], from: SocketAddr, v4: bool) -> Option<Vec<u8>> {
    let mut reply = request.to_vec();
    let wanted = if v4 { 8 } else { 128 };
    (reply.len() >= 8 && reply[0] == wanted).then_some(())?;
    reply[0] = if v4 { 0 } else { 129 };
    reply[4..6].copy_from_slice(&from.port().to_be_bytes());
    Some(reply)
}
