//! The texts of `/proc/net` (proc_pid_net(5)): interfaces, sockets, routes, neighbours, name servers.

use crate::inet::ioctl::mask;
use crate::net::Net;
use crate::stack::{Kind, Role, Sock, Stack};
use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use smoltcp::socket::tcp::State;

/// A file of `/proc/net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// `dev`: traffic of interfaces.
    Dev,
    /// `tcp`, `tcp6`, `udp`, `udp6`, `icmp`, `icmp6`: sockets of a kind and family.
    Sockets {
        /// What they are.
        kind: Kind,
        /// AF_INET6.
        v6: bool,
    },
    /// `if_inet6`: IPv6 addresses.
    Inet6,
    /// `route`: IPv4 routes.
    Route,
    /// `arp`: IPv4 neighbours.
    Arp,
    /// `pnp`: name servers, in the form of `/etc/resolv.conf`.
    NameServers,
    /// `sockstat`: how many sockets there are.
    SockStat,
}

impl Net {
    /// The text of a file.
    pub fn report(&self, report: Report) -> String {
        let stack = self.stack.borrow();
        match report {
            Report::Dev => dev(&stack),
            Report::Sockets { kind, v6 } => sockets(&stack, kind, v6),
            Report::Inet6 => inet6(&stack),
            Report::Route => routes(&stack),
            Report::Arp => arp(&stack),
            Report::NameServers => stack
                .links
                .iter()
                .flat_map(|link| &link.dns)
                .map(|server| format!("nameserver {server}\n"))
                .collect(),
            Report::SockStat => sock_stat(&stack),
        }
    }
}

fn dev(stack: &Stack) -> String {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for link in &stack.links {
        let ((packets, bytes), sent) = (link.received, link.sent);
        let _ = writeln!(
            text,
            "{:>6}: {bytes:7} {packets:7}    0    0    0     0          0         0 {:8} {:7}    0    0    0     0       0          0",
            link.name, sent.bytes, sent.frames
        );
    }
    text
}

/// An address as the kernel prints it: words of memory in hexadecimal, then the port.
fn shown(address: SocketAddr, v6: bool) -> String {
    let words = |bytes: &[u8]| -> String {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)))
            .collect()
    };
    let ip = match (address.ip(), v6) {
        (IpAddr::V4(ip), false) => words(&ip.octets()),
        (IpAddr::V4(ip), true) if ip.is_unspecified() => words(&[0; 16]),
        (IpAddr::V4(ip), true) => words(&ip.to_ipv6_mapped().octets()),
        (IpAddr::V6(ip), _) => words(&ip.octets()),
    };
    format!("{ip}:{:04X}", address.port())
}

/// Numbers of states (tcp_states.h).
pub(crate) fn state_number(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
    }
}

fn any(v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    SocketAddr::new(ip, 0)
}

fn sockets(stack: &Stack, kind: Kind, v6: bool) -> String {
    let mut text = String::from(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
    );
    let of_kind = stack
        .sockets
        .iter()
        .filter(|(_, s)| s.kind == kind && s.v6 == v6);
    for (row, (_, sock)) in of_kind.filter(|(_, s)| s.local.is_some()).enumerate() {
        let (state, unsent, unread) = condition(stack, sock);
        let _ = writeln!(
            text,
            "{row:4}: {} {} {state:02X} {unsent:08X}:{unread:08X} 00:00000000 00000000     0        0 {} 1 0000000000000000 0",
            shown(sock.local.unwrap_or(any(v6)), v6),
            shown(sock.remote.unwrap_or(any(v6)), v6),
            sock.inode
        );
    }
    text
}

/// State, bytes not acknowledged and bytes not read of a socket.
fn condition(stack: &Stack, sock: &Sock) -> (u8, usize, usize) {
    match &sock.role {
        Role::Idle => (7, 0, 0),
        Role::Listener(listener) => (10, 0, listener.queue.len()),
        Role::Connection(conn) => {
            let tcp = stack.conns[*conn].peek();
            (
                state_number(tcp.state()),
                tcp.send_queue(),
                tcp.recv_queue(),
            )
        }
        Role::Mailbox(mailbox) => (if sock.remote.is_some() { 1 } else { 7 }, 0, mailbox.bytes),
    }
}

fn inet6(stack: &Stack) -> String {
    let mut text = String::new();
    for (index, link) in stack.links.iter().enumerate() {
        for cidr in link.iface.ip_addrs() {
            let IpAddr::V6(ip) = cidr.address().into() else {
                continue;
            };
            let scope = match ip {
                ip if ip.is_loopback() => 0x10,
                ip if ip.is_unicast_link_local() => 0x20,
                _ => 0,
            };
            let digits: String = ip.octets().iter().map(|b| format!("{b:02x}")).collect();
            let _ = writeln!(
                text,
                "{digits} {:02x} {:02x} {scope:02x} 80 {:>8}",
                index + 1,
                cidr.prefix_len(),
                link.name
            );
        }
    }
    text
}

fn routes(stack: &Stack) -> String {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    let mut text = String::from(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n",
    );
    let word = |ip: Ipv4Addr| u32::from_ne_bytes(ip.octets());
    let mut row = |name: &str, to: Ipv4Addr, by: Ipv4Addr, flags: u32, mask: Ipv4Addr| {
        let _ = writeln!(
            text,
            "{name}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t0\t{:08X}\t0\t0\t0",
            word(to),
            word(by),
            word(mask)
        );
    };
    let none = Ipv4Addr::UNSPECIFIED;
    for at in 1..stack.links.len() {
        let link = &stack.links[at];
        if let Some(IpAddr::V4(router)) = stack.gateway(at, true) {
            row(&link.name, none, router, UP | GATEWAY, none);
        }
        for cidr in link.iface.ip_addrs() {
            if let IpAddr::V4(ip) = cidr.address().into() {
                let mask = mask(cidr.prefix_len());
                let network = Ipv4Addr::from(u32::from(ip) & u32::from(mask));
                row(&link.name, network, none, UP, mask);
            }
        }
    }
    text
}

fn arp(stack: &Stack) -> String {
    let mut text = String::from(
        "IP address       HW type     Flags       HW address            Mask     Device\n",
    );
    for link in &stack.links {
        for (ip, mac) in &link.neighbours {
            let mac = mac.map(|b| format!("{b:02x}")).join(":");
            let _ = writeln!(
                text,
                "{ip:<16} 0x1         0x2         {mac}     *        {}",
                link.name
            );
        }
    }
    text
}

fn sock_stat(stack: &Stack) -> String {
    let count = |kind: Kind| stack.sockets.iter().filter(|(_, s)| s.kind == kind).count();
    let (tcp, udp) = (count(Kind::Tcp), count(Kind::Udp));
    let waiting = stack
        .conns
        .iter()
        .filter(|(_, c)| c.state() == State::TimeWait)
        .count();
    format!(
        "sockets: used {}\nTCP: inuse {tcp} orphan {} tw {waiting} alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n",
        stack.sockets.len(),
        stack.conns.len().saturating_sub(tcp),
    )
}
