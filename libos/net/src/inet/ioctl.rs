//! Interface queries by `ioctl` (netdevice(7)): what `if_nametoindex`, `SIOCGIFCONF` users and old tools ask.

use crate::errno::{Errno, Result};
use crate::net::{LinkInfo, Net};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use linux_raw_sys::ioctl as linux;

/// `sizeof(struct ifreq)`.
pub const IFREQ: usize = 40;
/// `IFNAMSIZ`.
const NAME: usize = 16;
/// Interface flags (if.h).
const IFF_UP: u16 = 0x1;
const IFF_BROADCAST: u16 = 0x2;
const IFF_LOOPBACK: u16 = 0x8;
const IFF_RUNNING: u16 = 0x40;
const IFF_MULTICAST: u16 = 0x1000;
/// Hardware types (if_arp.h).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// IFF_* of a link.
pub(crate) fn flags(link: &LinkInfo) -> u16 {
    IFF_UP
        | IFF_RUNNING
        | if link.loopback {
            IFF_LOOPBACK
        } else {
            IFF_BROADCAST | IFF_MULTICAST
        }
}

/// ARPHRD_* of a link.
pub(crate) fn hardware_type(link: &LinkInfo) -> u16 {
    if link.loopback {
        ARPHRD_LOOPBACK
    } else {
        ARPHRD_ETHER
    }
}

impl LinkInfo {
    /// First IPv4 address with the length of its network.
    pub(crate) fn v4(&self) -> Option<(Ipv4Addr, u8)> {
        self.addresses.iter().find_map(|&(ip, bits)| match ip {
            IpAddr::V4(ip) => Some((ip, bits)),
            IpAddr::V6(_) => None,
        })
    }
}

/// The mask of a network.
pub(crate) fn mask(bits: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0))
}

/// The broadcast address of a network.
pub(crate) fn broadcast((ip, bits): (Ipv4Addr, u8)) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(ip) | !u32::from(mask(bits)))
}

fn sockaddr(ip: Ipv4Addr) -> [u8; 16] {
    let mut out = [0; 16];
    out[0] = 2;
    out[4..8].copy_from_slice(&ip.octets());
    out
}

impl Net {
    /// SIOCGIF*: reads and writes a `struct ifreq`.
    ///
    /// # Errors
    /// `ENOTTY` for another command, `ENODEV` for an unknown link, `EADDRNOTAVAIL` for a link without IPv4 address.
    pub fn interface_ioctl(&self, command: u32, request: &mut [u8; IFREQ]) -> Result<()> {
        let links = self.links();
        let name = request[..NAME]
            .split(|&b| b == 0)
            .next()
            .unwrap_or_default();
        let value = &request[NAME..];
        let link = match command {
            linux::SIOCGIFNAME => {
                let index = u32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
                links.iter().find(|link| link.index == index)
            }
            _ => links.iter().find(|link| link.name.as_bytes() == name),
        };
        let number = |n: u32| {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&n.to_ne_bytes());
            out
        };
        let known = [
            linux::SIOCGIFNAME,
            linux::SIOCGIFINDEX,
            linux::SIOCGIFFLAGS,
            linux::SIOCGIFMTU,
            linux::SIOCGIFHWADDR,
            linux::SIOCGIFADDR,
            linux::SIOCGIFNETMASK,
            linux::SIOCGIFBRDADDR,
            linux::SIOCGIFMETRIC,
            linux::SIOCGIFTXQLEN,
        ];
        if !known.contains(&command) {
            return Err(Errno::ENOTTY);
        }
        let link = link.ok_or(Errno::ENODEV)?;
        let v4 = link.v4().ok_or(Errno::EADDRNOTAVAIL);
        let answer = match command {
            linux::SIOCGIFNAME => {
                request[..NAME].fill(0);
                let len = link.name.len().min(NAME - 1);
                request[..len].copy_from_slice(&link.name.as_bytes()[..len]);
                return Ok(());
            }
            linux::SIOCGIFINDEX => number(link.index),
            linux::SIOCGIFFLAGS => number(flags(link).into()),
            linux::SIOCGIFMTU => number(link.mtu as u32),
            linux::SIOCGIFMETRIC => number(0),
            linux::SIOCGIFTXQLEN => number(1000),
            linux::SIOCGIFADDR => sockaddr(v4?.0),
            linux::SIOCGIFNETMASK => sockaddr(mask(v4?.1)),
            linux::SIOCGIFBRDADDR => sockaddr(broadcast(v4?)),
            _ => {
                let mut out = [0; 16];
                out[..2].copy_from_slice(&hardware_type(link).to_ne_bytes());
                out[2..8].copy_from_slice(&link.mac);
                out
            }
        };
        request[NAME..NAME + 16].copy_from_slice(&answer);
        Ok(())
    }

    /// SIOCGIFCONF: the array of `struct ifreq`, one for each IPv4 address.
    pub fn interface_list(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for link in self.links() {
            if let Some((ip, _)) = link.v4() {
                let mut entry = [0; IFREQ];
                let len = link.name.len().min(NAME - 1);
                entry[..len].copy_from_slice(&link.name.as_bytes()[..len]);
                entry[NAME..NAME + 16].copy_from_slice(&sockaddr(ip));
                out.extend(entry);
            }
        }
        out
    }
}
