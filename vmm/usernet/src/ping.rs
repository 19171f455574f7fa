//! ICMP echo: the router answers for itself; others are asked through unprivileged ICMP sockets of the host where it permits them.

use crate::flows::{Ctx, Source};
use crate::sink::Offload;
use crate::wire::{IpPacket, Out, full_checksums};
use mio::Interest;
use mio::net::UdpSocket;
use slab::Slab;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A conversation is forgotten after this time.
const IDLE: Duration = Duration::from_secs(30);
/// ICMP types of echo replies.
const REPLY_V4: u8 = 0;
const REPLY_V6: u8 = 129;

/// An echo request or reply without its ICMP header.
struct Echo<'a> {
    ident: u16,
    sequence: u16,
    data: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    guest: IpAddr,
    dst: IpAddr,
    ident: u16,
}

struct Flow {
    key: Key,
    socket: UdpSocket,
    last: Instant,
}

/// All echo conversations.
pub struct PingTable {
    flows: Slab<Flow>,
    index: HashMap<Key, usize>,
}

impl PingTable {
    pub fn new() -> Self {
        Self {
            flows: Slab::new(),
            index: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// An ICMP packet of the guest.
    pub fn packet(&mut self, ctx: &mut Ctx<'_>, packet: &IpPacket<'_>) {
        let Some(echo) = request(packet) else { return };
        if ctx.policy.is_own(packet.dst) {
            return reply(&mut ctx.out, packet.dst, packet.src, &echo);
        }
        let Ok(host) = ctx.policy.to_host(SocketAddr::new(packet.dst, 0), 0) else {
            return ctx.unreachable(packet, true);
        };
        let key = Key {
            guest: packet.src,
            dst: packet.dst,
            ident: echo.ident,
        };
        let Some(at) = self.flow(ctx, key, host) else {
            return;
        };
        let flow = &mut self.flows[at];
        flow.last = ctx.now;
        let _ = flow.socket.send(&message(&echo, host.is_ipv4()));
    }

    fn flow(&mut self, ctx: &mut Ctx<'_>, key: Key, host: SocketAddr) -> Option<usize> {
        if let Some(&at) = self.index.get(&key) {
            return Some(at);
        }
        if self.flows.len() >= ctx.limits.ping_flows {
            let oldest = self
                .flows
                .iter()
                .min_by_key(|(_, f)| f.last)
                .map(|(at, _)| at)?;
            self.remove(ctx, oldest);
        }
        let (domain, protocol) = if host.is_ipv4() {
            (Domain::IPV4, socket2::Protocol::ICMPV4)
        } else {
            (Domain::IPV6, socket2::Protocol::ICMPV6)
        };
        // Forbidden by net.ipv4.ping_group_range on some hosts: then nobody answers.
        let raw = Socket::new(domain, Type::DGRAM, Some(protocol)).ok()?;
        raw.set_nonblocking(true).ok()?;
        raw.connect(&host.into()).ok()?;
        let mut socket = UdpSocket::from_std(raw.into());
        let entry = self.flows.vacant_entry();
        let at = entry.key();
        ctx.registry
            .register(&mut socket, Source::Ping(at).token(), Interest::READABLE)
            .ok()?;
        entry.insert(Flow {
            key,
            socket,
            last: ctx.now,
        });
        self.index.insert(key, at);
        Some(at)
    }

    /// Replies came in.
    pub fn event(&mut self, ctx: &mut Ctx<'_>, at: usize) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        let mut buffer = vec![0; 65_536];
        while let Ok(len) = flow.socket.recv(&mut buffer) {
            let bytes = &buffer[..len];
            if len >= 8 && (bytes[0] == REPLY_V4 || bytes[0] == REPLY_V6) && ctx.out.ready() {
                // The host chose an identifier of its own.
                let echo = Echo {
                    ident: flow.key.ident,
                    sequence: u16::from_be_bytes([bytes[6], bytes[7]]),
                    data: &bytes[8..],
                };
                reply(&mut ctx.out, flow.key.dst, flow.key.guest, &echo);
            }
        }
    }

    /// Forgets conversations that have been silent for long.
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
        self.index.remove(&flow.key);
        let _ = ctx.registry.deregister(&mut flow.socket);
    }
}

/// Reads an echo request.
fn request<'a>(packet: &IpPacket<'a>) -> Option<Echo<'a>> {
    let bytes = packet.payload;
    let wanted = if packet.src.is_ipv4() { 8 } else { 128 };
    (bytes.len() >= 8 && bytes[0] == wanted && bytes[1] == 0).then(|| Echo {
        ident: u16::from_be_bytes([bytes[4], bytes[5]]),
        sequence: u16::from_be_bytes([bytes[6], bytes[7]]),
        data: &bytes[8..],
    })
}

/// The bytes of an echo request for a host socket, which fills in identifier and checksum.
fn message(echo: &Echo<'_>, v4: bool) -> Vec<u8> {
    let mut bytes = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    bytes.extend(echo.ident.to_be_bytes());
    bytes.extend(echo.sequence.to_be_bytes());
    bytes.extend(echo.data);
    bytes
}

/// Sends an echo reply to the guest.
fn reply(out: &mut Out<'_>, from: IpAddr, to: IpAddr, echo: &Echo<'_>) {
    let len = 8 + echo.data.len();
    let (ident, seq_no, data) = (echo.ident, echo.sequence, echo.data);
    match (from, to) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip = IpRepr::new(
                IpAddress::Ipv4(src),
                IpAddress::Ipv4(dst),
                IpProtocol::Icmp,
                len,
                64,
            );
            let message = Icmpv4Repr::EchoReply {
                ident,
                seq_no,
                data,
            };
            out.ip(ip, Offload::default(), |bytes| {
                message.emit(&mut Icmpv4Packet::new_unchecked(bytes), &full_checksums())
            });
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = IpRepr::new(
                IpAddress::Ipv6(src),
                IpAddress::Ipv6(dst),
                IpProtocol::Icmpv6,
                len,
                64,
            );
            let message = Icmpv6Repr::EchoReply {
                ident,
                seq_no,
                data,
            };
            out.ip(ip, Offload::default(), |bytes| {
                message.emit(
                    &src,
                    &dst,
                    &mut Icmpv6Packet::new_unchecked(bytes),
                    &full_checksums(),
                )
            });
        }
        _ => {}
    }
}
