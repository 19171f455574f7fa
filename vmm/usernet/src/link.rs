//! The guest's neighbourhood: ARP, neighbour discovery and router advertisements.

use crate::config::Config;
use crate::sink::Offload;
use crate::wire::{IpPacket, Out, ROUTER_MAC, full_checksums};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpRepr, Ipv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};
use std::net::{IpAddr, Ipv6Addr};

/// Lifetime of what router advertisements say, seconds.
const LIFETIME: u32 = 86_400;
/// ICMPv6 type of a router advertisement.
const ROUTER_ADVERT: u8 = 134;

/// Answers ARP requests for the router's IPv4 addresses.
pub fn arp(config: &Config, bytes: &[u8], out: &mut Out<'_>) {
    let Some(Ok(request)) = ArpPacket::new_checked(bytes)
        .ok()
        .map(|p| ArpRepr::parse(&p))
    else {
        return;
    };
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = request
    else {
        return;
    };
    let ours = target_protocol_addr == config.gateway_v4 || target_protocol_addr == config.dns_v4;
    if operation != ArpOperation::Request || !ours {
        return;
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ROUTER_MAC,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    out.ethernet(
        Some(EthernetProtocol::Arp),
        reply.buffer_len(),
        Offload::default(),
        |bytes| {
            reply.emit(&mut ArpPacket::new_unchecked(bytes));
        },
    );
}

/// Answers neighbour and router solicitations. True when the packet was one.
pub fn neighbour_discovery(config: &Config, packet: &IpPacket<'_>, out: &mut Out<'_>) -> bool {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
        return false;
    };
    let Ok(icmp) = Icmpv6Packet::new_checked(packet.payload) else {
        return false;
    };
    let Ok(Icmpv6Repr::Ndisc(message)) = Icmpv6Repr::parse(
        &src,
        &dst,
        &icmp,
        &smoltcp::phy::ChecksumCapabilities::ignored(),
    ) else {
        return false;
    };
    match message {
        NdiscRepr::NeighborSolicit { target_addr, .. }
            if !src.is_unspecified()
                && [config.gateway_v6, config.dns_v6, config.link_local()]
                    .contains(&target_addr) =>
        {
            advertise_neighbour(target_addr, src, out);
        }
        NdiscRepr::RouterSolicit { .. } => advertise_router(config, src, out),
        _ => {}
    }
    true
}

fn advertise_neighbour(target: Ipv6Addr, to: Ipv6Addr, out: &mut Out<'_>) {
    let flags =
        NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE | NdiscNeighborFlags::ROUTER;
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(ROUTER_MAC.into()),
    });
    let header = Ipv6Repr {
        src_addr: target,
        dst_addr: to,
        next_header: smoltcp::wire::IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    out.ip(IpRepr::Ipv6(header), Offload::default(), |bytes| {
        message.emit(
            &target,
            &to,
            &mut Icmpv6Packet::new_unchecked(bytes),
            &full_checksums(),
        );
    });
}

/// Sends a router advertisement with prefix, MTU and DNS server (RFC 4861 and 8106).
fn advertise_router(config: &Config, to: Ipv6Addr, out: &mut Out<'_>) {
    let to = if to.is_unspecified() {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
    } else {
        to
    };
    let from = config.link_local();
    let body = router_advertisement(config);
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: smoltcp::wire::IpProtocol::Icmpv6,
        payload_len: body.len(),
        hop_limit: 255,
    };
    out.ip(IpRepr::Ipv6(header), Offload::default(), |bytes| {
        bytes.copy_from_slice(&body);
        Icmpv6Packet::new_unchecked(bytes).fill_checksum(&from, &to);
    });
}

fn router_advertisement(config: &Config) -> Vec<u8> {
    let mut body = vec![ROUTER_ADVERT, 0, 0, 0, 64, 0];
    body.extend(9000u16.to_be_bytes()); // router lifetime, seconds (9000 is the most)
    body.extend([0; 8]); // reachable and retransmission time: unspecified
    body.extend([1, 1]); // source link-layer address
    body.extend(ROUTER_MAC.0);
    body.extend([5, 1, 0, 0]); // MTU
    body.extend(u32::from(config.mtu).to_be_bytes());
    body.extend([3, 4, 64, 0xc0]); // prefix information: on link, autonomous
    body.extend(LIFETIME.to_be_bytes());
    body.extend(LIFETIME.to_be_bytes());
    body.extend([0; 4]);
    body.extend(config.net_v6.octets());
    body.extend([25, 3, 0, 0]); // recursive DNS server
    body.extend(LIFETIME.to_be_bytes());
    body.extend(config.dns_v6.octets());
    body
}
