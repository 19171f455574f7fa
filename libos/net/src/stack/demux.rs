//! Where packets come to: each is given to the one connection or socket it is for, the rest to smoltcp.

use super::conn::{ACK_DELAY, BULK, Key};
use super::link::ETHERNET;
use super::port::offload;
use super::{Kind, Stack};
use crate::errno::Errno;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{raw, tcp::State};
use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

/// Frames taken from a card before others get their turn.
const BURST: usize = 128;

/// ICMPv6 type of a neighbour advertisement.
const NEIGHBOUR_ADVERT: u8 = 136;

/// A checked IP packet.
#[derive(Clone, Copy)]
struct Packet<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    payload: &'a [u8],
    fragment: bool,
    hop_limit: u8,
    traffic_class: u8,
}

impl<'a> Packet<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.first()? >> 4 == 6 {
            let p = Ipv6Packet::new_checked(bytes).ok()?;
            let end = p.header_len() + usize::from(p.payload_len());
            return Some(Self {
                src: p.src_addr().into(),
                dst: p.dst_addr().into(),
                protocol: p.next_header(),
                payload: bytes.get(p.header_len()..end)?,
                fragment: p.next_header() == IpProtocol::Ipv6Frag,
                hop_limit: p.hop_limit(),
                traffic_class: p.traffic_class(),
            });
        }
        let p = Ipv4Packet::new_checked(bytes).ok()?;
        (p.version() == 4).then_some(())?;
        Some(Self {
            src: p.src_addr().into(),
            dst: p.dst_addr().into(),
            protocol: p.next_header(),
            payload: bytes.get(usize::from(p.header_len())..usize::from(p.total_len()))?,
            fragment: p.more_frags() || p.frag_offset() != 0,
            hop_limit: p.hop_limit(),
            traffic_class: p.dscp() << 2 | p.ecn(),
        })
    }

    /// The transport checksum is right.
    fn intact(&self) -> bool {
        match self.protocol {
            IpProtocol::Tcp => TcpPacket::new_checked(self.payload)
                .is_ok_and(|p| p.verify_checksum(&self.src.into(), &self.dst.into())),
            IpProtocol::Udp => UdpPacket::new_checked(self.payload)
                .is_ok_and(|p| p.verify_checksum(&self.src.into(), &self.dst.into())),
            _ => true,
        }
    }
}

impl Stack {
    /// Takes frames from link `link` until there are none, or until others must have their turn. True when there may be more.
    pub(crate) fn receive_frames(&mut self, link: usize) -> bool {
        let Some(mut device) = self.links[link].device.take() else {
            return false;
        };
        let mut more = true;
        for _ in 0..BURST {
            more = device.receive(&mut |frame, good| self.ingress(link, frame, good));
            if !more {
                break;
            }
        }
        let entry = &mut self.links[link];
        for answer in entry.queue.drain(..) {
            device.send(answer.len(), &mut |bytes| {
                bytes.copy_from_slice(&answer);
                if entry.info.checksum {
                    offload(bytes, None)
                } else {
                    Default::default()
                }
            });
            entry.touched = true;
        }
        entry.device = Some(device);
        if core::mem::take(&mut entry.neighbours_changed) {
            self.resume_unresolved(link);
        }
        more
    }

    /// Somebody's hardware address became known: whoever waited for it goes on.
    fn resume_unresolved(&mut self, link: usize) {
        let waiting: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, c)| c.link == link)
            .map(|(id, _)| id)
            .collect();
        waiting.into_iter().for_each(|conn| self.touch(conn));
        self.run_lanes();
    }

    /// A frame from a card.
    fn ingress(&mut self, link: usize, frame: &[u8], good: bool) {
        self.counters.received += 1;
        let entry = &mut self.links[link];
        entry.received = (entry.received.0 + 1, entry.received.1 + frame.len() as u64);
        let ip = matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
        let Some(packet) = frame.get(ETHERNET..).filter(|_| ip).and_then(Packet::parse) else {
            // ARP, or nonsense: smoltcp knows.
            self.links[link].neighbours_changed = true;
            self.links[link].learn(frame);
            return self.feed_nobody(link, frame);
        };
        if !good && !packet.fragment && !packet.intact() {
            self.counters.malformed += 1;
            return;
        }
        let spoofed = packet.src.is_loopback() || packet.dst.is_loopback();
        if !spoofed {
            self.packet(link, frame, &packet);
        }
    }

    /// A packet on the loopback.
    pub(crate) fn ingress_looped(&mut self, bytes: &[u8]) {
        let entry = &mut self.links[0];
        entry.received = (entry.received.0 + 1, entry.received.1 + bytes.len() as u64);
        if let Some(packet) = Packet::parse(bytes) {
            self.packet(0, bytes, &packet);
        }
    }

    fn packet(&mut self, link: usize, frame: &[u8], packet: &Packet<'_>) {
        match packet.protocol {
            _ if packet.fragment => self.fragment(link, frame),
            IpProtocol::Tcp => self.tcp(link, frame, packet),
            IpProtocol::Udp => self.udp(link, frame, packet),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.icmp(link, frame, packet),
            _ => self.feed_nobody(link, frame),
        }
    }

    fn feed_nobody(&mut self, link: usize, frame: &[u8]) {
        let now = self.now();
        let (iface, mut port) = self.links[link].split(Some(frame));
        iface.poll_ingress_single(now, &mut port, &mut self.nobody);
    }

    fn tcp(&mut self, link: usize, frame: &[u8], packet: &Packet<'_>) {
        let Ok(tcp) = TcpPacket::new_checked(packet.payload) else {
            self.counters.malformed += 1;
            return;
        };
        let key = Key {
            local: SocketAddr::new(packet.dst, tcp.dst_port()),
            remote: SocketAddr::new(packet.src, tcp.src_port()),
        };
        let request = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
        let mut known = self
            .flows
            .get(&key)
            .copied()
            .filter(|&conn| self.conns[conn].link == link);
        if request
            && let Some(conn) = known
            && matches!(self.conns[conn].state(), State::TimeWait | State::Closed)
            && self.conns[conn].owner == super::conn::Owner::Nobody
        {
            // A new connection between the same ends: the old one has nothing more to say.
            self.remove_conn(conn);
            known = None;
        }
        if known.is_none() && request && (link == 0 || self.is_own(packet.dst)) {
            let Some(listener) = self.listener_for(&key) else {
                return self.feed_nobody(link, frame);
            };
            known = self.begin_handshake(listener, key, link);
            if known.is_none() {
                return;
            }
        }
        let Some(conn) = known else {
            return self.feed_nobody(link, frame);
        };
        let before = self.conns[conn].state();
        let now = self.now();
        let entry = &mut self.conns[conn];
        let at_once = link == 0 || tcp.payload().len() >= BULK;
        entry
            .socket()
            .set_ack_delay(if at_once { None } else { Some(ACK_DELAY) });
        let (iface, mut port) = self.links[link].split(Some(frame));
        iface.poll_ingress_single(now, &mut port, &mut entry.set);
        if tcp.rst()
            && before != State::Closed
            && matches!(entry.state(), State::Closed | State::Listen)
        {
            entry.was_reset = true;
        }
        self.touch(conn);
    }

    fn udp(&mut self, link: usize, frame: &[u8], packet: &Packet<'_>) {
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else {
            self.counters.malformed += 1;
            return;
        };
        if udp.dst_port() == 68 && self.links[link].dhcp.is_some() {
            return self.feed_auto(link, frame);
        }
        let (from, to) = (
            SocketAddr::new(packet.src, udp.src_port()),
            SocketAddr::new(packet.dst, udp.dst_port()),
        );
        if !self.deliver_udp(
            link,
            from,
            to,
            udp.payload(),
            packet.hop_limit,
            packet.traffic_class,
        ) && !to.ip().is_multicast()
        {
            self.feed_nobody_udp(link, frame);
        }
    }

    /// Nobody has the port: smoltcp answers "port unreachable".
    fn feed_nobody_udp(&mut self, link: usize, frame: &[u8]) {
        self.feed_nobody(link, frame);
    }

    fn feed_auto(&mut self, link: usize, frame: &[u8]) {
        let now = self.now();
        let mut auto = core::mem::replace(&mut self.links[link].auto, SocketSet::new(Vec::new()));
        let (iface, mut port) = self.links[link].split(Some(frame));
        iface.poll_ingress_single(now, &mut port, &mut auto);
        self.links[link].auto = auto;
    }

    fn icmp(&mut self, link: usize, frame: &[u8], packet: &Packet<'_>) {
        let kind = packet.payload.first().copied().unwrap_or(255);
        let (reply, unreachable) = if packet.src.is_ipv4() {
            (0, 3)
        } else {
            (129, 1)
        };
        if kind == reply
            && self.deliver_ping(
                link,
                packet.src,
                packet.dst,
                packet.payload,
                packet.hop_limit,
            )
        {
            return;
        }
        if kind == unreachable {
            return self.unreachable(packet);
        }
        self.links[link].neighbours_changed |= packet.src.is_ipv6() && kind == NEIGHBOUR_ADVERT;
        self.feed_nobody(link, frame);
    }

    /// Somebody on the way says that a packet of ours cannot arrive.
    fn unreachable(&mut self, packet: &Packet<'_>) {
        let Some((code, quoted)) = packet.payload.get(1).zip(packet.payload.get(8..)) else {
            return;
        };
        let Some((protocol, local, remote)) = quoted_ends(quoted) else {
            return;
        };
        let error = error_of(*code, packet.src.is_ipv4());
        match protocol {
            IpProtocol::Tcp => {
                let Some(&conn) = self.flows.get(&Key { local, remote }) else {
                    return;
                };
                // Established connections bear it (RFC 1122, 4.2.3.9); attempts end.
                if self.conns[conn].connecting {
                    self.abort(conn, Some(error));
                }
            }
            IpProtocol::Udp => {
                let owners = self.at_port(super::Proto::Udp, local.port()).to_vec();
                for id in owners {
                    let sock = &self.sockets[id];
                    if sock.kind == Kind::Udp
                        && sock
                            .remote
                            .is_some_and(|r| r.ip() == remote.ip() && r.port() == remote.port())
                    {
                        self.fail(id, error);
                    }
                }
            }
            _ => {}
        }
    }

    /// A piece of an IPv4 packet: smoltcp keeps it until the rest is there.
    fn fragment(&mut self, link: usize, frame: &[u8]) {
        let now = self.now();
        let (mut whole, handle) = self.links[link].whole.take().unwrap_or_else(reassembly);
        let (iface, mut port) = self.links[link].split(Some(frame));
        iface.poll_ingress_single(now, &mut port, &mut whole);
        let complete = whole
            .get_mut::<raw::Socket<'_>>(handle)
            .recv()
            .map(<[u8]>::to_vec);
        self.links[link].whole = Some((whole, handle));
        let Ok(bytes) = complete else { return };
        let Some(packet) = Packet::parse(&bytes) else {
            return;
        };
        if packet.protocol == IpProtocol::Udp
            && packet.intact()
            && let Ok(udp) = UdpPacket::new_checked(packet.payload)
        {
            let (from, to) = (
                SocketAddr::new(packet.src, udp.src_port()),
                SocketAddr::new(packet.dst, udp.dst_port()),
            );
            self.deliver_udp(
                link,
                from,
                to,
                udp.payload(),
                packet.hop_limit,
                packet.traffic_class,
            );
        }
    }
}

/// A socket set that takes every reassembled IPv4 packet.
fn reassembly() -> (SocketSet<'static>, SocketHandle) {
    let mut set = SocketSet::new(Vec::new());
    let buffer =
        |bytes| raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 2], vec![0; bytes]);
    let handle = set.add(raw::Socket::new(
        Some(IpVersion::Ipv4),
        None,
        buffer(66_000),
        buffer(0),
    ));
    (set, handle)
}

/// Protocol, local and remote end of the packet of ours that an ICMP error quotes (it may be cut off after the ports).
fn quoted_ends(bytes: &[u8]) -> Option<(IpProtocol, SocketAddr, SocketAddr)> {
    let (protocol, src, dst, rest): (u8, IpAddr, IpAddr, &[u8]) = match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 15) * 4;
            let ip = |at: usize| {
                bytes
                    .get(at..at + 4)
                    .map(|b| IpAddr::from([b[0], b[1], b[2], b[3]]))
            };
            (*bytes.get(9)?, ip(12)?, ip(16)?, bytes.get(header..)?)
        }
        6 => {
            let ip = |at: usize| {
                bytes
                    .get(at..at + 16)
                    .and_then(|b| <[u8; 16]>::try_from(b).ok())
                    .map(IpAddr::from)
            };
            (*bytes.get(6)?, ip(8)?, ip(24)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| {
        rest.get(at..at + 2)
            .map(|b| u16::from_be_bytes([b[0], b[1]]))
    };
    Some((
        protocol.into(),
        SocketAddr::new(src, port(0)?),
        SocketAddr::new(dst, port(2)?),
    ))
}

/// What Linux makes of the code of a "destination unreachable" message (icmp_err_convert, icmpv6_err_convert).
fn error_of(code: u8, v4: bool) -> Errno {
    match (code, v4) {
        (3, true) | (4, false) => Errno::ECONNREFUSED,
        (0 | 6 | 9 | 11, true) | (0, false) => Errno::ENETUNREACH,
        (2, true) => Errno::ENOPROTOOPT,
        (4, true) => Errno::EMSGSIZE,
        (1 | 6, false) => Errno::EACCES,
        _ => Errno::EHOSTUNREACH,
    }
}
