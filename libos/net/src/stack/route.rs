//! Where packets go: link, source address and next hop for a destination.

use super::Stack;
use core::net::{IpAddr, SocketAddr};
use smoltcp::wire::IpAddress;

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Index of the link.
    pub link: usize,
    /// Source address to use.
    pub source: IpAddr,
    /// Neighbour that takes the packet.
    pub next_hop: IpAddr,
}

impl Stack {
    /// True for an address of this machine.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback()
            || self.links[1..].iter().any(|link| {
                link.iface
                    .ip_addrs()
                    .iter()
                    .any(|cidr| IpAddr::from(cidr.address()) == ip)
            })
    }

    /// True for a broadcast address of a link.
    pub(crate) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        ip.is_broadcast()
            || self.links[1..]
                .iter()
                .flat_map(|link| link.iface.ip_addrs())
                .any(|cidr| match cidr {
                    smoltcp::wire::IpCidr::Ipv4(cidr) => cidr.broadcast() == Some(ip),
                    smoltcp::wire::IpCidr::Ipv6(_) => false,
                })
    }

    /// The way to `to`; `None`: network unreachable. A scope id names the link of a link-local address.
    pub(crate) fn route(&self, to: SocketAddr, bound_link: Option<usize>) -> Option<Route> {
        let ip = to.ip();
        if self.is_own(ip) {
            let source = if ip.is_loopback() && ip.is_ipv4() {
                IpAddr::from([127, 0, 0, 1])
            } else {
                ip
            };
            return Some(Route {
                link: 0,
                source,
                next_hop: ip,
            });
        }
        let scope = match to {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id() as usize - 1),
            _ => bound_link,
        };
        let permitted = |link: &usize| *link != 0 && scope.is_none_or(|s| s == *link);
        let direct = (1..self.links.len())
            .filter(permitted)
            .find(|&link| self.on_link(link, ip) || ip.is_multicast() || self.is_broadcast(ip));
        if let Some(link) = direct {
            return self.with_source(link, ip, ip);
        }
        (1..self.links.len()).filter(permitted).find_map(|link| {
            let gateway = self.gateway(link, ip.is_ipv4())?;
            self.with_source(link, ip, gateway)
        })
    }

    fn with_source(&self, link: usize, ip: IpAddr, next_hop: IpAddr) -> Option<Route> {
        let source = IpAddr::from(
            self.links[link]
                .iface
                .get_source_address(&IpAddress::from(ip))?,
        );
        (!source.is_loopback() && !source.is_unspecified()).then_some(Route {
            link,
            source,
            next_hop,
        })
    }

    fn on_link(&self, link: usize, ip: IpAddr) -> bool {
        self.links[link]
            .iface
            .ip_addrs()
            .iter()
            .any(|cidr| cidr.contains_addr(&IpAddress::from(ip)))
    }

    /// The default router of a link.
    pub(crate) fn gateway(&self, link: usize, v4: bool) -> Option<IpAddr> {
        let routes = self.links[link].iface.routes();
        let route = if v4 {
            routes.get_default_ipv4_route()
        } else {
            routes.get_default_ipv6_route()
        };
        route.map(|r| r.via_router.into())
    }
}
