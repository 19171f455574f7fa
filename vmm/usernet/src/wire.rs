//! Reading the guest's frames and writing frames for it: [`IpPacket`], [`Out`].

use crate::sink::{FrameSink, GuestOffloads, Offload};
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet,
    Ipv6Packet, UdpPacket, UdpRepr,
};
use std::net::{IpAddr, SocketAddr};

/// Ethernet header length.
pub const ETHERNET: usize = 14;

/// The router's hardware address.
pub const ROUTER_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// A checked IP packet.
#[derive(Clone, Copy)]
pub struct IpPacket<'a> {
    /// The whole packet without padding after it.
    pub bytes: &'a [u8],
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: IpProtocol,
    /// What follows the IP header.
    pub payload: &'a [u8],
    /// A piece of a fragmented packet.
    pub fragment: bool,
}

impl<'a> IpPacket<'a> {
    /// Checks lengths; `None` for anything malformed.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv4Packet::new_checked(bytes).ok()?;
        let (header, total) = (
            usize::from(packet.header_len()),
            usize::from(packet.total_len()),
        );
        Some(Self {
            bytes: bytes.get(..total)?,
            src: packet.src_addr().into(),
            dst: packet.dst_addr().into(),
            protocol: packet.next_header(),
            payload: bytes.get(header..total)?,
            fragment: packet.more_frags() || packet.frag_offset() != 0,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let packet = Ipv6Packet::new_checked(bytes).ok()?;
        let total = packet.header_len() + usize::from(packet.payload_len());
        Some(Self {
            bytes: bytes.get(..total)?,
            src: packet.src_addr().into(),
            dst: packet.dst_addr().into(),
            protocol: packet.next_header(),
            payload: bytes.get(packet.header_len()..total)?,
            fragment: packet.next_header() == IpProtocol::Ipv6Frag,
        })
    }
}

/// Writes frames for the guest.
pub struct Out<'a> {
    pub sink: &'a mut dyn FrameSink,
    pub guest_mac: EthernetAddress,
    pub guest: GuestOffloads,
    pub mtu: usize,
    pub frames: &'a mut u64,
}

impl Out<'_> {
    /// True when the guest has room for a frame.
    pub fn ready(&mut self) -> bool {
        self.sink.ready()
    }

    /// Sends a frame to the guest; `fill` writes what follows the Ethernet header. Without a `kind` that is an IP packet.
    pub fn ethernet(
        &mut self,
        kind: Option<EthernetProtocol>,
        len: usize,
        offload: Offload,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let mut fill = Some(fill);
        let guest = self.guest_mac;
        *self.frames += 1;
        self.sink.send(ETHERNET + len, offload, &mut |bytes| {
            let Some(fill) = fill.take() else { return };
            let mut frame = EthernetFrame::new_unchecked(&mut *bytes);
            frame.set_dst_addr(guest);
            frame.set_src_addr(ROUTER_MAC);
            fill(frame.payload_mut());
            let version = frame.payload_mut().first().map_or(0, |b| b >> 4);
            let ip = if version == 6 {
                EthernetProtocol::Ipv6
            } else {
                EthernetProtocol::Ipv4
            };
            frame.set_ethertype(kind.unwrap_or(ip));
        });
    }

    /// Sends an IP packet.
    pub fn ip(&mut self, repr: IpRepr, offload: Offload, fill: impl FnOnce(&mut [u8])) {
        self.ethernet(None, repr.buffer_len(), offload, |bytes| {
            repr.emit(&mut *bytes, &full_checksums());
            fill(&mut bytes[repr.header_len()..]);
        });
    }

    /// Sends a UDP datagram, over IPv4 in fragments where it is larger than the guest's network allows.
    pub fn udp(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        let udp = UdpRepr {
            src_port: src.port(),
            dst_port: dst.port(),
        };
        let len = udp.header_len() + payload.len();
        let (from, to) = (IpAddress::from(src.ip()), IpAddress::from(dst.ip()));
        if std::mem::discriminant(&from) != std::mem::discriminant(&to) {
            return;
        }
        let ip = IpRepr::new(from, to, IpProtocol::Udp, len, 64);
        let whole = ip.buffer_len() <= self.mtu;
        let caps = if self.guest.checksum && whole {
            no_transport_checksums()
        } else {
            full_checksums()
        };
        let write = |bytes: &mut [u8]| {
            let mut packet = UdpPacket::new_unchecked(bytes);
            udp.emit(
                &mut packet,
                &from,
                &to,
                payload.len(),
                |buf| buf.copy_from_slice(payload),
                &caps,
            );
        };
        if whole {
            return self.ip(
                ip,
                Offload {
                    unchecked: self.guest.checksum,
                    segment: None,
                },
                write,
            );
        }
        let IpRepr::Ipv4(header) = ip else { return };
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.fragments(header, &bytes);
    }

    fn fragments(&mut self, mut header: smoltcp::wire::Ipv4Repr, payload: &[u8]) {
        let piece = (self.mtu - header.buffer_len()) & !7;
        let ident = *self.frames as u16;
        let count = payload.len().div_ceil(piece);
        for (i, part) in payload.chunks(piece).enumerate() {
            header.payload_len = part.len();
            self.ethernet(
                None,
                header.buffer_len() + part.len(),
                Offload::default(),
                |bytes| {
                    let mut packet = Ipv4Packet::new_unchecked(bytes);
                    header.emit(&mut packet, &full_checksums());
                    packet.set_ident(ident);
                    packet.set_dont_frag(false);
                    packet.set_more_frags(i + 1 < count);
                    packet.set_frag_offset((i * piece) as u16);
                    packet.fill_checksum();
                    packet.payload_mut().copy_from_slice(part);
                },
            );
        }
    }
}

/// All checksums are computed.
pub fn full_checksums() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

/// IP and ICMP checksums only.
pub fn no_transport_checksums() -> ChecksumCapabilities {
    let mut caps = ChecksumCapabilities::default();
    (caps.tcp, caps.udp) = (Checksum::None, Checksum::None);
    caps
}

/// Announces one unit of window less than smoltcp believes.
///
/// With window scaling smoltcp 0.14 rounds the window down each time it announces one and then takes the last announced right edge for
/// the truth: the edge can move left by less than a unit, and bytes that were on their way are cut off and cost a retransmission timeout. A peer
/// that was promised one unit less never sends what a later edge would cut off. `checksummed`: the TCP checksum is filled in and must follow.
pub(crate) fn shave_window(packet: &mut [u8], checksummed: bool) {
    let header = match packet.first().map(|b| b >> 4) {
        Some(4) if packet.get(9) == Some(&6) => usize::from(packet[0] & 15) * 4,
        Some(6) if packet.get(6) == Some(&6) => 40,
        _ => return,
    };
    let Some(tcp) = packet.get_mut(header..).filter(|tcp| tcp.len() >= 20) else {
        return;
    };
    let window = u16::from_be_bytes([tcp[14], tcp[15]]);
    const SYN: u8 = 2;
    if tcp[13] & SYN != 0 || window == 0 {
        return;
    }
    tcp[14..16].copy_from_slice(&(window - 1).to_be_bytes());
    if checksummed {
        // RFC 1624: the sum of the changed word's complement and its new value; here that is 0xfffe plus carries.
        let sum = u32::from(!u16::from_be_bytes([tcp[16], tcp[17]]))
            + u32::from(!window)
            + u32::from(window - 1);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        tcp[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}
