//! Ethernet frames from arbitrary bytes. Lengths and checksums are made right for most, since noise dies at the first wrong sum.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket,
};

/// A piece of a script: a command and its bytes, `[command, length, bytes ...]`. The last piece may be shorter.
pub fn pieces(script: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let [command, len, tail @ ..] = rest else {
            return None;
        };
        let (piece, next) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = next;
        Some((*command, piece))
    })
}

/// Makes lengths and checksums of an Ethernet frame right as far as its headers are there.
pub fn repair(frame: &mut [u8]) {
    let Ok(mut ethernet) = EthernetFrame::new_checked(frame) else {
        return;
    };
    let kind = ethernet.ethertype();
    let payload = ethernet.payload_mut();
    match kind {
        EthernetProtocol::Ipv4 => ipv4(payload),
        EthernetProtocol::Ipv6 => ipv6(payload),
        _ => {}
    }
}

fn ipv4(bytes: &mut [u8]) {
    let len = bytes.len();
    if len < 20 {
        return;
    }
    bytes[0] = 0x45;
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.set_total_len(len.min(65535) as u16);
    packet.fill_checksum();
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    if packet.frag_offset() == 0 {
        transport(packet.next_header(), packet.payload_mut(), from, to);
    }
}

fn ipv6(bytes: &mut [u8]) {
    let len = bytes.len();
    if len < 40 {
        return;
    }
    bytes[0] = 0x60;
    let mut packet = Ipv6Packet::new_unchecked(bytes);
    packet.set_payload_len((len - 40).min(65535) as u16);
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    transport(packet.next_header(), packet.payload_mut(), from, to);
}

fn transport(protocol: IpProtocol, bytes: &mut [u8], from: IpAddress, to: IpAddress) {
    let len = bytes.len();
    match protocol {
        IpProtocol::Tcp if len >= 20 => {
            TcpPacket::new_unchecked(bytes).fill_checksum(&from, &to);
        }
        IpProtocol::Udp if len >= 8 => {
            let mut packet = UdpPacket::new_unchecked(bytes);
            packet.set_len(len.min(65535) as u16);
            packet.fill_checksum(&from, &to);
        }
        IpProtocol::Icmp if len >= 8 => Icmpv4Packet::new_unchecked(bytes).fill_checksum(),
        IpProtocol::Icmpv6 if len >= 4 => {
            if let (IpAddress::Ipv6(from), IpAddress::Ipv6(to)) = (from, to) {
                Icmpv6Packet::new_unchecked(bytes).fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}
