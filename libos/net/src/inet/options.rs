//! Socket options of internet sockets: [`Options`], and `getsockopt` and `setsockopt` (socket(7), tcp(7), ip(7), ipv6(7), udp(7)).

use super::InetSocket;
pub use super::settings::Options;
use super::settings::number::*;
use crate::errno::{Errno, Result};
use crate::stack::datagram::DEFAULT_RECEIVE;
use crate::stack::{Kind, Role, Stack};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use linux_raw_sys::net as linux;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

/// Largest buffer that SO_RCVBUF and SO_SNDBUF give (net.core.rmem_max, doubled).
const BUFFER_MAX: usize = 8 << 20;

impl Options {
    /// Hop limit for packets to `ip`, where one was set.
    pub(crate) fn hop_limit_for(&self, ip: IpAddr) -> Option<u8> {
        if ip.is_multicast() {
            Some(self.multicast_hops)
        } else {
            self.hop_limit
        }
    }

    /// Sets what smoltcp's socket has to know. `lossy`: as in `DeviceInfo`. Where packets stay on the machine, holding small ones back
    /// (Nagle) saves nothing and costs delays.
    pub(crate) fn apply(&self, socket: &mut tcp::Socket<'_>, lossy: bool) {
        socket.set_nagle_enabled(lossy && !self.no_delay);
        socket.set_hop_limit(self.hop_limit.filter(|&hops| hops > 0));
        if self.keep_alive {
            socket.set_keep_alive(Some(Duration::from_secs(self.keep_idle.into())));
            let patience = u64::from(self.keep_idle)
                + u64::from(self.keep_interval) * u64::from(self.keep_count);
            socket.set_timeout(Some(Duration::from_secs(patience)));
        } else {
            socket.set_keep_alive(None);
        }
        if self.user_timeout > 0 {
            socket.set_timeout(Some(Duration::from_millis(self.user_timeout.into())));
        }
    }
}

/// Reads an `int`.
fn int(value: &[u8]) -> Result<u32> {
    value
        .first_chunk()
        .map(|b| u32::from_ne_bytes(*b))
        .ok_or(Errno::EINVAL)
}

/// Reads an `int` or, as the IP options permit, a single byte; of nothing, zero.
fn int_or_byte(value: &[u8]) -> u32 {
    int(value).unwrap_or_else(|_| value.first().copied().unwrap_or(0).into())
}

/// Minus one for the default, or a byte that is not less than `least`.
fn hops(number: u32, least: u8) -> Result<Option<u8>> {
    match number {
        u32::MAX => Ok(None),
        _ if number < least.into() => Err(Errno::EINVAL),
        _ => byte(number).map(Some),
    }
}

fn byte(value: u32) -> Result<u8> {
    u8::try_from(value).map_err(|_| Errno::EINVAL)
}

fn show(value: impl Into<u32>) -> Result<Vec<u8>> {
    Ok(value.into().to_ne_bytes().to_vec())
}

/// SO_RCVBUF and SO_SNDBUF: Linux doubles what is asked for.
fn buffer(value: &[u8], least: usize) -> Result<Option<usize>> {
    Ok(Some(
        (int(value)?.min(i32::MAX as u32) as usize * 2).clamp(least, BUFFER_MAX),
    ))
}

impl InetSocket {
    /// What the socket was told. Timeouts are not among it: they are the kernel's.
    pub fn options(&self) -> Options {
        self.net.stack.borrow().sockets[self.id].options.clone()
    }

    /// `setsockopt`.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, `ENODEV`, `EADDRNOTAVAIL`, `EADDRINUSE`, `ENOENT`, `EPROTO` (groups are not for TCP).
    pub fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        self.net.with(|stack| {
            match level {
                linux::SOL_SOCKET => self.set_socket(stack, name, value)?,
                SOL_TCP if self.kind() == Kind::Tcp => {
                    set_tcp(&mut stack.sockets[self.id].options, name, value)?
                }
                SOL_UDP if self.kind() == Kind::Udp => {
                    set_udp(&mut stack.sockets[self.id].options, name, value)?
                }
                SOL_IP => self.set_ip(stack, name, value)?,
                SOL_IPV6 if self.is_v6() => self.set_ipv6(stack, name, value)?,
                _ => return Err(Errno::ENOPROTOOPT),
            }
            if let Role::Connection(conn) = stack.sockets[self.id].role {
                let options = stack.sockets[self.id].options.clone();
                let lossy = stack.links[stack.conns[conn].link].info.lossy;
                options.apply(stack.conns[conn].socket(), lossy);
                stack.touch(conn);
            }
            Ok(())
        })
    }

    fn set_socket(&self, stack: &mut Stack, name: u32, value: &[u8]) -> Result<()> {
        if name == linux::SO_BINDTODEVICE {
            let wanted = value.split(|&b| b == 0).next().unwrap_or_default();
            let link = stack
                .links
                .iter()
                .position(|link| link.name.as_bytes() == wanted);
            stack.sockets[self.id].options.bound_link = if wanted.is_empty() {
                None
            } else {
                Some(link.ok_or(Errno::ENODEV)?)
            };
            return Ok(());
        }
        let links = stack.links.len();
        let options = &mut stack.sockets[self.id].options;
        match name {
            linux::SO_BINDTOIFINDEX => {
                let index = usize::try_from(int(value)? as i32).map_err(|_| Errno::EINVAL)?;
                options.bound_link = link_at(index, links)?;
            }
            linux::SO_LINGER => {
                let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or_default())?);
                options.linger = (on != 0).then_some(seconds);
            }
            linux::SO_RCVBUF | linux::SO_RCVBUFFORCE => {
                options.receive_buffer = buffer(value, 2304)?
            }
            linux::SO_SNDBUF | linux::SO_SNDBUFFORCE => options.send_buffer = buffer(value, 4608)?,
            linux::SO_REUSEADDR => options.reuse_addr = int(value)? != 0,
            linux::SO_REUSEPORT => options.reuse_port = int(value)? != 0,
            linux::SO_KEEPALIVE => options.keep_alive = int(value)? != 0,
            linux::SO_BROADCAST => options.broadcast = int(value)? != 0,
            linux::SO_TIMESTAMP_OLD | linux::SO_TIMESTAMPNS_OLD => {
                options.timestamps = int(value)? != 0
            }
            linux::SO_PRIORITY => options.priority = int(value)?,
            linux::SO_MARK => options.mark = int(value)?,
            linux::SO_RCVLOWAT => options.receive_low = int(value)?.max(1),
            _ => options.keep(linux::SOL_SOCKET, name, int(value)?)?,
        }
        Ok(())
    }

    fn set_ip(&self, stack: &mut Stack, name: u32, value: &[u8]) -> Result<()> {
        let tcp = self.kind() == Kind::Tcp;
        match name {
            IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP if tcp => return Err(Errno::EPROTO),
            IP_MULTICAST_IF | IP_MULTICAST_TTL if tcp => return Err(Errno::EINVAL),
            IP_FREEBIND | IP_MULTICAST_TTL | IP_MULTICAST_LOOP if value.is_empty() => {
                return Err(Errno::EINVAL);
            }
            IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP => {
                let (group, link) = membership_v4(stack, value)?;
                return self.membership(stack, group, link, name == IP_ADD_MEMBERSHIP);
            }
            IP_MULTICAST_IF => {
                let at = value.len().saturating_sub(4);
                let word = value
                    .get(if value.len() >= 8 { 4 } else { at }..)
                    .and_then(|b| b.first_chunk::<4>())
                    .ok_or(Errno::EINVAL)?;
                let address = Ipv4Addr::from(*word);
                let link = link_of(stack, address.into());
                if link.is_none() && !address.is_unspecified() {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                stack.sockets[self.id].options.multicast_link = link;
                return Ok(());
            }
            _ => {}
        }
        let options = &mut stack.sockets[self.id].options;
        let number = int_or_byte(value);
        match name {
            IP_TTL => options.hop_limit = hops(number, 1)?,
            IP_TOS => options.traffic_class = class(number as u8, tcp),
            IP_MULTICAST_TTL => options.multicast_hops = hops(number, 0)?.unwrap_or(1),
            IP_MULTICAST_LOOP => options.multicast_loop = number != 0,
            IP_PKTINFO => options.packet_info = number != 0,
            IP_RECVTTL => options.receive_hop_limit = number != 0,
            IP_RECVTOS => options.receive_traffic_class = number != 0,
            IP_RECVERR => options.receive_error = number != 0,
            IP_MTU_DISCOVER if number <= 5 => options.mtu_discover = number,
            IP_FREEBIND => options.free_bind = number != 0,
            IP_MTU_DISCOVER => return Err(Errno::EINVAL),
            _ => options.keep(SOL_IP, name, number)?,
        }
        Ok(())
    }

    fn set_ipv6(&self, stack: &mut Stack, name: u32, value: &[u8]) -> Result<()> {
        if matches!(name, IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP) {
            let group = value
                .first_chunk::<16>()
                .map(|b| Ipv6Addr::from(*b))
                .ok_or(Errno::EINVAL)?;
            let index = int(value.get(16..).unwrap_or_default())? as usize;
            return self.membership(
                stack,
                group.into(),
                index.checked_sub(1),
                name == IPV6_ADD_MEMBERSHIP,
            );
        }
        let bound = stack.sockets[self.id].local.is_some();
        let links = stack.links.len();
        let tcp = self.kind() == Kind::Tcp;
        let options = &mut stack.sockets[self.id].options;
        let number = int(value)?;
        match name {
            IPV6_MULTICAST_HOPS | IPV6_MULTICAST_IF if tcp => return Err(Errno::ENOPROTOOPT),
            IPV6_V6ONLY if bound => return Err(Errno::EINVAL),
            IPV6_V6ONLY => options.v6_only = number != 0,
            IPV6_UNICAST_HOPS => options.hop_limit = hops(number, 0)?,
            IPV6_MULTICAST_HOPS => options.multicast_hops = hops(number, 0)?.unwrap_or(1),
            IPV6_MULTICAST_LOOP if number <= 1 => options.multicast_loop = number != 0,
            IPV6_MULTICAST_IF => {
                options.multicast_link = link_at(number as usize, links)?;
            }
            IPV6_RECVPKTINFO => options.packet_info = number != 0,
            IPV6_RECVHOPLIMIT => options.receive_hop_limit = number != 0,
            IPV6_RECVTCLASS => options.receive_traffic_class = number != 0,
            IPV6_TCLASS => options.traffic_class = class(hops(number, 0)?.unwrap_or(0), tcp),
            IPV6_RECVERR => options.receive_error = number != 0,
            IPV6_MTU_DISCOVER if number <= 5 => options.mtu_discover = number,
            IPV6_MULTICAST_LOOP | IPV6_MTU_DISCOVER => return Err(Errno::EINVAL),
            _ => options.keep(SOL_IPV6, name, number)?,
        }
        Ok(())
    }

    fn membership(
        &self,
        stack: &mut Stack,
        group: IpAddr,
        link: Option<usize>,
        join: bool,
    ) -> Result<()> {
        if self.kind() == Kind::Tcp {
            return Err(Errno::EPROTO);
        }
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let link = link.unwrap_or(if stack.links.len() > 1 { 1 } else { 0 });
        if link >= stack.links.len() {
            return Err(Errno::ENODEV);
        }
        let Role::Mailbox(mailbox) = &mut stack.sockets[self.id].role else {
            return Err(Errno::EINVAL);
        };
        let known = mailbox
            .groups
            .iter()
            .position(|&entry| entry == (link, group));
        match (known, join) {
            (Some(_), true) => return Err(Errno::EADDRINUSE),
            (None, false) => return Err(Errno::EADDRNOTAVAIL),
            (None, true) => {
                mailbox.groups.push((link, group));
                stack.join_group(link, group)?;
            }
            (Some(at), false) => {
                mailbox.groups.remove(at);
                stack.leave_group(link, group);
            }
        }
        Ok(())
    }

    /// `getsockopt`: the bytes of the value, to be cut to the caller's room.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EOPNOTSUPP` (a level that is not an IPv4 socket's), `ENOTCONN`.
    pub fn option(&self, level: u32, name: u32) -> Result<Vec<u8>> {
        if (level, name) == (linux::SOL_SOCKET, linux::SO_ERROR) {
            return show(self.take_error().map_or(0, |e| e.0 as u32));
        }
        let stack = self.net.stack.borrow();
        let options = &stack.sockets[self.id].options;
        match level {
            linux::SOL_SOCKET => self.show_socket(&stack, options, name),
            SOL_TCP if self.kind() == Kind::Tcp => self.show_tcp(&stack, options, name),
            SOL_UDP if self.kind() == Kind::Udp && name == UDP_SEGMENT => show(options.segment),
            SOL_UDP if self.kind() == Kind::Udp => Err(Errno::ENOPROTOOPT),
            SOL_IP => self.show_ip(&stack, options, name),
            SOL_IPV6 if self.is_v6() => self.show_ipv6(&stack, options, name),
            _ if self.is_v6() => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn show_socket(&self, stack: &Stack, options: &Options, name: u32) -> Result<Vec<u8>> {
        let sock = &stack.sockets[self.id];
        let buffer = |asked: Option<usize>, tcp: usize| match &sock.role {
            _ if asked.is_some() => asked.unwrap_or(0) as u32,
            Role::Connection(_) => tcp as u32,
            _ => DEFAULT_RECEIVE as u32,
        };
        let capacity = |of: fn(&tcp::Socket<'static>) -> usize| match sock.role {
            Role::Connection(conn) => of(stack.conns[conn].peek()),
            _ => 0,
        };
        match name {
            linux::SO_TYPE => show(if self.kind() == Kind::Tcp {
                linux::SOCK_STREAM
            } else {
                linux::SOCK_DGRAM
            }),
            linux::SO_DOMAIN => show(if self.is_v6() {
                linux::AF_INET6
            } else {
                linux::AF_INET
            }),
            linux::SO_PROTOCOL => show(match self.kind() {
                Kind::Tcp => 6u32,
                Kind::Udp => 17,
                Kind::Ping if self.is_v6() => 58,
                Kind::Ping => 1,
            }),
            linux::SO_ACCEPTCONN => show(matches!(sock.role, Role::Listener(_))),
            linux::SO_RCVBUF => show(buffer(
                options.receive_buffer,
                capacity(tcp::Socket::recv_capacity),
            )),
            linux::SO_SNDBUF => show(buffer(
                options.send_buffer,
                capacity(tcp::Socket::send_capacity),
            )),
            linux::SO_LINGER => Ok([
                u32::from(options.linger.is_some()).to_ne_bytes(),
                options.linger.unwrap_or(0).to_ne_bytes(),
            ]
            .concat()),
            linux::SO_REUSEADDR => show(options.reuse_addr),
            linux::SO_REUSEPORT => show(options.reuse_port),
            linux::SO_KEEPALIVE => show(options.keep_alive),
            linux::SO_BROADCAST => show(options.broadcast),
            linux::SO_TIMESTAMP_OLD | linux::SO_TIMESTAMPNS_OLD => show(options.timestamps),
            linux::SO_PRIORITY => show(options.priority),
            linux::SO_MARK => show(options.mark),
            linux::SO_RCVLOWAT => show(options.receive_low),
            linux::SO_SNDLOWAT => show(1u32),
            linux::SO_COOKIE => Ok((self.id as u64 + 1).to_ne_bytes().to_vec()),
            linux::SO_BINDTODEVICE => Ok(options.bound_link.map_or(Vec::new(), |link| {
                [stack.links[link].name.as_bytes(), &[0]].concat()
            })),
            linux::SO_BINDTOIFINDEX => show(options.bound_link.map_or(0, |link| link as u32 + 1)),
            _ => show(options.kept(linux::SOL_SOCKET, name)?),
        }
    }

    fn show_tcp(&self, stack: &Stack, options: &Options, name: u32) -> Result<Vec<u8>> {
        match name {
            linux::TCP_NODELAY => show(options.no_delay),
            linux::TCP_CORK => show(options.cork),
            linux::TCP_QUICKACK => show(options.quick_ack),
            linux::TCP_KEEPIDLE => show(options.keep_idle),
            linux::TCP_KEEPINTVL => show(options.keep_interval),
            linux::TCP_KEEPCNT => show(options.keep_count),
            linux::TCP_USER_TIMEOUT => show(options.user_timeout),
            linux::TCP_DEFER_ACCEPT => show(options.defer_accept),
            linux::TCP_MAXSEG => {
                let link = match stack.sockets[self.id].role {
                    Role::Connection(conn) => stack.conns[conn].link,
                    _ => return show(options.kept(SOL_TCP, name)?),
                };
                show((stack.links[link].info.mtu - if self.is_v6() { 60 } else { 40 }) as u32)
            }
            // TCP_CA_NAME_MAX
            linux::TCP_CONGESTION => Ok(b"reno\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
            linux::TCP_INFO => Ok(self.tcp_info(stack)),
            _ => show(options.kept(SOL_TCP, name)?),
        }
    }

    /// `struct tcp_info` with what is known: the state.
    fn tcp_info(&self, stack: &Stack) -> Vec<u8> {
        let state = match stack.sockets[self.id].role {
            Role::Listener(_) => 10,
            Role::Connection(conn) => crate::report::state_number(stack.conns[conn].state()),
            _ => 7,
        };
        let mut info = alloc::vec![0; size_of::<linux::tcp_info>()];
        info[0] = state;
        info
    }

    fn show_ip(&self, stack: &Stack, options: &Options, name: u32) -> Result<Vec<u8>> {
        match name {
            IP_TTL => show(options.hop_limit.unwrap_or(64)),
            IP_TOS => show(options.traffic_class),
            IP_MULTICAST_TTL => show(options.multicast_hops),
            IP_MULTICAST_LOOP => show(options.multicast_loop),
            IP_PKTINFO => show(options.packet_info),
            IP_RECVTTL => show(options.receive_hop_limit),
            IP_RECVTOS => show(options.receive_traffic_class),
            IP_RECVERR => show(options.receive_error),
            IP_MTU_DISCOVER => show(options.mtu_discover),
            IP_FREEBIND => show(options.free_bind),
            IP_MTU => self.path_mtu(stack),
            IP_MULTICAST_IF => {
                let address = options
                    .multicast_link
                    .and_then(|link| stack.links[link].iface.ipv4_addr());
                Ok(address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets().to_vec())
            }
            _ => show(options.kept(SOL_IP, name)?),
        }
    }

    fn show_ipv6(&self, stack: &Stack, options: &Options, name: u32) -> Result<Vec<u8>> {
        match name {
            IPV6_V6ONLY => show(options.v6_only),
            IPV6_UNICAST_HOPS => show(options.hop_limit.unwrap_or(64)),
            IPV6_MULTICAST_HOPS => show(options.multicast_hops),
            IPV6_MULTICAST_LOOP => show(options.multicast_loop),
            IPV6_MULTICAST_IF => show(options.multicast_link.map_or(0, |link| link as u32 + 1)),
            IPV6_RECVPKTINFO => show(options.packet_info),
            IPV6_RECVHOPLIMIT => show(options.receive_hop_limit),
            IPV6_RECVTCLASS => show(options.receive_traffic_class),
            IPV6_TCLASS => show(options.traffic_class),
            IPV6_RECVERR => show(options.receive_error),
            IPV6_MTU_DISCOVER => show(options.mtu_discover),
            IPV6_MTU => self.path_mtu(stack),
            _ => show(options.kept(SOL_IPV6, name)?),
        }
    }

    fn path_mtu(&self, stack: &Stack) -> Result<Vec<u8>> {
        let remote = stack.sockets[self.id].remote.ok_or(Errno::ENOTCONN)?;
        let route = stack.route(remote, None).ok_or(Errno::ENOTCONN)?;
        show(stack.links[route.link].info.mtu as u32)
    }
}

fn set_tcp(options: &mut Options, name: u32, value: &[u8]) -> Result<()> {
    if name == linux::TCP_CONGESTION {
        let wanted = value.split(|&b| b == 0).next().unwrap_or_default();
        return match wanted {
            b"reno" => Ok(()),
            _ if value.is_empty() => Err(Errno::EINVAL),
            _ => Err(Errno::ENOENT),
        };
    }
    let number = int(value)?;
    let positive = |most: u32| {
        if (1..=most).contains(&number) {
            Ok(number)
        } else {
            Err(Errno::EINVAL)
        }
    };
    match name {
        linux::TCP_NODELAY => options.no_delay = number != 0,
        linux::TCP_CORK => options.cork = number != 0,
        linux::TCP_QUICKACK => options.quick_ack = number != 0,
        linux::TCP_KEEPIDLE => options.keep_idle = positive(32_767)?,
        linux::TCP_KEEPINTVL => options.keep_interval = positive(32_767)?,
        linux::TCP_KEEPCNT => options.keep_count = positive(127)?,
        linux::TCP_USER_TIMEOUT if number > i32::MAX as u32 => return Err(Errno::EINVAL),
        linux::TCP_USER_TIMEOUT => options.user_timeout = number,
        linux::TCP_DEFER_ACCEPT => options.defer_accept = (number as i32).max(0) as u32,
        _ => options.keep(SOL_TCP, name, number)?,
    }
    Ok(())
}

fn set_udp(options: &mut Options, name: u32, value: &[u8]) -> Result<()> {
    let number = int(value)?;
    match name {
        UDP_SEGMENT => options.segment = u16::try_from(number).map_err(|_| Errno::EINVAL)?,
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// The traffic class that a socket gets which asks for `wanted`: TCP has the two bits of ECN for itself.
fn class(wanted: u8, tcp: bool) -> u8 {
    if tcp { wanted & !3 } else { wanted }
}

/// Reads a `struct ip_mreq` or `ip_mreqn`.
fn membership_v4(stack: &Stack, value: &[u8]) -> Result<(IpAddr, Option<usize>)> {
    let group = value
        .first_chunk::<4>()
        .map(|b| Ipv4Addr::from(*b))
        .ok_or(Errno::EINVAL)?;
    let address = value
        .get(4..8)
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map(Ipv4Addr::from)
        .ok_or(Errno::EINVAL)?;
    let index = value.get(8..).and_then(|b| int(b).ok()).unwrap_or(0) as usize;
    let link = index
        .checked_sub(1)
        .or_else(|| link_of(stack, address.into()));
    Ok((group.into(), link))
}

/// The link that programs call `index`, of so many; zero is none.
fn link_at(index: usize, links: usize) -> Result<Option<usize>> {
    match index.checked_sub(1) {
        Some(link) if link >= links => Err(Errno::ENODEV),
        link => Ok(link),
    }
}

/// The link with this address.
fn link_of(stack: &Stack, ip: IpAddr) -> Option<usize> {
    stack.links.iter().position(|link| {
        link.iface
            .ip_addrs()
            .iter()
            .any(|cidr| IpAddr::from(cidr.address()) == ip)
    })
}

impl Stack {
    pub(crate) fn join_group(&mut self, link: usize, group: IpAddr) -> Result<()> {
        if link == 0 {
            return Ok(());
        }
        self.links[link]
            .iface
            .join_multicast_group(smoltcp::wire::IpAddress::from(group))
            .map_err(|_| Errno::ENOBUFS)
    }

    /// Leaves a group unless another socket is in it.
    pub(crate) fn leave_group(&mut self, link: usize, group: IpAddr) {
        let member = |sock: &crate::stack::Sock| matches!(&sock.role, Role::Mailbox(m) if m.groups.contains(&(link, group)));
        if link != 0 && !self.sockets.iter().any(|(_, sock)| member(sock)) {
            let _ = self.links[link]
                .iface
                .leave_multicast_group(smoltcp::wire::IpAddress::from(group));
        }
    }
}
