//! AF_NETLINK with NETLINK_ROUTE (rtnetlink(7)): the dumps that `getifaddrs` and `getaddrinfo` ask for: links, addresses, routes.

use crate::addr::Address;
use crate::errno::{Errno, Result};
use crate::inet::ioctl::{broadcast, flags, hardware_type};
use crate::message::{Ancillary, Received, gather, scatter, total};
use crate::net::{LinkInfo, Net};
use crate::ready::{self, Hook, HookSlot};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::net::IpAddr;

/// Message types and flags (linux/netlink.h, linux/rtnetlink.h).
mod message {
    pub const NLMSG_ERROR: u16 = 2;
    pub const NLMSG_DONE: u16 = 3;
    pub const NLM_F_ACK: u16 = 4;
    pub const NLM_F_MULTI: u16 = 2;
    pub const NLM_F_DUMP: u16 = 0x300;
    pub const RTM_NEWLINK: u16 = 16;
    pub const RTM_GETLINK: u16 = 18;
    pub const RTM_NEWADDR: u16 = 20;
    pub const RTM_GETADDR: u16 = 22;
    pub const RTM_NEWROUTE: u16 = 24;
    pub const RTM_GETROUTE: u16 = 26;
    pub const IFLA_ADDRESS: u16 = 1;
    pub const IFLA_BROADCAST: u16 = 2;
    pub const IFLA_IFNAME: u16 = 3;
    pub const IFLA_MTU: u16 = 4;
    pub const IFLA_TXQLEN: u16 = 13;
    pub const IFLA_OPERSTATE: u16 = 16;
    pub const IFA_ADDRESS: u16 = 1;
    pub const IFA_LOCAL: u16 = 2;
    pub const IFA_LABEL: u16 = 3;
    pub const IFA_BROADCAST: u16 = 4;
    pub const IFA_FLAGS: u16 = 8;
    pub const RTA_DST: u16 = 1;
    pub const RTA_OIF: u16 = 4;
    pub const RTA_GATEWAY: u16 = 5;
    pub const IFA_F_PERMANENT: u8 = 0x80;
    pub const RT_SCOPE_UNIVERSE: u8 = 0;
    pub const RT_SCOPE_LINK: u8 = 253;
    pub const RT_SCOPE_HOST: u8 = 254;
    pub const RT_TABLE_MAIN: u8 = 254;
    pub const RTPROT_BOOT: u8 = 3;
    pub const RTN_UNICAST: u8 = 1;
}
use message::*;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Answers longer than this are split into several datagrams.
const DATAGRAM: usize = 8192;

/// A routing netlink socket.
pub struct NetlinkSocket {
    net: Rc<Net>,
    hook: HookSlot,
    port: Cell<u32>,
    inbox: RefCell<VecDeque<Vec<u8>>>,
}

impl NetlinkSocket {
    pub(crate) fn new(net: &Rc<Net>) -> Rc<Self> {
        Rc::new(Self {
            net: net.clone(),
            hook: HookSlot::default(),
            port: Cell::new(0),
            inbox: RefCell::default(),
        })
    }

    /// Sets who is told about changes of readiness (held weakly).
    pub fn set_hook(&self, hook: &Rc<dyn Hook>) {
        self.hook.set(hook);
    }

    /// `bind`; port 0 chooses one.
    ///
    /// # Errors
    /// `EINVAL` for an address of another family.
    pub fn bind(&self, address: &Address) -> Result<()> {
        let Address::Netlink { port, .. } = *address else {
            return Err(Errno::EINVAL);
        };
        self.port
            .set(if port == 0 { self.own_port() } else { port });
        Ok(())
    }

    fn own_port(&self) -> u32 {
        if self.port.get() == 0 {
            self.port
                .set(self.net.stack.borrow().host.random() as u32 | 1);
        }
        self.port.get()
    }

    /// `getsockname`.
    pub fn local_address(&self) -> Address {
        Address::Netlink {
            port: self.port.get(),
            groups: 0,
        }
    }

    /// Readiness now.
    pub fn poll(&self) -> u32 {
        ready::OUT
            | if self.inbox.borrow().is_empty() {
                0
            } else {
                ready::IN
            }
    }

    /// Takes requests; the answers are there at once.
    ///
    /// # Errors
    /// `EINVAL` for what is not a netlink message.
    pub fn send(&self, data: &[&[u8]]) -> Result<usize> {
        let len = total(data);
        let mut bytes = Vec::with_capacity(len);
        gather(data, 0, len, &mut bytes);
        let mut rest = &bytes[..];
        while let Some(header) = Header::parse(rest) {
            let body = rest.get(16..header.len).ok_or(Errno::EINVAL)?;
            self.request(&header, body);
            rest = rest
                .get(header.len.next_multiple_of(4)..)
                .unwrap_or_default();
        }
        self.hook.wake(ready::IN);
        Ok(len)
    }

    fn request(&self, header: &Header, body: &[u8]) {
        let family = body.first().copied().unwrap_or(0);
        let links = self.net.links();
        let mut answer = Answer {
            port: self.own_port(),
            sequence: header.sequence,
            bytes: Vec::new(),
            inbox: &self.inbox,
        };
        let dump = header.flags & NLM_F_DUMP != 0;
        match header.kind {
            RTM_GETLINK => links.iter().for_each(|link| answer.link(link)),
            RTM_GETADDR if dump => links.iter().for_each(|link| answer.addresses(link, family)),
            RTM_GETROUTE if dump => links.iter().for_each(|link| answer.routes(link, family)),
            _ => return answer.error(header, Errno::EOPNOTSUPP.0),
        }
        if dump {
            answer.push(NLMSG_DONE, &0u32.to_ne_bytes(), &[]);
        } else if header.flags & NLM_F_ACK != 0 {
            answer.error(header, 0);
        }
        answer.finish();
    }

    /// Receives one datagram of answers.
    ///
    /// # Errors
    /// `EAGAIN`.
    pub fn receive(&self, out: &mut [&mut [u8]], peek: bool) -> Result<Received> {
        let mut inbox = self.inbox.borrow_mut();
        let datagram = inbox.front().ok_or(Errno::EAGAIN)?;
        let received = Received {
            len: scatter(datagram, out, 0),
            full_len: datagram.len(),
            from: Some(Address::Netlink { port: 0, groups: 0 }),
            ancillary: Ancillary::default(),
        };
        if !peek {
            inbox.pop_front();
        }
        Ok(received)
    }
}

/// `struct nlmsghdr`.
struct Header {
    len: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
    raw: [u8; 16],
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let raw = *bytes.first_chunk::<16>()?;
        let len = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
        (16..=bytes.len()).contains(&len).then_some(())?;
        let (kind, flags) = (
            u16::from_ne_bytes([raw[4], raw[5]]),
            u16::from_ne_bytes([raw[6], raw[7]]),
        );
        Some(Self {
            len,
            kind,
            flags,
            sequence: u32::from_ne_bytes([raw[8], raw[9], raw[10], raw[11]]),
            raw,
        })
    }
}

/// Builds the datagrams of an answer.
struct Answer<'a> {
    port: u32,
    sequence: u32,
    bytes: Vec<u8>,
    inbox: &'a RefCell<VecDeque<Vec<u8>>>,
}

impl Answer<'_> {
    fn push(&mut self, kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) {
        if self.bytes.len() > DATAGRAM / 2 {
            self.finish();
        }
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(NLM_F_MULTI.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(self.port.to_ne_bytes());
        self.bytes.extend(body);
        for (kind, value) in attributes {
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
            self.bytes.extend((4 + value.len() as u16).to_ne_bytes());
            self.bytes.extend(kind.to_ne_bytes());
            self.bytes.extend(*value);
        }
        // The last attribute's padding counts, as in Linux's messages: musl's RTA_OK runs past the end without it.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    fn finish(&mut self) {
        if !self.bytes.is_empty() {
            self.inbox
                .borrow_mut()
                .push_back(core::mem::take(&mut self.bytes));
        }
    }

    fn error(&mut self, header: &Header, code: i32) {
        let mut body = Vec::from((-code).to_ne_bytes());
        body.extend(header.raw);
        self.push(NLMSG_ERROR, &body, &[]);
        self.finish();
    }

    fn link(&mut self, link: &LinkInfo) {
        let mut body = Vec::from([0, 0]);
        body.extend(hardware_type(link).to_ne_bytes());
        body.extend(link.index.to_ne_bytes());
        body.extend(u32::from(flags(link)).to_ne_bytes());
        body.extend([0; 4]);
        let name = [link.name.as_bytes(), &[0]].concat();
        let everyone = if link.loopback { [0; 6] } else { [0xff; 6] };
        let (mtu, queue) = ((link.mtu as u32).to_ne_bytes(), 1000u32.to_ne_bytes());
        // 6: IF_OPER_UP; 0: unknown, as Linux says of the loopback.
        let state = [if link.loopback { 0 } else { 6 }];
        let attributes: [(u16, &[u8]); 6] = [
            (IFLA_IFNAME, &name),
            (IFLA_TXQLEN, &queue),
            (IFLA_OPERSTATE, &state),
            (IFLA_MTU, &mtu),
            (IFLA_ADDRESS, &link.mac),
            (IFLA_BROADCAST, &everyone),
        ];
        self.push(RTM_NEWLINK, &body, &attributes);
    }

    fn addresses(&mut self, link: &LinkInfo, family: u8) {
        for &(ip, bits) in &link.addresses {
            let (kind, bytes) = octets(ip);
            if family != 0 && family != kind {
                continue;
            }
            let scope = match ip {
                _ if ip.is_loopback() => RT_SCOPE_HOST,
                IpAddr::V6(ip) if ip.is_unicast_link_local() => RT_SCOPE_LINK,
                _ => RT_SCOPE_UNIVERSE,
            };
            let mut body = Vec::from([kind, bits, IFA_F_PERMANENT, scope]);
            body.extend(link.index.to_ne_bytes());
            let label = [link.name.as_bytes(), &[0]].concat();
            let permanent = u32::from(IFA_F_PERMANENT).to_ne_bytes();
            let mut attributes: Vec<(u16, &[u8])> =
                Vec::from([(IFA_ADDRESS, &bytes[..]), (IFA_FLAGS, &permanent[..])]);
            let everyone;
            if let IpAddr::V4(ip) = ip {
                attributes.push((IFA_LOCAL, &bytes));
                attributes.push((IFA_LABEL, &label));
                everyone = broadcast((ip, bits)).octets();
                if !link.loopback {
                    attributes.push((IFA_BROADCAST, &everyone));
                }
            }
            self.push(RTM_NEWADDR, &body, &attributes);
        }
    }

    fn routes(&mut self, link: &LinkInfo, family: u8) {
        let index = link.index.to_ne_bytes();
        let networks = link
            .addresses
            .iter()
            .map(|&(ip, bits)| (Some((ip, bits)), None));
        let gateways = link.gateways.iter().map(|&gateway| (None, Some(gateway)));
        for (network, gateway) in networks.chain(gateways) {
            let Some((kind, _)) = network.map(|n: (IpAddr, u8)| n.0).or(gateway).map(octets) else {
                continue;
            };
            if family != 0 && family != kind {
                continue;
            }
            let bits = network.map_or(0, |n| n.1);
            let scope = if gateway.is_some() {
                RT_SCOPE_UNIVERSE
            } else {
                RT_SCOPE_LINK
            };
            let mut body = Vec::from([
                kind,
                bits,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_BOOT,
                scope,
                RTN_UNICAST,
            ]);
            body.extend([0; 4]);
            let destination = network.map(|n| octets(n.0).1);
            let through = gateway.map(|g| octets(g).1);
            let mut attributes: Vec<(u16, &[u8])> = Vec::from([(RTA_OIF, &index[..])]);
            attributes.extend(destination.as_ref().map(|bytes| (RTA_DST, &bytes[..])));
            attributes.extend(through.as_ref().map(|bytes| (RTA_GATEWAY, &bytes[..])));
            self.push(RTM_NEWROUTE, &body, &attributes);
        }
    }
}

fn octets(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    }
}
