//! Links: the loopback and network cards, each with a smoltcp interface. [`Port`] is smoltcp's view of one.

use crate::host::{ChecksumField, DeviceInfo, PacketDevice, TxOffload};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroUsize;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, raw};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    HardwareAddress, Icmpv6Packet, Icmpv6Repr, IpCidr, IpProtocol, IpVersion, Ipv4Packet,
    Ipv6Packet, Ipv6Repr, NdiscRepr, checksum,
};

/// MTU of the loopback.
const LOOPBACK_MTU: usize = 65_535;
/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// How a card gets its addresses.
#[derive(Clone, Debug, Default)]
pub struct LinkSetup {
    /// `eth0`, ...
    pub name: String,
    /// Addresses with the length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// IPv4 router.
    pub gateway_v4: Option<Ipv4Addr>,
    /// IPv6 router.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Ask for an IPv4 address by DHCP.
    pub dhcp: bool,
    /// Take IPv6 addresses from router advertisements.
    pub slaac: bool,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// Packets for one next hop: a smoltcp raw socket, so that ARP for one neighbour does not hold up the others.
pub(crate) struct Lane {
    pub next_hop: IpAddr,
    pub set: SocketSet<'static>,
    pub v4: SocketHandle,
    pub v6: SocketHandle,
    /// Since when something has waited, smoltcp microseconds.
    pub waiting: Option<i64>,
}

/// A link.
pub(crate) struct Link {
    pub name: String,
    pub iface: Interface,
    pub info: DeviceInfo,
    /// `None` for the loopback, and while frames are being received.
    pub device: Option<Box<dyn PacketDevice>>,
    /// Packets on the loopback; answers made while a card's frames are being received.
    pub queue: VecDeque<Vec<u8>>,
    pub lanes: Vec<Lane>,
    /// The DHCP client.
    pub auto: SocketSet<'static>,
    pub dhcp: Option<SocketHandle>,
    pub dns: Vec<IpAddr>,
    /// Puts IPv4 fragments together; made when the first one comes.
    pub whole: Option<(SocketSet<'static>, SocketHandle)>,
    pub touched: bool,
    /// An answer to ARP or a neighbour solicitation came.
    pub neighbours_changed: bool,
    /// Neighbours asked for by [`Self::solicit`], and when (microseconds).
    pub asked: Vec<(IpAddr, i64)>,
    /// Frames sent.
    pub frames: u64,
    /// TCP packets sent.
    pub tcp_frames: u64,
}

impl Link {
    /// The loopback: takes every address.
    pub fn loopback(seed: u64) -> Self {
        let info = DeviceInfo {
            mac: [0; 6],
            mtu: LOOPBACK_MTU,
            checksum: true,
            tso4: false,
            tso6: false,
            lossy: false,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut link = Self::build(String::from("lo"), config, info, None);
        link.iface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(Ipv4Addr::LOCALHOST.into(), 8));
            let _ = addrs.push(IpCidr::new(Ipv6Addr::LOCALHOST.into(), 128));
        });
        link.iface.set_any_ip(true);
        link
    }

    /// A card.
    pub fn card(device: Box<dyn PacketDevice>, setup: &LinkSetup, seed: u64) -> Self {
        let info = device.info();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(info.mac)));
        config.random_seed = seed;
        config.slaac = setup.slaac;
        let mut link = Self::build(setup.name.clone(), config, info, Some(device));
        link.iface.update_ip_addrs(|addrs| {
            // Neighbour discovery needs a link-local address before anything else.
            let _ = addrs.push(IpCidr::new(link_local(info.mac).into(), 64));
            for &(address, bits) in &setup.addresses {
                let _ = addrs.push(IpCidr::new(address.into(), bits));
            }
        });
        if let Some(gateway) = setup.gateway_v4 {
            let _ = link.iface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = setup.gateway_v6 {
            let _ = link.iface.routes_mut().add_default_ipv6_route(gateway);
        }
        link.dns.clone_from(&setup.dns);
        if setup.dhcp {
            link.dhcp = Some(link.auto.add(dhcpv4::Socket::new()));
        }
        link
    }

    fn build(
        name: String,
        config: Config,
        info: DeviceInfo,
        device: Option<Box<dyn PacketDevice>>,
    ) -> Self {
        let mut queue = VecDeque::new();
        let medium = if device.is_some() {
            Medium::Ethernet
        } else {
            Medium::Ip
        };
        let mut port = Port {
            inbound: None,
            medium,
            info,
            out: Outlet::Queue(&mut queue),
            frames: (&mut 0, &mut 0),
        };
        let iface = Interface::new(config, &mut port, smoltcp::time::Instant::ZERO);
        Self {
            name,
            iface,
            info,
            device,
            queue: VecDeque::new(),
            lanes: Vec::new(),
            auto: SocketSet::new(Vec::new()),
            dhcp: None,
            dns: Vec::new(),
            whole: None,
            touched: false,
            neighbours_changed: false,
            asked: Vec::new(),
            frames: 0,
            tcp_frames: 0,
        }
    }

    pub fn is_loopback(&self) -> bool {
        self.info.mac == [0; 6]
    }

    /// The interface and the port it sends through.
    pub fn split<'a>(&'a mut self, inbound: Option<&'a [u8]>) -> (&'a mut Interface, Port<'a>) {
        let medium = if self.info.mac == [0; 6] {
            Medium::Ip
        } else {
            Medium::Ethernet
        };
        self.touched = true;
        let out = match &mut self.device {
            Some(device) => Outlet::Device(device.as_mut()),
            None => Outlet::Queue(&mut self.queue),
        };
        (
            &mut self.iface,
            Port {
                inbound,
                medium,
                info: self.info,
                out,
                frames: (&mut self.frames, &mut self.tcp_frames),
            },
        )
    }

    /// The next packet on the loopback.
    pub fn take_looped(&mut self) -> Option<Vec<u8>> {
        self.queue.pop_front()
    }

    /// Tells the card about queued frames.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.touched)
            && let Some(device) = &mut self.device
        {
            device.flush();
        }
    }

    /// Asks for a neighbour, once a second at most. smoltcp asks by itself, but for one neighbour a second only, so that a silent one
    /// would keep others from being asked for.
    pub fn solicit(&mut self, now: smoltcp::time::Instant, neighbour: IpAddr) {
        let now = now.total_micros();
        self.asked.retain(|(_, at)| now - at < SOLICIT_INTERVAL);
        if self.asked.iter().any(|(ip, _)| *ip == neighbour) || self.asked.len() >= 64 {
            return;
        }
        self.asked.push((neighbour, now));
        let Some(frame) = self.solicitation(neighbour) else {
            return;
        };
        self.touched = true;
        match &mut self.device {
            Some(device) => device.send(frame.len(), &mut |bytes| {
                bytes.copy_from_slice(&frame);
                TxOffload::default()
            }),
            None => self.queue.push_back(frame),
        }
    }

    /// An ARP request or a neighbour solicitation.
    fn solicitation(&self, neighbour: IpAddr) -> Option<Vec<u8>> {
        let mac = EthernetAddress(self.info.mac);
        match neighbour {
            IpAddr::V4(target) => {
                let request = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Request,
                    source_hardware_addr: mac,
                    source_protocol_addr: self.iface.get_source_address_ipv4(&target)?,
                    target_hardware_addr: EthernetAddress::BROADCAST,
                    target_protocol_addr: target,
                };
                let mut bytes = vec![0; ETHERNET + request.buffer_len()];
                let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
                frame.set_src_addr(mac);
                frame.set_dst_addr(EthernetAddress::BROADCAST);
                frame.set_ethertype(EthernetProtocol::Arp);
                request.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
                Some(bytes)
            }
            IpAddr::V6(target) => {
                let request = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                    target_addr: target,
                    lladdr: Some(mac.into()),
                });
                let source = self.iface.get_source_address_ipv6(&target);
                let low = target.octets();
                let group = Ipv6Addr::from([
                    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, low[13], low[14], low[15],
                ]);
                let header = Ipv6Repr {
                    src_addr: source,
                    dst_addr: group,
                    next_header: IpProtocol::Icmpv6,
                    payload_len: request.buffer_len(),
                    hop_limit: 255,
                };
                let mut bytes = vec![0; ETHERNET + 40 + request.buffer_len()];
                let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
                frame.set_src_addr(mac);
                frame.set_dst_addr(EthernetAddress([
                    0x33, 0x33, 0xff, low[13], low[14], low[15],
                ]));
                frame.set_ethertype(EthernetProtocol::Ipv6);
                let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
                header.emit(&mut packet);
                request.emit(
                    &source,
                    &group,
                    &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
                    &Default::default(),
                );
                Some(bytes)
            }
        }
    }

    /// The lane to `next_hop`, made when there is none.
    pub fn lane(&mut self, next_hop: IpAddr) -> &mut Lane {
        if let Some(at) = self.lanes.iter().position(|lane| lane.next_hop == next_hop) {
            return &mut self.lanes[at];
        }
        if self.lanes.len() >= MAX_LANES {
            self.lanes.remove(0);
        }
        self.lanes.push(Lane::empty(next_hop));
        let last = self.lanes.len() - 1;
        &mut self.lanes[last]
    }
}

/// Time between two questions for the same neighbour, microseconds.
const SOLICIT_INTERVAL: i64 = 1_000_000;

/// Next hops with packets waiting.
const MAX_LANES: usize = 16;

impl Lane {
    pub fn empty(next_hop: IpAddr) -> Self {
        let mut set = SocketSet::new(Vec::with_capacity(2));
        let socket = |version| {
            let tx =
                raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 128], vec![0; 128 << 10]);
            let rx = raw::PacketBuffer::new(Vec::new(), Vec::new());
            raw::Socket::new(Some(version), None::<IpProtocol>, rx, tx)
        };
        let (v4, v6) = (
            set.add(socket(IpVersion::Ipv4)),
            set.add(socket(IpVersion::Ipv6)),
        );
        Self {
            next_hop,
            set,
            v4,
            v6,
            waiting: None,
        }
    }

    pub fn socket(&mut self, v4: bool) -> &mut raw::Socket<'static> {
        self.set.get_mut(if v4 { self.v4 } else { self.v6 })
    }

    pub fn is_empty(&mut self) -> bool {
        self.socket(true).send_queue() == 0 && self.socket(false).send_queue() == 0
    }
}

/// The link-local address of a card (RFC 4291, appendix A).
pub(crate) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let word = |a, b| u16::from_be_bytes([a, b]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(mac[0] ^ 2, mac[1]),
        word(mac[2], 0xff),
        word(0xfe, mac[3]),
        word(mac[4], mac[5]),
    )
}

/// Where frames go.
pub(crate) enum Outlet<'a> {
    Device(&'a mut dyn PacketDevice),
    Queue(&'a mut VecDeque<Vec<u8>>),
}

/// smoltcp's device: one frame in, any number out.
pub(crate) struct Port<'a> {
    pub inbound: Option<&'a [u8]>,
    pub medium: Medium,
    pub info: DeviceInfo,
    pub out: Outlet<'a>,
    /// Counters: all frames, TCP packets.
    pub frames: (&'a mut u64, &'a mut u64),
}

pub(crate) struct Inbound<'a>(&'a [u8]);

pub(crate) struct Outbound<'x, 'a> {
    out: &'x mut Outlet<'a>,
    frames: (&'x mut u64, &'x mut u64),
    info: DeviceInfo,
    segment: Option<u16>,
}

impl Port<'_> {
    /// True when a packet can be sent.
    pub fn ready(&mut self) -> bool {
        match &mut self.out {
            Outlet::Device(device) => device.ready(),
            Outlet::Queue(_) => true,
        }
    }
}

impl<'a> Device for Port<'a> {
    type RxToken<'x>
        = Inbound<'x>
    where
        Self: 'x;
    type TxToken<'x>
        = Outbound<'x, 'a>
    where
        Self: 'x;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Inbound<'_>, Outbound<'_, 'a>)> {
        let frame = self.inbound.take()?;
        Some((
            Inbound(frame),
            Outbound {
                out: &mut self.out,
                frames: (self.frames.0, self.frames.1),
                info: self.info,
                segment: None,
            },
        ))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outbound<'_, 'a>> {
        self.ready().then_some(Outbound {
            out: &mut self.out,
            frames: (self.frames.0, self.frames.1),
            info: self.info,
            segment: None,
        })
    }

    /// Transport checksums of received packets were checked before smoltcp sees them.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = self.medium;
        caps.max_transmission_unit = self.info.mtu
            + if self.medium == Medium::Ethernet {
                ETHERNET
            } else {
                0
            };
        let transport = if self.info.checksum {
            Checksum::None
        } else {
            Checksum::Tx
        };
        (caps.checksum.tcp, caps.checksum.udp) = (transport, transport);
        if self.medium == Medium::Ip {
            (
                caps.checksum.ipv4,
                caps.checksum.icmpv4,
                caps.checksum.icmpv6,
            ) = (Checksum::None, Checksum::None, Checksum::None);
        }
        if self.info.checksum {
            let large = |offered: bool| NonZeroUsize::new(65_535).filter(|_| offered);
            caps.segmentation.tcpv4 = large(self.info.tso4);
            caps.segmentation.tcpv6 = large(self.info.tso6);
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
        let device = match self.out {
            Outlet::Queue(queue) => {
                let mut packet = vec![0; len];
                let result = f(&mut packet);
                let start = if self.info.mac == [0; 6] { 0 } else { ETHERNET };
                shave_window(&mut packet[start..], !self.info.checksum);
                queue.push_back(packet);
                return result;
            }
            Outlet::Device(device) => device,
        };
        let (mut f, mut result) = (Some(f), None);
        let (info, segment, (frames, tcp_frames)) = (self.info, self.segment, self.frames);
        *frames += 1;
        device.send(len, &mut |bytes| {
            let Some(f) = f.take() else {
                return TxOffload::default();
            };
            result = Some(f(bytes));
            *tcp_frames += u64::from(is_tcp(bytes));
            shave_window(&mut bytes[ETHERNET..], !info.checksum);
            if info.checksum {
                offload(bytes, segment)
            } else {
                TxOffload::default()
            }
        });
        match (result, f) {
            (Some(result), _) => result,
            // No room: the frame is lost, as on a wire.
            (None, Some(f)) => f(&mut vec![0; len]),
            (None, None) => unreachable!("the closure ran and left no result"),
        }
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta
            .segmentation_offload_size
            .map(core::num::NonZeroU16::get);
    }
}

/// Prepares the checksum of a TCP or UDP frame for the card: the sum of the pseudo header goes into the field.
pub(crate) fn offload(frame: &mut [u8], segment: Option<u16>) -> TxOffload {
    let Some((start, protocol, sum)) = transport(frame) else {
        return TxOffload::default();
    };
    let offset = if protocol == IpProtocol::Tcp { 16 } else { 6 };
    let Some(field) = frame.get_mut(start + offset..start + offset + 2) else {
        return TxOffload::default();
    };
    field.copy_from_slice(&sum.to_be_bytes());
    let tcp_len = frame.get(start + 12).map_or(0, |b| usize::from(b >> 4) * 4);
    TxOffload {
        checksum: Some(ChecksumField {
            start: start as u16,
            offset: offset as u16,
        }),
        segment,
        header_len: if segment.is_some() {
            (start + tcp_len) as u16
        } else {
            0
        },
    }
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

fn is_tcp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(ETHERNET + 9) == Some(&6),
        Some([0x86, 0xdd]) => frame.get(ETHERNET + 6) == Some(&6),
        _ => false,
    }
}

/// Start of the transport header of a frame, its protocol, and the sum of its pseudo header.
fn transport(frame: &[u8]) -> Option<(usize, IpProtocol, u16)> {
    let body = frame.get(ETHERNET..)?;
    let (header, protocol, src, dst, len): (usize, IpProtocol, IpAddr, IpAddr, usize) =
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let p = Ipv4Packet::new_checked(body).ok()?;
                if p.more_frags() || p.frag_offset() != 0 {
                    return None;
                }
                let header = usize::from(p.header_len());
                (
                    header,
                    p.next_header(),
                    p.src_addr().into(),
                    p.dst_addr().into(),
                    usize::from(p.total_len()) - header,
                )
            }
            [0x86, 0xdd] => {
                let p = Ipv6Packet::new_checked(body).ok()?;
                (
                    p.header_len(),
                    p.next_header(),
                    p.src_addr().into(),
                    p.dst_addr().into(),
                    usize::from(p.payload_len()),
                )
            }
            _ => return None,
        };
    if !matches!(protocol, IpProtocol::Tcp | IpProtocol::Udp) {
        return None;
    }
    let sum = checksum::pseudo_header(&src.into(), &dst.into(), protocol, len as u32);
    Some((ETHERNET + header, protocol, sum))
}
