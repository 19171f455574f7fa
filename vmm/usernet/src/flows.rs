//! What all kinds of flows share: the context of one call ([`Ctx`]), event tokens, and the port through which smoltcp sees the guest.

use crate::config::Limits;
use crate::policy::Policy;
use crate::sink::Offload;
use crate::usernet::Stats;
use crate::wire::{IpPacket, Out, full_checksums, no_transport_checksums, shave_window};
use mio::{Registry, Token};
use smoltcp::iface::{Interface, PollResult, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv6DstUnreachable, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, IpRepr};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Largest TCP packet that stands for several segments.
const SEGMENT_MAX: usize = 65_535;

/// What an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Tcp(usize),
    Udp(usize),
    Ping(usize),
    Forward(usize),
}

impl Source {
    pub fn token(self) -> Token {
        Token(match self {
            Self::Tcp(i) => i << 2,
            Self::Udp(i) => i << 2 | 1,
            Self::Ping(i) => i << 2 | 2,
            Self::Forward(i) => i << 2 | 3,
        })
    }

    pub fn of(token: Token) -> Self {
        let i = token.0 >> 2;
        match token.0 & 3 {
            0 => Self::Tcp(i),
            1 => Self::Udp(i),
            2 => Self::Ping(i),
            _ => Self::Forward(i),
        }
    }
}

/// What one call of the user network works with.
pub struct Ctx<'a> {
    pub registry: &'a Registry,
    pub policy: &'a Policy,
    pub limits: &'a Limits,
    pub iface: &'a mut Interface,
    pub out: Out<'a>,
    pub stats: &'a mut Stats,
    pub now: Instant,
    /// The moment that smoltcp counts from.
    pub epoch: Instant,
}

impl Ctx<'_> {
    /// `now` for smoltcp.
    pub fn stack_now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros((self.now - self.epoch).as_micros() as i64)
    }

    /// A moment of smoltcp's.
    pub fn moment_of(&self, at: smoltcp::time::Instant) -> Instant {
        self.epoch + Duration::from_micros(at.total_micros().max(0) as u64)
    }

    /// Gives one packet of the guest to smoltcp.
    pub fn feed(&mut self, sockets: &mut SocketSet<'_>, packet: &[u8]) {
        let now = self.stack_now();
        self.iface.poll_ingress_single(
            now,
            &mut Port {
                inbound: Some(packet),
                out: &mut self.out,
            },
            sockets,
        );
    }

    /// Sends what the sockets have while the guest takes it. True when something was sent.
    pub fn drain(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let now = self.stack_now();
        let mut any = false;
        while self.out.ready()
            && self.iface.poll_egress(
                now,
                &mut Port {
                    inbound: None,
                    out: &mut self.out,
                },
                sockets,
            ) != PollResult::None
        {
            any = true;
        }
        any
    }

    /// Tells the guest that `packet` could not be delivered.
    pub fn unreachable(&mut self, packet: &IpPacket<'_>, prohibited: bool) {
        match (packet.src, packet.dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => self.unreachable_v4(packet, prohibited),
            (IpAddr::V6(_), IpAddr::V6(_)) => self.unreachable_v6(packet, prohibited),
            _ => {}
        }
    }

    fn unreachable_v4(&mut self, packet: &IpPacket<'_>, prohibited: bool) {
        let Ok(view) = Ipv4Packet::new_checked(packet.bytes) else {
            return;
        };
        let Ok(header) = Ipv4Repr::parse(&view, &smoltcp::phy::ChecksumCapabilities::ignored())
        else {
            return;
        };
        let reason = if prohibited {
            Icmpv4DstUnreachable::HostProhibited
        } else {
            Icmpv4DstUnreachable::HostUnreachable
        };
        let data = &packet.payload[..packet.payload.len().min(64)];
        let message = Icmpv4Repr::DstUnreachable {
            reason,
            header,
            data,
        };
        let reply = Ipv4Repr {
            src_addr: header.dst_addr,
            dst_addr: header.src_addr,
            next_header: IpProtocol::Icmp,
            payload_len: message.buffer_len(),
            hop_limit: 64,
        };
        self.out
            .ip(IpRepr::Ipv4(reply), Offload::default(), |bytes| {
                message.emit(&mut Icmpv4Packet::new_unchecked(bytes), &full_checksums());
            });
    }

    fn unreachable_v6(&mut self, packet: &IpPacket<'_>, prohibited: bool) {
        let Ok(view) = Ipv6Packet::new_checked(packet.bytes) else {
            return;
        };
        let Ok(header) = Ipv6Repr::parse(&view) else {
            return;
        };
        let reason = if prohibited {
            Icmpv6DstUnreachable::AdminProhibit
        } else {
            Icmpv6DstUnreachable::AddrUnreachable
        };
        let data = &packet.payload[..packet.payload.len().min(64)];
        let message = Icmpv6Repr::DstUnreachable {
            reason,
            header,
            data,
        };
        let reply = Ipv6Repr {
            src_addr: header.dst_addr,
            dst_addr: header.src_addr,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: 64,
        };
        self.out
            .ip(IpRepr::Ipv6(reply), Offload::default(), |bytes| {
                message.emit(
                    &reply.src_addr,
                    &reply.dst_addr,
                    &mut Icmpv6Packet::new_unchecked(bytes),
                    &full_checksums(),
                );
            });
    }
}

/// smoltcp's device: one packet in, any number out.
pub struct Port<'a, 'o> {
    pub inbound: Option<&'a [u8]>,
    pub out: &'a mut Out<'o>,
}

pub struct Inbound<'a>(&'a [u8]);

pub struct Outbound<'a, 'o> {
    out: &'a mut Out<'o>,
    segment: Option<u16>,
}

impl<'o> Device for Port<'_, 'o> {
    type RxToken<'x>
        = Inbound<'x>
    where
        Self: 'x;
    type TxToken<'x>
        = Outbound<'x, 'o>
    where
        Self: 'x;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Inbound<'_>, Outbound<'_, 'o>)> {
        let packet = self.inbound.take()?;
        Some((
            Inbound(packet),
            Outbound {
                out: self.out,
                segment: None,
            },
        ))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outbound<'_, 'o>> {
        self.out.ready().then_some(Outbound {
            out: self.out,
            segment: None,
        })
    }

    /// Checksums of the guest are not verified: memory does not corrupt them, and a guest that sends wrong ones harms itself.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.out.mtu;
        caps.checksum = if self.out.guest.checksum {
            no_transport_checksums()
        } else {
            full_checksums()
        };
        for checksum in [
            &mut caps.checksum.ipv4,
            &mut caps.checksum.tcp,
            &mut caps.checksum.udp,
        ] {
            *checksum = if checksum.tx() {
                Checksum::Tx
            } else {
                Checksum::None
            };
        }
        if self.out.guest.checksum && self.out.guest.tso4 {
            caps.segmentation.tcpv4 = NonZeroUsize::new(SEGMENT_MAX);
        }
        caps
    }
}

impl RxToken for Inbound<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outbound<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut result = None;
        let mut f = Some(f);
        let unchecked = self.out.guest.checksum;
        self.out.ethernet(
            None,
            len,
            Offload {
                unchecked,
                segment: self.segment,
            },
            |bytes| {
                if let Some(f) = f.take() {
                    result = Some(f(bytes));
                    shave_window(bytes, !unchecked);
                }
            },
        );
        match (result, f) {
            (Some(result), _) => result,
            // The sink dropped the frame: the packet goes nowhere, as on a lossy wire.
            (None, Some(f)) => f(&mut vec![0; len]),
            (None, None) => unreachable!("the closure ran without a result"),
        }
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta
            .segmentation_offload_size
            .map(std::num::NonZeroU16::get);
    }
}
