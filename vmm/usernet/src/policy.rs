//! Which host address a guest's destination stands for: [`Policy`]. The one place that decides what a guest can reach.

use crate::config::{Config, parse_resolvers};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why a destination is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is there (the guest is told "host unreachable").
    NoSuchHost,
    /// Not for guests (the guest is told "administratively prohibited").
    Prohibited,
}

/// Translates addresses.
pub struct Policy {
    gateway_v4: Ipv4Addr,
    gateway_v6: Ipv6Addr,
    dns_v4: Ipv4Addr,
    dns_v6: Ipv6Addr,
    config: Config,
    resolvers: Vec<SocketAddr>,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        let mut resolvers = config.resolvers.clone();
        if resolvers.is_empty() {
            resolvers = std::fs::read_to_string("/etc/resolv.conf")
                .map(|text| parse_resolvers(&text))
                .unwrap_or_default();
        }
        Self {
            gateway_v4: config.gateway_v4,
            gateway_v6: config.gateway_v6,
            dns_v4: config.dns_v4,
            dns_v6: config.dns_v6,
            config: config.clone(),
            resolvers,
        }
    }

    /// The host's resolvers.
    pub fn resolvers(&self) -> &[SocketAddr] {
        &self.resolvers
    }

    /// True for the DNS forwarder.
    pub fn is_dns(&self, addr: SocketAddr) -> bool {
        addr.port() == 53 && (addr.ip() == self.dns_v4 || addr.ip() == self.dns_v6)
    }

    /// True for the router's own addresses.
    pub fn is_gateway(&self, ip: IpAddr) -> bool {
        ip == self.gateway_v4 || ip == self.gateway_v6 || ip == self.config.link_local()
    }

    /// True for the addresses that answer pings by themselves.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.is_gateway(ip) || ip == self.dns_v4 || ip == self.dns_v6
    }

    /// True when `ip` may be the source of a frame of the guest (beyond address configuration).
    pub fn is_guest(&self, ip: IpAddr) -> bool {
        if self.is_own(ip) {
            return false;
        }
        match ip {
            IpAddr::V4(ip) => self.config.in_net_v4(ip),
            IpAddr::V6(ip) => self.config.in_net_v6(ip) || ip.is_unicast_link_local(),
        }
    }

    /// Where on the host a guest's destination is. `attempt` chooses among several resolvers.
    pub fn to_host(&self, addr: SocketAddr, attempt: usize) -> Result<SocketAddr, Refusal> {
        if self.is_dns(addr) {
            let count = self.resolvers.len().max(1);
            return self
                .resolvers
                .get(attempt % count)
                .copied()
                .ok_or(Refusal::NoSuchHost);
        }
        if self.is_gateway(addr.ip()) {
            if !self.config.allow_host_loopback {
                return Err(Refusal::Prohibited);
            }
            let loopback: IpAddr = if addr.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            return Ok(SocketAddr::new(loopback, addr.port()));
        }
        match addr.ip() {
            IpAddr::V4(ip) if self.config.in_net_v4(ip) => Err(Refusal::NoSuchHost),
            IpAddr::V6(ip) if self.config.in_net_v6(ip) => Err(Refusal::NoSuchHost),
            IpAddr::V4(ip) if is_public_enough_v4(ip) => Ok(addr),
            IpAddr::V6(ip) if is_public_enough_v6(ip) => Ok(addr),
            _ => Err(Refusal::Prohibited),
        }
    }

    /// The address by which the guest sees a host peer that speaks first: its own where the guest can answer it, else the router's.
    pub fn seen_by_guest(&self, peer: SocketAddr) -> IpAddr {
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) if is_public_enough_v4(ip) && !self.config.in_net_v4(ip) => ip.into(),
            _ => self.gateway_v4.into(),
        }
    }
}

/// Everything but "this host", loopback, multicast, broadcast and the reserved block.
fn is_public_enough_v4(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// Everything but unspecified, loopback, multicast, link-local, and IPv4 in disguise (which could mean the host's loopback).
fn is_public_enough_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let disguised = segments[..5] == [0; 5] && (segments[5] == 0 || segments[5] == 0xffff)
        || segments[..6] == [0, 0, 0, 0, 0xffff, 0];
    !disguised && !ip.is_multicast() && !ip.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_itself_is_out_of_reach() {
        let policy = Policy::new(&Config {
            resolvers: vec!["127.0.0.53:53".parse().unwrap()],
            ..Config::default()
        });
        for forbidden in [
            "127.0.0.1:80",
            "127.9.9.9:53",
            "0.0.0.0:22",
            "10.0.2.2:22",
            "10.0.2.77:1",
            "255.255.255.255:67",
            "224.0.0.251:5353",
            "240.0.0.1:1",
        ] {
            assert!(
                policy.to_host(forbidden.parse().unwrap(), 0).is_err(),
                "{forbidden}"
            );
        }
        for forbidden in [
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::127.0.0.1]:80",
            "[::ffff:0:127.0.0.1]:80",
            "[fe80::1]:80",
            "[ff02::1]:1",
            "[fd00::2]:1",
        ] {
            assert!(
                policy.to_host(forbidden.parse().unwrap(), 0).is_err(),
                "{forbidden}"
            );
        }
        for fine in [
            "192.0.2.1:80",
            "10.0.3.1:80",
            "[2001:db8::1]:443",
            "[fd00:0:0:1::1]:443",
        ] {
            assert_eq!(
                policy.to_host(fine.parse().unwrap(), 0),
                Ok(fine.parse().unwrap())
            );
        }
        assert_eq!(
            policy.to_host("10.0.2.3:53".parse().unwrap(), 7),
            Ok("127.0.0.53:53".parse().unwrap())
        );
        assert!(policy.to_host("10.0.2.3:54".parse().unwrap(), 0).is_err());
    }

    #[test]
    fn a_flag_opens_the_loopback_behind_the_router() {
        let policy = Policy::new(&Config {
            allow_host_loopback: true,
            ..Config::default()
        });
        assert_eq!(
            policy.to_host("10.0.2.2:80".parse().unwrap(), 0),
            Ok("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(
            policy.to_host("[fd00::2]:80".parse().unwrap(), 0),
            Ok("[::1]:80".parse().unwrap())
        );
        assert!(policy.to_host("127.0.0.1:80".parse().unwrap(), 0).is_err());
    }

    #[test]
    fn peers_show_their_own_address_where_it_can_be_answered() {
        let policy = Policy::new(&Config::default());
        assert_eq!(
            policy.seen_by_guest("192.0.2.9:1".parse().unwrap()),
            IpAddr::from([192, 0, 2, 9])
        );
        for hidden in ["127.0.0.1:1", "10.0.2.15:1", "[2001:db8::1]:1"] {
            assert_eq!(
                policy.seen_by_guest(hidden.parse().unwrap()),
                IpAddr::from([10, 0, 2, 2])
            );
        }
    }
}
