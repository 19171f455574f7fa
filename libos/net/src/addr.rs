//! Socket addresses: [`Address`] by meaning, and `struct sockaddr_*` bytes for the system-call table.

use crate::{Errno, Result};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use linux_raw_sys::net as linux;

/// Room for every address that Linux has (`struct sockaddr_storage`).
pub const STORAGE: usize = 128;

/// `sizeof(struct sockaddr_un) - sizeof(sa_family_t)`.
const UNIX_PATH_MAX: usize = 108;

/// A socket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// AF_UNSPEC: dissolves the association of a datagram socket.
    Unspec,
    /// AF_INET or AF_INET6.
    Inet(SocketAddr),
    /// AF_UNIX.
    Unix(UnixName),
    /// AF_NETLINK.
    Netlink {
        /// Port id; 0 is the kernel.
        port: u32,
        /// Multicast groups.
        groups: u32,
    },
}

/// A name in the AF_UNIX family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixName {
    /// No name: not bound.
    Unnamed,
    /// A path in the file system, without the NUL byte.
    Path(Vec<u8>),
    /// A name outside of the file system, without its leading NUL byte.
    Abstract(Vec<u8>),
}

impl Address {
    /// Reads a `struct sockaddr`.
    ///
    /// # Errors
    /// `EINVAL` for a wrong length, `EAFNOSUPPORT` for an unknown family.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let family = bytes.first_chunk::<2>().ok_or(Errno::EINVAL)?;
        match u32::from(u16::from_ne_bytes(*family)) {
            linux::AF_UNSPEC => Ok(Self::Unspec),
            linux::AF_INET => parse_inet(bytes).ok_or(Errno::EINVAL),
            linux::AF_INET6 => parse_inet6(bytes).ok_or(Errno::EINVAL),
            linux::AF_UNIX => parse_unix(&bytes[2..]),
            linux::AF_NETLINK => {
                let word = |at: usize| {
                    bytes
                        .get(at..at + 4)
                        .map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]))
                };
                let (port, groups) = word(4).zip(word(8)).ok_or(Errno::EINVAL)?;
                Ok(Self::Netlink { port, groups })
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// The `struct sockaddr` bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend((self.family() as u16).to_ne_bytes());
        match self {
            Self::Unspec => {}
            Self::Inet(SocketAddr::V4(addr)) => {
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.ip().octets());
                out.extend([0; 8]);
            }
            Self::Inet(SocketAddr::V6(addr)) => {
                out.extend(addr.port().to_be_bytes());
                out.extend(addr.flowinfo().to_ne_bytes());
                out.extend(addr.ip().octets());
                out.extend(addr.scope_id().to_ne_bytes());
            }
            Self::Unix(UnixName::Unnamed) => {}
            Self::Unix(UnixName::Path(path)) => {
                out.extend(path);
                out.push(0);
            }
            Self::Unix(UnixName::Abstract(name)) => {
                out.push(0);
                out.extend(name);
            }
            Self::Netlink { port, groups } => {
                out.extend([0; 2]);
                out.extend(port.to_ne_bytes());
                out.extend(groups.to_ne_bytes());
            }
        }
        out
    }

    /// AF_* number.
    pub fn family(&self) -> u32 {
        match self {
            Self::Unspec => linux::AF_UNSPEC,
            Self::Inet(SocketAddr::V4(_)) => linux::AF_INET,
            Self::Inet(SocketAddr::V6(_)) => linux::AF_INET6,
            Self::Unix(_) => linux::AF_UNIX,
            Self::Netlink { .. } => linux::AF_NETLINK,
        }
    }
}

fn parse_inet(bytes: &[u8]) -> Option<Address> {
    let b = bytes.first_chunk::<8>()?;
    (bytes.len() >= 16).then_some(())?;
    let port = u16::from_be_bytes([b[2], b[3]]);
    Some(Address::Inet(
        SocketAddrV4::new(Ipv4Addr::new(b[4], b[5], b[6], b[7]), port).into(),
    ))
}

fn parse_inet6(bytes: &[u8]) -> Option<Address> {
    // SIN6_LEN_RFC2133: the scope id may be missing.
    let b = bytes.first_chunk::<24>()?;
    let ip: [u8; 16] = b[8..24].try_into().ok()?;
    let port = u16::from_be_bytes([b[2], b[3]]);
    let flow = u32::from_ne_bytes([b[4], b[5], b[6], b[7]]);
    let scope = bytes
        .get(24..28)
        .map_or(0, |s| u32::from_ne_bytes([s[0], s[1], s[2], s[3]]));
    Some(Address::Inet(
        SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into(),
    ))
}

fn parse_unix(name: &[u8]) -> Result<Address> {
    if name.len() > UNIX_PATH_MAX {
        return Err(Errno::EINVAL);
    }
    Ok(Address::Unix(match name.split_first() {
        None => UnixName::Unnamed,
        Some((0, rest)) => UnixName::Abstract(rest.to_vec()),
        Some(_) => UnixName::Path(name.split(|&b| b == 0).next().unwrap_or(name).to_vec()),
    }))
}

/// An IPv4 address inside of an IPv6 one becomes itself (`::ffff:a.b.c.d`).
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The form in which an AF_INET6 socket shows an address: IPv4 as `::ffff:a.b.c.d`.
pub fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: Address) {
        assert_eq!(Address::parse(&address.to_bytes()), Ok(address));
    }

    #[test]
    fn addresses_survive_their_wire_form() {
        round_trip(Address::Inet("10.0.2.15:8080".parse().unwrap()));
        round_trip(Address::Inet("[fd00::15%3]:443".parse().unwrap()));
        round_trip(Address::Unix(UnixName::Unnamed));
        round_trip(Address::Unix(UnixName::Path(b"/tmp/s".to_vec())));
        round_trip(Address::Unix(UnixName::Abstract(b"a\0b".to_vec())));
        round_trip(Address::Netlink { port: 7, groups: 1 });
    }

    #[test]
    fn broken_addresses_are_refused() {
        assert_eq!(Address::parse(&[2]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(&[2, 0, 1, 1, 1]), Err(Errno::EINVAL));
        assert_eq!(Address::parse(&[77, 0, 0, 0]), Err(Errno::EAFNOSUPPORT));
        assert_eq!(
            Address::parse(&[&[1, 0][..], &[b'x'; 109]].concat()),
            Err(Errno::EINVAL)
        );
    }
}
