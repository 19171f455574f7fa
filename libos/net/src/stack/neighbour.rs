//! Neighbours: asking for their hardware addresses, and remembering who said which is his.

use super::link::{ETHERNET, Link};
use crate::host::TxOffload;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscRepr,
};

/// Time between two questions for the same neighbour, microseconds.
const SOLICIT_INTERVAL: i64 = 1_000_000;
/// Neighbours remembered for `/proc/net/arp`.
const MAX_NEIGHBOURS: usize = 64;

impl Link {
    /// Notes what an ARP packet says of its sender.
    pub fn learn(&mut self, frame: &[u8]) {
        let packet = frame.get(ETHERNET..).map(ArpPacket::new_checked);
        let Some(Ok(packet)) = packet else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            source_hardware_addr,
            source_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        self.neighbours
            .retain(|(ip, _)| *ip != source_protocol_addr);
        if self.neighbours.len() >= MAX_NEIGHBOURS {
            self.neighbours.remove(0);
        }
        self.neighbours
            .push((source_protocol_addr, source_hardware_addr.0));
    }

    /// Tells the neighbours whose the IPv4 addresses of this card are now: the last machine that had them may have had another card.
    pub fn announce(&mut self) {
        for cidr in self.iface.ip_addrs().to_vec() {
            if let IpAddr::V4(own) = cidr.address().into() {
                let frame = self.arp_request(own, own);
                self.emit(&frame);
            }
        }
    }

    /// Sends a frame as it is.
    fn emit(&mut self, frame: &[u8]) {
        self.touched = true;
        match &mut self.device {
            Some(device) => device.send(frame.len(), &mut |bytes| {
                bytes.copy_from_slice(frame);
                TxOffload::default()
            }),
            None => self.queue.push_back(frame.to_vec()),
        }
    }

    fn arp_request(&self, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mac = EthernetAddress(self.info.mac);
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress::BROADCAST,
            target_protocol_addr: target,
        };
        let mut bytes = vec![0; ETHERNET + request.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        frame.set_src_addr(mac);
        frame.set_dst_addr(EthernetAddress::BROADCAST);
        frame.set_ethertype(EthernetProtocol::Arp);
        request.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        bytes
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
        if let Some(frame) = self.solicitation(neighbour) {
            self.emit(&frame);
        }
    }

    /// An ARP request or a neighbour solicitation.
    fn solicitation(&self, neighbour: IpAddr) -> Option<Vec<u8>> {
        let mac = EthernetAddress(self.info.mac);
        match neighbour {
            IpAddr::V4(target) => {
                let source = self.iface.get_source_address_ipv4(&target)?;
                Some(self.arp_request(source, target))
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
