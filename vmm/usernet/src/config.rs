//! [`Config`]: addresses, forwards and limits of a user network; [`UserNetError`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use thiserror::Error;

/// Why a user network cannot start.
#[derive(Debug, Error)]
pub enum UserNetError {
    /// A forward's host address cannot be bound.
    #[error(
        "cannot listen on {addr} for -p: {source}: choose another host port or stop what uses it"
    )]
    Bind {
        /// The host address.
        addr: SocketAddr,
        /// What the host says.
        source: io::Error,
    },
    /// No event queue.
    #[error("cannot create an event queue for the user network: {0}")]
    Poll(#[from] io::Error),
    /// `-p` text.
    #[error("port forward '{text}' is not [ADDRESS:]HOST:GUEST[/udp]: {reason}")]
    Forward {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A host address whose traffic goes to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
    /// Port of the guest.
    pub guest_port: u16,
}

impl FromStr for Forward {
    type Err = UserNetError;

    /// `[ADDRESS:]HOST:GUEST[/udp]`; without an address all IPv4 addresses of the host; an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, UserNetError> {
        let fail = |reason| UserNetError::Forward {
            text: text.to_owned(),
            reason,
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(fail("the protocol is tcp or udp")),
        };
        let (host, guest) = ports
            .rsplit_once(':')
            .ok_or_else(|| fail("two port numbers are needed"))?;
        let (address, host) = host.rsplit_once(':').unwrap_or(("0.0.0.0", host));
        let address = address
            .strip_prefix('[')
            .and_then(|a| a.strip_suffix(']'))
            .unwrap_or(address);
        let address: IpAddr = address
            .parse()
            .map_err(|_| fail("the host address is not an IP address"))?;
        let host: u16 = host
            .parse()
            .map_err(|_| fail("the host port is not a number below 65536"))?;
        let guest_port = guest
            .parse()
            .ok()
            .filter(|&p| p != 0)
            .ok_or_else(|| fail("the guest port is not a number from 1 to 65535"))?;
        Ok(Self {
            protocol,
            host: SocketAddr::new(address, host),
            guest_port,
        })
    }
}

/// Bounds on what one guest can make the host hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP connections, those being set up included.
    pub tcp_flows: usize,
    /// Of these, connections that are not yet established.
    pub tcp_half_open: usize,
    /// Buffer bytes that each connection always gets (half for each direction).
    pub tcp_buffer_floor: usize,
    /// Most buffer bytes for one connection.
    pub tcp_buffer_ceiling: usize,
    /// Bytes above the floors that early connections share.
    pub tcp_buffer_pool: usize,
    /// UDP ports of the guest in use at once; the one idle longest makes room for a new one.
    pub udp_flows: usize,
    /// ICMP echo conversations at once.
    pub ping_flows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 4096,
            tcp_half_open: 512,
            tcp_buffer_floor: 32 << 10,
            tcp_buffer_ceiling: 1 << 20,
            tcp_buffer_pool: 64 << 20,
            udp_flows: 512,
            ping_flows: 64,
        }
    }
}

/// A user network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest IP packet, 1280 to 65535. The guest learns it by DHCP and router advertisement.
    pub mtu: u16,
    /// The guest's IPv4 address, given by DHCP; where forwards go.
    pub guest_v4: Ipv4Addr,
    /// The router.
    pub gateway_v4: Ipv4Addr,
    /// The DNS forwarder.
    pub dns_v4: Ipv4Addr,
    /// Bits of the IPv4 network.
    pub prefix_v4: u8,
    /// The IPv6 network, 64 bits.
    pub net_v6: Ipv6Addr,
    /// The router (in `net_v6`; its link-local address is fe80 with the same last 64 bits).
    pub gateway_v6: Ipv6Addr,
    /// The DNS forwarder.
    pub dns_v6: Ipv6Addr,
    /// The host's resolvers; empty: those in /etc/resolv.conf, read at start.
    pub resolvers: Vec<SocketAddr>,
    /// The router's address stands for the host's loopback (127.0.0.1 and ::1).
    pub allow_host_loopback: bool,
    /// Host ports that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: 1500,
            guest_v4: Ipv4Addr::new(10, 0, 2, 15),
            gateway_v4: Ipv4Addr::new(10, 0, 2, 2),
            dns_v4: Ipv4Addr::new(10, 0, 2, 3),
            prefix_v4: 24,
            net_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0),
            gateway_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
            dns_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
            resolvers: Vec::new(),
            allow_host_loopback: false,
            forwards: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// True for an address of the IPv4 network.
    pub fn in_net_v4(&self, addr: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix_v4))
            .unwrap_or(0);
        addr.to_bits() & mask == self.gateway_v4.to_bits() & mask
    }

    /// True for an address of the IPv6 network.
    pub fn in_net_v6(&self, addr: Ipv6Addr) -> bool {
        addr.segments()[..4] == self.net_v6.segments()[..4]
    }

    /// The router's link-local address.
    pub fn link_local(&self) -> Ipv6Addr {
        let low = self.gateway_v6.segments();
        Ipv6Addr::new(0xfe80, 0, 0, 0, low[4], low[5], low[6], low[7])
    }
}

/// Name servers in the text of a resolv.conf(5).
pub fn parse_resolvers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read() {
        let ok = |text: &str, protocol, host: &str, guest_port| {
            assert_eq!(
                text.parse::<Forward>().unwrap(),
                Forward {
                    protocol,
                    host: host.parse().unwrap(),
                    guest_port
                }
            );
        };
        ok("8080:80", Protocol::Tcp, "0.0.0.0:8080", 80);
        ok("127.0.0.1:5353:53/udp", Protocol::Udp, "127.0.0.1:5353", 53);
        ok("[::1]:8080:80/tcp", Protocol::Tcp, "[::1]:8080", 80);
        ok("0:80", Protocol::Tcp, "0.0.0.0:0", 80);
        for bad in [
            "80",
            "a:80",
            "80:0",
            "80:70000",
            "80:80/icmp",
            "1.2.3:80:80",
            "",
        ] {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }

    #[test]
    fn resolvers_are_read() {
        let text = "# x\nsearch a.b\nnameserver 192.0.2.1 # y\nnameserver fe80::1%eth0\n nameserver 2001:db8::1\n";
        assert_eq!(
            parse_resolvers(text),
            [
                "192.0.2.1:53".parse().unwrap(),
                "[2001:db8::1]:53".parse().unwrap()
            ]
        );
    }
}
