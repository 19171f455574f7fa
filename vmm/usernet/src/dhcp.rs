//! A DHCPv4 server with one lease (RFC 2131): the guest's address.

use crate::config::Config;
use crate::wire::Out;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, Ipv4Address};
use std::net::{Ipv4Addr, SocketAddr};

/// Lease time, seconds.
const LEASE: u32 = 86_400;
/// Interface MTU option (RFC 2132, 5.1).
const OPTION_MTU: u8 = 26;
/// Domain name server option (RFC 2132, 3.8).
const OPTION_DNS: u8 = 6;

/// Answers a message to the server's port.
pub fn answer(config: &Config, payload: &[u8], out: &mut Out<'_>) {
    let Ok(packet) = DhcpPacket::new_checked(payload) else {
        return;
    };
    let Ok(request) = DhcpRepr::parse(&packet) else {
        return;
    };
    let Some(kind) = reply_kind(config, &request) else {
        return;
    };
    let (mtu, dns) = (config.mtu.to_be_bytes(), config.dns_v4.octets());
    let options = [
        DhcpOption {
            kind: OPTION_MTU,
            data: &mtu,
        },
        DhcpOption {
            kind: OPTION_DNS,
            data: &dns,
        },
    ];
    let mut reply = reply(config, &request, kind);
    if kind != DhcpMessageType::Nak {
        reply.additional_options = &options;
    }
    let mut bytes = vec![0; reply.buffer_len()];
    if reply
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes))
        .is_err()
    {
        return;
    }
    let to = if request.client_ip.is_unspecified() {
        Ipv4Addr::BROADCAST
    } else {
        request.client_ip
    };
    out.udp(
        SocketAddr::from((config.gateway_v4, 67)),
        SocketAddr::from((to, 68)),
        &bytes,
    );
}

fn reply_kind(config: &Config, request: &DhcpRepr<'_>) -> Option<DhcpMessageType> {
    match request.message_type {
        DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
        DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
        DhcpMessageType::Request => {
            if request
                .server_identifier
                .is_some_and(|server| server != config.gateway_v4)
            {
                return None;
            }
            let wanted = request.requested_ip.unwrap_or(request.client_ip);
            let kind = if wanted == config.guest_v4 {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            };
            Some(kind)
        }
        _ => None,
    }
}

fn reply<'a>(config: &Config, request: &DhcpRepr<'_>, kind: DhcpMessageType) -> DhcpRepr<'a> {
    let refused = kind == DhcpMessageType::Nak;
    let informed = request.message_type == DhcpMessageType::Inform;
    let given = if refused || informed {
        Ipv4Address::UNSPECIFIED
    } else {
        config.guest_v4
    };
    let mask = u32::MAX
        .checked_shl(32 - u32::from(config.prefix_v4))
        .unwrap_or(0);
    let lease = (!refused && !informed).then_some(LEASE);
    DhcpRepr {
        message_type: kind,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: request.client_ip,
        your_ip: given,
        server_ip: config.gateway_v4,
        router: (!refused).then_some(config.gateway_v4),
        subnet_mask: (!refused).then_some(Ipv4Address::from_bits(mask)),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: request.client_identifier,
        server_identifier: Some(config.gateway_v4),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: lease,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}
