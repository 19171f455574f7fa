//! [`Net`]: all networking of a machine. Makes sockets, owns the stack, passes wake-ups on when nothing is borrowed any more.

use crate::errno::{Errno, Result};
use crate::host::{Host, PacketDevice};
use crate::inet::InetSocket;
use crate::message::Credentials;
use crate::stack::link::{Link, LinkSetup};
use crate::stack::{Counters, Kind, Limits, Stack};
use crate::unix::{self, Namespace, UnixSocket};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::net::IpAddr;
use linux_raw_sys::net as linux;

/// Any socket.
#[derive(Clone)]
pub enum Socket {
    /// AF_UNIX.
    Unix(Rc<UnixSocket>),
    /// AF_INET and AF_INET6.
    Inet(Rc<InetSocket>),
    /// AF_NETLINK, NETLINK_ROUTE.
    Netlink(Rc<crate::netlink::NetlinkSocket>),
}

/// What is known of a link.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Interface index, from 1 (the loopback).
    pub index: u32,
    /// `lo`, `eth0`, ...
    pub name: alloc::string::String,
    /// Ethernet address; zeros for the loopback.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu: usize,
    /// Addresses with the length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default routers.
    pub gateways: Vec<IpAddr>,
    /// Is the loopback.
    pub loopback: bool,
}

/// All networking of a machine.
pub struct Net {
    pub(crate) stack: RefCell<Stack>,
    unix: Rc<Namespace>,
}

impl Net {
    /// A network with the loopback only.
    pub fn new(host: Rc<dyn Host>, limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            stack: RefCell::new(Stack::new(host, limits)),
            unix: Namespace::new(),
        })
    }

    /// Adds a network card; returns its interface index. Needs some 40 KiB of stack once.
    pub fn add_link(&self, device: Box<dyn PacketDevice>, setup: &LinkSetup) -> u32 {
        self.with(|stack| {
            let seed = stack.host.random();
            let mut link = Link::card(device, setup, seed);
            link.announce();
            stack.links.push(link);
            stack.run_timers();
            stack.links.len() as u32
        })
    }

    /// `socket`. `kind` is without SOCK_NONBLOCK and SOCK_CLOEXEC.
    ///
    /// # Errors
    /// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EPERM` (raw sockets).
    pub fn socket(
        self: &Rc<Self>,
        family: u32,
        kind: u32,
        protocol: u32,
        who: Credentials,
    ) -> Result<Socket> {
        match family {
            linux::AF_UNIX => Ok(Socket::Unix(UnixSocket::new(
                &self.unix,
                unix_kind(kind)?,
                who,
            ))),
            linux::AF_INET | linux::AF_INET6 => {
                let kind = inet_kind(family, kind, protocol)?;
                Ok(Socket::Inet(InetSocket::new(
                    self,
                    kind,
                    family == linux::AF_INET6,
                )))
            }
            linux::AF_NETLINK
                if protocol == 0 && matches!(kind, linux::SOCK_RAW | linux::SOCK_DGRAM) =>
            {
                Ok(Socket::Netlink(crate::netlink::NetlinkSocket::new(self)))
            }
            linux::AF_NETLINK => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// `socketpair`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a family other than AF_UNIX, `ESOCKTNOSUPPORT`.
    pub fn socket_pair(
        &self,
        family: u32,
        kind: u32,
        who: Credentials,
    ) -> Result<(Rc<UnixSocket>, Rc<UnixSocket>)> {
        match family {
            linux::AF_UNIX => Ok(UnixSocket::pair(&self.unix, unix_kind(kind)?, who)),
            linux::AF_INET | linux::AF_INET6 => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// Takes received frames and does what is due. Call after a card's interrupt and at [`Self::deadline`]. True when there may be more at once.
    pub fn poll(&self) -> bool {
        self.with(|stack| {
            let mut more = false;
            for link in 1..stack.links.len() {
                more |= stack.receive_frames(link);
            }
            stack.run_timers();
            more
        })
    }

    /// When [`Self::poll`] must be called at the latest, nanoseconds of CLOCK_MONOTONIC.
    pub fn deadline(&self) -> Option<u64> {
        self.stack.borrow_mut().deadline()
    }

    /// True while a card that gets its addresses from the network has none that leads anywhere.
    pub fn is_configuring(&self) -> bool {
        let stack = self.stack.borrow();
        stack.links[1..].iter().any(|link| {
            let near = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let mut addresses = link.iface.ip_addrs().iter();
            link.automatic && addresses.all(|cidr| near(cidr.address().into()))
        })
    }

    /// All links.
    pub fn links(&self) -> Vec<LinkInfo> {
        let stack = self.stack.borrow();
        let describe = |(at, link): (usize, &Link)| LinkInfo {
            index: at as u32 + 1,
            name: link.name.clone(),
            mac: link.info.mac,
            mtu: link.info.mtu,
            addresses: link
                .iface
                .ip_addrs()
                .iter()
                .map(|cidr| (cidr.address().into(), cidr.prefix_len()))
                .collect(),
            gateways: if at == 0 {
                Vec::new()
            } else {
                [true, false]
                    .iter()
                    .filter_map(|&v4| stack.gateway(at, v4))
                    .collect()
            },
            loopback: link.is_loopback(),
        };
        stack.links.iter().enumerate().map(describe).collect()
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        self.stack.borrow().counters
    }

    /// TCP connections now, those without socket included.
    pub fn connections(&self) -> usize {
        self.stack.borrow().conns.len()
    }

    /// Runs an operation to its end, then passes the wake-ups on.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Stack) -> R) -> R {
        let mut stack = self.stack.borrow_mut();
        let result = work(&mut stack);
        stack.settle();
        let wakes = core::mem::take(&mut stack.wakes);
        drop(stack);
        for (hook, mask) in wakes {
            if let Some(hook) = hook.upgrade() {
                hook.wake(mask);
            }
        }
        result
    }
}

fn unix_kind(kind: u32) -> Result<unix::Kind> {
    match kind {
        linux::SOCK_STREAM => Ok(unix::Kind::Stream),
        linux::SOCK_DGRAM | linux::SOCK_RAW => Ok(unix::Kind::Datagram),
        linux::SOCK_SEQPACKET => Ok(unix::Kind::SeqPacket),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

fn inet_kind(family: u32, kind: u32, protocol: u32) -> Result<Kind> {
    match (kind, protocol) {
        (linux::SOCK_STREAM, 0 | TCP) => Ok(Kind::Tcp),
        (linux::SOCK_DGRAM, 0 | UDP) => Ok(Kind::Udp),
        (linux::SOCK_DGRAM, ICMP) if family == linux::AF_INET => Ok(Kind::Ping),
        (linux::SOCK_DGRAM, ICMPV6) if family == linux::AF_INET6 => Ok(Kind::Ping),
        (linux::SOCK_STREAM | linux::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        (linux::SOCK_RAW, _) => Err(Errno::EPERM),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
