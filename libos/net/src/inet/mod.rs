//! AF_INET and AF_INET6 sockets: [`InetSocket`], TCP, UDP and ICMP echo (tcp(7), udp(7), ip(7), ipv6(7)).
//!
//! - `transfer`: sending and receiving. - [`options`]: socket options. - [`ioctl`]: interface queries.

pub mod ioctl;
pub mod options;
mod settings;
mod transfer;

use crate::addr::{Address, mapped, unmapped};
use crate::errno::{Errno, Result};
use crate::net::Net;
use crate::ready::{self, Hook};
use crate::stack::datagram::Mailbox;
use crate::stack::{Kind, Role, Sock, Stack};
use alloc::rc::Rc;
use core::cell::Cell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use options::Options;

/// An internet socket. Dropping it closes it.
pub struct InetSocket {
    net: Rc<Net>,
    id: usize,
    kind: Kind,
    v6: bool,
    closed: Cell<bool>,
}

impl InetSocket {
    pub(crate) fn new(net: &Rc<Net>, kind: Kind, v6: bool) -> Rc<Self> {
        let role = if kind == Kind::Tcp {
            Role::Idle
        } else {
            Role::Mailbox(Mailbox::default())
        };
        let sock = Sock {
            kind,
            v6,
            options: Options::default(),
            local: None,
            remote: None,
            role,
            error: None,
            shut_read: false,
            shut_write: false,
            blocked: false,
            hook: None,
            inode: 0,
        };
        let id = net.stack.borrow_mut().sockets.insert(sock);
        Self::wrap(net, id, kind, v6)
    }

    fn wrap(net: &Rc<Net>, id: usize, kind: Kind, v6: bool) -> Rc<Self> {
        Rc::new(Self {
            net: net.clone(),
            id,
            kind,
            v6,
            closed: Cell::new(false),
        })
    }

    /// TCP, UDP or ICMP echo.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True for AF_INET6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Sets who is told about changes of readiness (held weakly).
    pub fn set_hook(&self, hook: &Rc<dyn Hook>) {
        self.net.stack.borrow_mut().sockets[self.id].hook = Some(Rc::downgrade(hook));
    }

    /// Sets the number of the file that the socket is, for `/proc/net`.
    pub fn set_inode(&self, inode: u64) {
        self.net.stack.borrow_mut().sockets[self.id].inode = inode;
    }

    /// An address that a program gave, in the form used inside.
    fn internal(&self, address: &Address) -> Result<SocketAddr> {
        match *address {
            Address::Inet(addr @ SocketAddr::V4(_)) if !self.v6 => Ok(addr),
            Address::Inet(addr @ SocketAddr::V6(v6)) if self.v6 => {
                let plain = unmapped(addr);
                Ok(if plain.is_ipv4() { plain } else { v6.into() })
            }
            // Programs hand an AF_INET socket's zeroed address over with AF_UNSPEC (as Linux permits for bind).
            Address::Inet(_) => Err(if self.v6 {
                Errno::EINVAL
            } else {
                Errno::EAFNOSUPPORT
            }),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// An inside address as a program shall see it.
    fn shown(&self, addr: SocketAddr) -> Address {
        Address::Inet(if self.v6 { mapped(addr) } else { addr })
    }

    /// `bind`.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EINVAL`, `EAFNOSUPPORT`.
    pub fn bind(&self, address: &Address) -> Result<()> {
        let want = self.internal(address)?;
        self.net.with(|stack| {
            if self.v6 && stack.sockets[self.id].options.v6_only && want.is_ipv4() {
                return Err(Errno::EINVAL);
            }
            stack.bind(self.id, want)
        })
    }

    /// `listen`.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EOPNOTSUPP`, `EINVAL`.
    pub fn listen(&self, backlog: u32) -> Result<()> {
        self.net.with(|stack| stack.listen(self.id, backlog))
    }

    /// `connect`. `EINPROGRESS`: readiness will say OUT when [`Self::connect_result`] is known.
    ///
    /// # Errors
    /// `EINPROGRESS`, `EALREADY`, `EISCONN`, `ECONNREFUSED`, `ENETUNREACH`, `EADDRNOTAVAIL`, `EAFNOSUPPORT`.
    pub fn connect(&self, address: &Address) -> Result<()> {
        if *address == Address::Unspec {
            return self.disconnect();
        }
        let mut to = self.internal(address)?;
        if to.ip().is_unspecified() {
            let loopback: IpAddr = if to.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            to.set_ip(loopback);
        }
        if to.port() == 0 && self.kind == Kind::Tcp {
            return Err(Errno::ECONNREFUSED);
        }
        if self.kind != Kind::Tcp {
            return self.net.with(|stack| self.connect_datagram(stack, to));
        }
        if to.ip().is_multicast() {
            return Err(Errno::ENETUNREACH);
        }
        self.net.with(|stack| self.connect_tcp(stack, to))?;
        self.connect_result()
    }

    fn connect_tcp(&self, stack: &mut Stack, to: SocketAddr) -> Result<()> {
        match stack.sockets[self.id].role {
            Role::Idle => {}
            Role::Connection(conn) if stack.conns[conn].connecting => return Err(Errno::EALREADY),
            Role::Connection(conn)
                if stack.conns[conn].state() == smoltcp::socket::tcp::State::Closed =>
            {
                // The last attempt failed: begin anew.
                stack.orphan(conn, true);
                stack.release_port(self.id);
                let sock = &mut stack.sockets[self.id];
                (sock.role, sock.local, sock.remote, sock.error) = (Role::Idle, None, None, None);
            }
            _ => return Err(Errno::EISCONN),
        }
        stack.connect_tcp(self.id, to)
    }

    /// How a connection attempt stands.
    ///
    /// # Errors
    /// `EINPROGRESS`, or why it failed.
    pub fn connect_result(&self) -> Result<()> {
        let mut stack = self.net.stack.borrow_mut();
        if let Some(error) = stack.sockets[self.id].error.take() {
            return Err(error);
        }
        match stack.sockets[self.id].role {
            Role::Connection(conn) if stack.conns[conn].connecting => Err(Errno::EINPROGRESS),
            Role::Connection(_) => Ok(()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn connect_datagram(&self, stack: &mut Stack, to: SocketAddr) -> Result<()> {
        let link = stack.sockets[self.id].options.bound_link;
        let route = stack.route(to, link).ok_or(Errno::ENETUNREACH)?;
        if stack.is_broadcast(to.ip()) && !stack.sockets[self.id].options.broadcast {
            return Err(Errno::EACCES);
        }
        if stack.sockets[self.id].local.is_none() {
            stack.autobind(self.id)?;
        }
        let sock = &mut stack.sockets[self.id];
        if let Some(local) = sock
            .local
            .as_mut()
            .filter(|local| local.ip().is_unspecified())
        {
            local.set_ip(route.source);
        }
        sock.remote = Some(to);
        Ok(())
    }

    fn disconnect(&self) -> Result<()> {
        self.net.with(|stack| {
            let sock = &mut stack.sockets[self.id];
            sock.remote = None;
            if let Role::Connection(conn) = sock.role {
                stack.orphan(conn, true);
                stack.release_port(self.id);
                let sock = &mut stack.sockets[self.id];
                (sock.role, sock.local) = (Role::Idle, None);
            }
            Ok(())
        })
    }

    /// `accept`: the oldest waiting connection and its peer.
    ///
    /// # Errors
    /// `EAGAIN`, `EINVAL` (not listening), `EOPNOTSUPP`.
    pub fn accept(&self) -> Result<(Rc<Self>, Address)> {
        let (id, peer) = self.net.with(|stack| stack.accept(self.id))?;
        Ok((
            Self::wrap(&self.net, id, Kind::Tcp, self.v6),
            self.shown(peer),
        ))
    }

    /// `getsockname`.
    pub fn local_address(&self) -> Address {
        let stack = self.net.stack.borrow();
        let sock = &stack.sockets[self.id];
        self.shown(sock.local.unwrap_or(SocketAddr::new(sock.any(), 0)))
    }

    /// `getpeername`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<Address> {
        let stack = self.net.stack.borrow();
        let sock = &stack.sockets[self.id];
        let remote = match sock.role {
            Role::Connection(conn) if stack.conns[conn].connecting => None,
            Role::Connection(conn)
                if stack.conns[conn].state() == smoltcp::socket::tcp::State::Closed =>
            {
                None
            }
            _ => sock.remote,
        };
        remote
            .map(|remote| self.shown(remote))
            .ok_or(Errno::ENOTCONN)
    }

    /// `shutdown`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        self.net.with(|stack| {
            let sock = &mut stack.sockets[self.id];
            match sock.role {
                Role::Connection(conn) => {
                    sock.shut_read |= read;
                    sock.shut_write |= write;
                    if stack.conns[conn].state() == smoltcp::socket::tcp::State::Closed {
                        return Err(Errno::ENOTCONN);
                    }
                    if write {
                        stack.conns[conn].socket().close();
                        stack.touch(conn);
                    }
                }
                Role::Mailbox(_) if sock.remote.is_some() => {
                    sock.shut_read |= read;
                    sock.shut_write |= write;
                }
                Role::Listener(_) if read => sock.shut_read = true,
                _ => return Err(Errno::ENOTCONN),
            }
            stack.wake(self.id, ready::IN | ready::OUT | ready::RDHUP | ready::HUP);
            Ok(())
        })
    }

    /// Readiness now, bits of [`crate::ready`].
    pub fn poll(&self) -> u32 {
        let mut stack = self.net.stack.borrow_mut();
        let sock = &stack.sockets[self.id];
        let error = if sock.error.is_some() { ready::ERR } else { 0 };
        let ends = if sock.shut_read {
            ready::IN | ready::RDHUP
        } else {
            0
        } | if sock.shut_read && sock.shut_write {
            ready::HUP
        } else {
            0
        };
        let mask = match &sock.role {
            Role::Idle => ready::OUT | ready::HUP,
            Role::Listener(listener) if listener.queue.is_empty() => 0,
            Role::Listener(_) => ready::IN,
            Role::Connection(conn) => stack.conns[*conn].poll(),
            Role::Mailbox(mailbox) => {
                let readable = if mailbox.queue.is_empty() {
                    0
                } else {
                    ready::IN
                };
                readable | if sock.blocked { 0 } else { ready::OUT }
            }
        };
        let both = mask & ready::RDHUP != 0 && sock.shut_write;
        // Whoever looks in vain wants to hear of room.
        if mask & ready::OUT == 0 && matches!(sock.role, Role::Connection(_)) {
            stack.sockets[self.id].blocked = true;
        }
        mask | error | ends | if both { ready::HUP } else { 0 }
    }

    /// SO_ERROR: takes the standing error.
    pub fn take_error(&self) -> Option<Errno> {
        self.net.stack.borrow_mut().sockets[self.id].error.take()
    }

    /// FIONREAD (SIOCINQ): bytes that a read would find.
    pub fn bytes_available(&self) -> usize {
        let stack = self.net.stack.borrow();
        match &stack.sockets[self.id].role {
            Role::Connection(conn) => stack.conns[*conn].peek().recv_queue(),
            Role::Mailbox(mailbox) => mailbox.queue.front().map_or(0, |d| d.data.len()),
            _ => 0,
        }
    }

    /// SIOCOUTQ: bytes sent and not yet acknowledged.
    pub fn bytes_unsent(&self) -> usize {
        let stack = self.net.stack.borrow();
        match &stack.sockets[self.id].role {
            Role::Connection(conn) => stack.conns[*conn].peek().send_queue(),
            _ => 0,
        }
    }

    /// Closes the socket; what was sent still arrives. Further calls do nothing.
    pub fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        self.net.with(|stack| {
            stack.release_port(self.id);
            let sock = stack.sockets.remove(self.id);
            match sock.role {
                Role::Connection(conn) => stack.orphan(conn, sock.options.linger == Some(0)),
                Role::Listener(listener) => stack.drop_listener(&listener),
                Role::Mailbox(mailbox) => {
                    for (link, group) in mailbox.groups {
                        stack.leave_group(link, group);
                    }
                }
                Role::Idle => {}
            }
        });
    }
}

impl Drop for InetSocket {
    fn drop(&mut self) {
        self.close();
    }
}
