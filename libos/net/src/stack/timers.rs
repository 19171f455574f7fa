//! What is due when: connections, waiting lanes, address configuration.

use super::Stack;
use core::cmp::Reverse;
use smoltcp::iface::PollResult;
use smoltcp::socket::dhcpv4;
use smoltcp::wire::IpCidr;

/// smoltcp's moments are microseconds; ours are nanoseconds.
fn nanoseconds(at: smoltcp::time::Instant) -> u64 {
    at.total_micros().max(0) as u64 * 1000
}

/// A connection is not looked at again within this time, nanoseconds.
const GRAIN: u64 = 500_000;

impl Stack {
    /// Sets the timer of a connection.
    pub(crate) fn schedule(&mut self, conn: usize) {
        let (now, at) = (self.host.now(), self.now());
        let Some(entry) = self.conns.get_mut(conn) else {
            return;
        };
        let link = &mut self.links[entry.link];
        let stack = link
            .iface
            .poll_at(at, &entry.set)
            .map(|at| nanoseconds(at).max(now + GRAIN));
        let patience = (entry.connecting && !entry.sent).then_some(now + 500_000_000);
        let next = [stack, entry.expires, patience].into_iter().flatten().min();
        if let Some(when) = next.filter(|&when| entry.deadline.is_none_or(|d| when < d)) {
            entry.deadline = Some(when);
            self.timers.push(Reverse((when, conn, entry.serial)));
        }
    }

    /// Does what is due.
    pub(crate) fn run_timers(&mut self) {
        let now = self.host.now();
        while let Some(&Reverse((when, conn, serial))) = self.timers.peek() {
            if when > now {
                break;
            }
            self.timers.pop();
            let Some(entry) = self
                .conns
                .get_mut(conn)
                .filter(|c| c.serial == serial && c.deadline == Some(when))
            else {
                continue;
            };
            entry.deadline = None;
            self.expire_conn(conn);
        }
        self.run_lanes();
        for link in 1..self.links.len() {
            self.configure(link);
        }
    }

    /// Lets DHCP and SLAAC work on a link.
    fn configure(&mut self, at: usize) {
        let now = self.now();
        let link = &mut self.links[at];
        link.iface.poll_maintenance(now);
        let mut auto = core::mem::replace(
            &mut link.auto,
            smoltcp::iface::SocketSet::new(alloc::vec::Vec::new()),
        );
        let (iface, mut port) = link.split(None);
        while iface.poll_egress(now, &mut port, &mut auto) != PollResult::None {}
        if let Some(handle) = link.dhcp {
            match auto.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
                Some(dhcpv4::Event::Configured(lease)) => {
                    let servers: alloc::vec::Vec<core::net::IpAddr> =
                        lease.dns_servers.iter().map(|&ip| ip.into()).collect();
                    let (address, router) = (lease.address, lease.router);
                    link.set_v4(Some(address), router);
                    link.dns = servers;
                }
                Some(dhcpv4::Event::Deconfigured) => link.set_v4(None, None),
                None => {}
            }
        }
        link.auto = auto;
    }

    /// When something is due, nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn deadline(&mut self) -> Option<u64> {
        let now = self.now();
        let mut next = self.timers.peek().map(|Reverse((when, ..))| *when);
        for link in &mut self.links[1..] {
            let auto = link.iface.poll_at(now, &link.auto).map(nanoseconds);
            let mut lanes = core::mem::take(&mut link.lanes);
            let waiting = lanes.iter_mut().any(|lane| !lane.is_empty());
            link.lanes = lanes;
            // A silent neighbour is asked again; the retry interval is smoltcp's second.
            let lanes = waiting.then_some(nanoseconds(now) + 100_000_000);
            next = [next, auto, lanes].into_iter().flatten().min();
        }
        next
    }
}

impl super::link::Link {
    /// Replaces what DHCP gave.
    fn set_v4(
        &mut self,
        address: Option<smoltcp::wire::Ipv4Cidr>,
        router: Option<core::net::Ipv4Addr>,
    ) {
        self.iface.update_ip_addrs(|addrs| {
            addrs.retain(|cidr| matches!(cidr, IpCidr::Ipv6(_)));
            if let Some(address) = address {
                let _ = addrs.push(IpCidr::Ipv4(address));
            }
        });
        self.iface.routes_mut().remove_default_ipv4_route();
        if let Some(router) = router {
            let _ = self.iface.routes_mut().add_default_ipv4_route(router);
        }
        self.announce();
    }
}
