//! The addresses of a user network: what the flags say, and what follows from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use unik_usernet::Config;

use super::flags::{Address, NetFlag};

/// A user network's addresses, and how the guest learns them.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The network.
    pub config: Config,
    /// The guest's addresses.
    pub addresses: Vec<Address>,
    /// Its routers.
    pub routers: Vec<IpAddr>,
    /// Its resolvers.
    pub resolvers: Vec<IpAddr>,
}

/// The guest's IPv6 address in a network where nobody says otherwise: the last part of its IPv4 address.
const GUEST_V6: u128 = 0x15;

/// Resolves; the error says what the network cannot be.
pub fn resolve(flag: &NetFlag) -> Result<Resolved, String> {
    let mut config = Config::default();
    let mut guest_v6 = Ipv6Addr::from_bits(config.net_v6.to_bits() | GUEST_V6);
    for address in &flag.addresses {
        match *address {
            Address::Static(IpAddr::V4(ip), prefix) => network_v4(&mut config, ip, prefix)?,
            Address::Static(IpAddr::V6(ip), prefix) => {
                guest_v6 = ip;
                network_v6(&mut config, ip, prefix)?;
            }
            Address::Dhcp | Address::Auto => {}
        }
    }
    routers(&mut config, &flag.routers)?;
    let clash = [config.gateway_v4, config.dns_v4].contains(&config.guest_v4)
        || [config.gateway_v6, config.dns_v6].contains(&guest_v6)
        || config.gateway_v4 == config.dns_v4
        || config.gateway_v6 == config.dns_v6;
    if clash {
        return Err(
            "guest, router and resolver would have the same address; choose another ip= or gw="
                .into(),
        );
    }
    let asked = |wanted| flag.addresses.contains(&wanted);
    let v4 = Address::Static(config.guest_v4.into(), config.prefix_v4);
    let v6 = Address::Static(guest_v6.into(), 64);
    let dynamic = [asked(Address::Dhcp), asked(Address::Auto)];
    let routers: [IpAddr; 2] = [config.gateway_v4.into(), config.gateway_v6.into()];
    let resolvers: [IpAddr; 2] = [config.dns_v4.into(), config.dns_v6.into()];
    Ok(Resolved {
        addresses: vec![
            if dynamic[0] { Address::Dhcp } else { v4 },
            if dynamic[1] { Address::Auto } else { v6 },
        ],
        routers: told(&routers, dynamic),
        resolvers: if flag.resolvers.is_empty() {
            told(&resolvers, dynamic)
        } else {
            flag.resolvers.clone()
        },
        config,
    })
}

/// Those that the guest does not learn by itself.
fn told(ips: &[IpAddr; 2], dynamic: [bool; 2]) -> Vec<IpAddr> {
    ips.iter()
        .zip(dynamic)
        .filter(|(_, dynamic)| !dynamic)
        .map(|(ip, _)| *ip)
        .collect()
}

/// Router and resolver become the first two addresses after the network's second that the guest does not have.
fn network_v4(config: &mut Config, guest: Ipv4Addr, prefix: u8) -> Result<(), String> {
    if !(8..=29).contains(&prefix) {
        return Err(format!("{guest}/{prefix}: use a prefix from 8 to 29"));
    }
    let mask = u32::MAX << (32 - prefix);
    let net = guest.to_bits() & mask;
    if guest.to_bits() == net || guest.to_bits() == net | !mask {
        return Err(format!(
            "{guest}/{prefix}: that is the network or its broadcast"
        ));
    }
    let mut free = (2..)
        .map(|host| Ipv4Addr::from_bits(net | host))
        .filter(|ip| *ip != guest);
    let mut next = || free.next().unwrap_or(guest);
    (config.guest_v4, config.prefix_v4) = (guest, prefix);
    (config.gateway_v4, config.dns_v4) = (next(), next());
    Ok(())
}

fn network_v6(config: &mut Config, guest: Ipv6Addr, prefix: u8) -> Result<(), String> {
    if prefix != 64 {
        return Err(format!(
            "{guest}/{prefix}: IPv6 networks here have a prefix of 64"
        ));
    }
    let net = guest.to_bits() >> 64 << 64;
    let mut free = (2..)
        .map(|host| Ipv6Addr::from_bits(net | host))
        .filter(|ip| *ip != guest);
    let mut next = || free.next().unwrap_or(guest);
    config.net_v6 = Ipv6Addr::from_bits(net);
    (config.gateway_v6, config.dns_v6) = (next(), next());
    Ok(())
}

/// Puts the router where it was asked for; the resolver makes room.
fn routers(config: &mut Config, wanted: &[IpAddr]) -> Result<(), String> {
    for ip in wanted {
        match *ip {
            IpAddr::V4(ip) if config.in_net_v4(ip) => {
                if config.dns_v4 == ip {
                    config.dns_v4 = config.gateway_v4;
                }
                config.gateway_v4 = ip;
            }
            IpAddr::V6(ip) if config.in_net_v6(ip) => {
                if config.dns_v6 == ip {
                    config.dns_v6 = config.gateway_v6;
                }
                config.gateway_v6 = ip;
            }
            ip => return Err(format!("the router {ip} lies outside of the network")),
        }
    }
    Ok(())
}
