//! Links: the loopback and network cards, each with a smoltcp interface. `port` is smoltcp's view of one, `neighbour` asks for hardware addresses.

use super::neighbour::link_local;
use super::port::{Outlet, Port, Sent};
use crate::host::{DeviceInfo, PacketDevice};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Medium;
use smoltcp::socket::{dhcpv4, raw};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpProtocol, IpVersion};

/// MTU of the loopback.
const LOOPBACK_MTU: usize = 65_535;
/// Length of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// How a card gets its addresses.
#[derive(Clone, Debug, Default)]
pub struct LinkSetup {
    /// `eth0`, ...
    pub name: String,
    /// Addresses with the length of their network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// IPv4 router.
    pub gateway_v4: Option<Ipv4Addr>,
    /// IPv6 router.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Ask for an IPv4 address by DHCP.
    pub dhcp: bool,
    /// Take IPv6 addresses from router advertisements.
    pub slaac: bool,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// Packets for one next hop: a smoltcp raw socket, so that ARP for one neighbour does not hold up the others.
pub(crate) struct Lane {
    pub next_hop: IpAddr,
    pub set: SocketSet<'static>,
    pub v4: SocketHandle,
    pub v6: SocketHandle,
    /// Since when something has waited, smoltcp microseconds.
    pub waiting: Option<i64>,
}

/// A link.
pub(crate) struct Link {
    pub name: String,
    pub iface: Interface,
    pub info: DeviceInfo,
    /// `None` for the loopback, and while frames are being received.
    pub device: Option<Box<dyn PacketDevice>>,
    /// Packets on the loopback; answers made while a card's frames are being received.
    pub queue: VecDeque<Vec<u8>>,
    pub lanes: Vec<Lane>,
    /// The DHCP client.
    pub auto: SocketSet<'static>,
    pub dhcp: Option<SocketHandle>,
    /// Addresses come from the network.
    pub automatic: bool,
    pub dns: Vec<IpAddr>,
    /// Puts IPv4 fragments together; made when the first one comes.
    pub whole: Option<(SocketSet<'static>, SocketHandle)>,
    pub touched: bool,
    /// An answer to ARP or a neighbour solicitation came.
    pub neighbours_changed: bool,
    /// Neighbours asked for by [`Self::solicit`], and when (microseconds).
    pub asked: Vec<(IpAddr, i64)>,
    /// IPv4 neighbours that were heard of.
    pub neighbours: Vec<(Ipv4Addr, [u8; 6])>,
    pub sent: Sent,
    /// Frames and bytes received.
    pub received: (u64, u64),
}

impl Link {
    /// The loopback: takes every address.
    pub fn loopback(seed: u64) -> Self {
        let info = DeviceInfo {
            mac: [0; 6],
            mtu: LOOPBACK_MTU,
            checksum: true,
            tso4: false,
            lossy: false,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut link = Self::build(String::from("lo"), config, info, None);
        link.iface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(Ipv4Addr::LOCALHOST.into(), 8));
            let _ = addrs.push(IpCidr::new(Ipv6Addr::LOCALHOST.into(), 128));
        });
        link.iface.set_any_ip(true);
        link
    }

    /// A card.
    pub fn card(device: Box<dyn PacketDevice>, setup: &LinkSetup, seed: u64) -> Self {
        let info = device.info();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(info.mac)));
        config.random_seed = seed;
        config.slaac = setup.slaac;
        let mut link = Self::build(setup.name.clone(), config, info, Some(device));
        link.iface.update_ip_addrs(|addrs| {
            // Neighbour discovery needs a link-local address before anything else.
            let _ = addrs.push(IpCidr::new(link_local(info.mac).into(), 64));
            for &(address, bits) in &setup.addresses {
                let _ = addrs.push(IpCidr::new(address.into(), bits));
            }
        });
        if let Some(gateway) = setup.gateway_v4 {
            let _ = link.iface.routes_mut().add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = setup.gateway_v6 {
            let _ = link.iface.routes_mut().add_default_ipv6_route(gateway);
        }
        link.automatic = setup.dhcp || setup.slaac;
        link.dns.clone_from(&setup.dns);
        if setup.dhcp {
            link.dhcp = Some(link.auto.add(dhcpv4::Socket::new()));
        }
        link
    }

    fn build(
        name: String,
        config: Config,
        info: DeviceInfo,
        device: Option<Box<dyn PacketDevice>>,
    ) -> Self {
        let mut queue = VecDeque::new();
        let medium = if device.is_some() {
            Medium::Ethernet
        } else {
            Medium::Ip
        };
        let mut port = Port {
            inbound: None,
            medium,
            info,
            out: Outlet::Queue(&mut queue),
            sent: &mut Sent::default(),
        };
        let iface = Interface::new(config, &mut port, smoltcp::time::Instant::ZERO);
        Self {
            name,
            iface,
            info,
            device,
            queue: VecDeque::new(),
            lanes: Vec::new(),
            auto: SocketSet::new(Vec::new()),
            dhcp: None,
            automatic: false,
            dns: Vec::new(),
            whole: None,
            touched: false,
            neighbours_changed: false,
            asked: Vec::new(),
            neighbours: Vec::new(),
            sent: Sent::default(),
            received: (0, 0),
        }
    }

    pub fn is_loopback(&self) -> bool {
        self.info.mac == [0; 6]
    }

    /// The interface and the port it sends through.
    pub fn split<'a>(&'a mut self, inbound: Option<&'a [u8]>) -> (&'a mut Interface, Port<'a>) {
        let medium = if self.info.mac == [0; 6] {
            Medium::Ip
        } else {
            Medium::Ethernet
        };
        self.touched = true;
        let out = match &mut self.device {
            Some(device) => Outlet::Device(device.as_mut()),
            None => Outlet::Queue(&mut self.queue),
        };
        (
            &mut self.iface,
            Port {
                inbound,
                medium,
                info: self.info,
                out,
                sent: &mut self.sent,
            },
        )
    }

    /// The next packet on the loopback.
    pub fn take_looped(&mut self) -> Option<Vec<u8>> {
        self.queue.pop_front()
    }

    /// Tells the card about queued frames.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.touched)
            && let Some(device) = &mut self.device
        {
            device.flush();
        }
    }

    /// The lane to `next_hop`, made when there is none.
    pub fn lane(&mut self, next_hop: IpAddr) -> &mut Lane {
        if let Some(at) = self.lanes.iter().position(|lane| lane.next_hop == next_hop) {
            return &mut self.lanes[at];
        }
        if self.lanes.len() >= MAX_LANES {
            self.lanes.remove(0);
        }
        self.lanes.push(Lane::empty(next_hop));
        let last = self.lanes.len() - 1;
        &mut self.lanes[last]
    }
}

/// Next hops with packets waiting.
const MAX_LANES: usize = 16;

impl Lane {
    pub fn empty(next_hop: IpAddr) -> Self {
        let mut set = SocketSet::new(Vec::with_capacity(2));
        let socket = |version| {
            let tx =
                raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 128], vec![0; 128 << 10]);
            let rx = raw::PacketBuffer::new(Vec::new(), Vec::new());
            raw::Socket::new(Some(version), None::<IpProtocol>, rx, tx)
        };
        let (v4, v6) = (
            set.add(socket(IpVersion::Ipv4)),
            set.add(socket(IpVersion::Ipv6)),
        );
        Self {
            next_hop,
            set,
            v4,
            v6,
            waiting: None,
        }
    }

    pub fn socket(&mut self, v4: bool) -> &mut raw::Socket<'static> {
        self.set.get_mut(if v4 { self.v4 } else { self.v6 })
    }

    pub fn is_empty(&mut self) -> bool {
        self.socket(true).send_queue() == 0 && self.socket(false).send_queue() == 0
    }
}
