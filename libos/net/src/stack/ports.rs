//! Who has which port: binding, conflicts, ephemeral ports.

use super::{Kind, Role, Sock, Stack};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Name spaces of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    /// Echo identifiers.
    Ping,
}

impl From<Kind> for Proto {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Tcp => Self::Tcp,
            Kind::Udp => Self::Udp,
            Kind::Ping => Self::Ping,
        }
    }
}

/// Ephemeral ports (net.ipv4.ip_local_port_range).
const FIRST: u16 = 32_768;
const COUNT: u16 = 28_232;

impl Sock {
    /// The address family's "any" address.
    pub fn any(&self) -> IpAddr {
        // An IPv6 socket that takes IPv4 as well stands at `::`, which overlaps with everything.
        if self.v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            core::net::Ipv4Addr::UNSPECIFIED.into()
        }
    }

    /// True when a packet to `ip` may be for a socket bound to `local`.
    pub fn takes(&self, local: SocketAddr, ip: IpAddr) -> bool {
        match local.ip() {
            IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
            IpAddr::V6(any) if any.is_unspecified() => ip.is_ipv6() || !self.options.v6_only,
            bound => bound == ip,
        }
    }

    fn overlaps(&self, mine: IpAddr, other: &Self, theirs: IpAddr) -> bool {
        match (mine.is_unspecified(), theirs.is_unspecified()) {
            (false, false) => mine == theirs,
            (true, false) => self.covers(mine, theirs),
            (false, true) => other.covers(theirs, mine),
            (true, true) => {
                mine.is_ipv4() == theirs.is_ipv4()
                    || !self.v6_only_for(mine) && !other.v6_only_for(theirs)
            }
        }
    }

    /// The unspecified address `any` of this socket includes `ip`.
    fn covers(&self, any: IpAddr, ip: IpAddr) -> bool {
        any.is_ipv4() == ip.is_ipv4() || any.is_ipv6() && !self.options.v6_only
    }

    fn v6_only_for(&self, any: IpAddr) -> bool {
        any.is_ipv6() && self.options.v6_only
    }
}

impl Stack {
    /// `bind`: gives socket `id` the address, or an ephemeral port of it.
    pub(crate) fn bind(&mut self, id: usize, want: SocketAddr) -> Result<()> {
        let sock = &self.sockets[id];
        if sock.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let proto = Proto::from(sock.kind);
        let ip = want.ip();
        let multicast =
            sock.kind == Kind::Udp && (ip.is_multicast() || ip == IpAddr::from([255; 4]));
        if !ip.is_unspecified() && !multicast && !self.is_own(ip) && !sock.options.free_bind {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let port = match want.port() {
            0 => self
                .ephemeral(proto, |stack, port| {
                    !stack.conflicts(id, proto, SocketAddr::new(ip, port))
                })
                .ok_or(Errno::EADDRINUSE)?,
            port if self.conflicts(id, proto, want) => {
                let _ = port;
                return Err(Errno::EADDRINUSE);
            }
            port => port,
        };
        self.ports.entry((proto, port)).or_default().push(id);
        self.sockets[id].local = Some(SocketAddr::new(ip, port));
        Ok(())
    }

    fn conflicts(&self, id: usize, proto: Proto, want: SocketAddr) -> bool {
        let me = &self.sockets[id];
        let others = self
            .ports
            .get(&(proto, want.port()))
            .map_or(&[][..], Vec::as_slice);
        others.iter().filter(|&&other| other != id).any(|&other| {
            let Some((them, theirs)) = self
                .sockets
                .get(other)
                .and_then(|s| s.local.map(|l| (s, l)))
            else {
                return false;
            };
            if !me.overlaps(want.ip(), them, theirs.ip()) {
                return false;
            }
            let shared_port = me.options.reuse_port && them.options.reuse_port;
            let listening = matches!(them.role, Role::Listener(_));
            let shared_addr = me.options.reuse_addr && them.options.reuse_addr && !listening;
            !(shared_port || shared_addr)
        })
    }

    /// A free port from the ephemeral range.
    pub(crate) fn ephemeral(
        &mut self,
        proto: Proto,
        free: impl Fn(&Self, u16) -> bool,
    ) -> Option<u16> {
        let start = self.next_port % COUNT;
        // Ports that nobody has come first; ports shared between different remote addresses only where these run out.
        for alone in [true, false] {
            for step in 0..COUNT {
                let port = FIRST + (start + step) % COUNT;
                if alone && self.ports.contains_key(&(proto, port)) || !free(self, port) {
                    continue;
                }
                self.next_port = (start + step + 1) % COUNT;
                return Some(port);
            }
        }
        None
    }

    /// Gives the port of socket `id` back.
    pub(crate) fn release_port(&mut self, id: usize) {
        let sock = &self.sockets[id];
        let Some(local) = sock.local else { return };
        let key = (Proto::from(sock.kind), local.port());
        if let Some(owners) = self.ports.get_mut(&key) {
            owners.retain(|&owner| owner != id);
            if owners.is_empty() {
                self.ports.remove(&key);
            }
        }
    }

    /// Sockets at a port.
    pub(crate) fn at_port(&self, proto: Proto, port: u16) -> &[usize] {
        self.ports.get(&(proto, port)).map_or(&[], Vec::as_slice)
    }
}
