//! Sending and receiving on internet sockets.

use super::InetSocket;
use crate::addr::Address;
use crate::errno::{Errno, Result};
use crate::message::{Ancillary, Received, gather, scatter, total};
use crate::stack::datagram::{Datagram, Extra};
use crate::stack::{Kind, Role, Sock, Stack};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

impl InetSocket {
    /// Sends the concatenation of `data`: all of a datagram, or what fits of a stream.
    ///
    /// # Errors
    /// `EAGAIN`: no room now. `EPIPE`, `ENOTCONN`, `EDESTADDRREQ`, `EMSGSIZE`, `ENETUNREACH`, a standing error, ...
    pub fn send(
        &self,
        data: &[&[u8]],
        to: Option<&Address>,
        ancillary: &Ancillary,
    ) -> Result<usize> {
        match self.kind {
            Kind::Tcp => self.net.with(|stack| send_stream(stack, self.id, data)),
            _ => self.send_datagram(data, to, ancillary),
        }
    }

    fn send_datagram(
        &self,
        data: &[&[u8]],
        to: Option<&Address>,
        ancillary: &Ancillary,
    ) -> Result<usize> {
        let to = to
            .filter(|to| **to != Address::Unspec)
            .map(|to| self.internal(to))
            .transpose()?;
        let len = total(data);
        let mut bytes = Vec::with_capacity(len);
        gather(data, 0, len, &mut bytes);
        let (source, link) = ancillary.packet_info.map_or((None, None), |(ip, link)| {
            (
                Some(ip.to_canonical()).filter(|ip| !ip.is_unspecified()),
                (link as usize).checked_sub(1),
            )
        });
        let extra = Extra {
            source,
            link,
            hop_limit: ancillary.hop_limit,
        };
        self.net.with(|stack| {
            let sock = &mut stack.sockets[self.id];
            if let Some(error) = sock.error.take() {
                return Err(error);
            }
            if sock.shut_write {
                return Err(Errno::EPIPE);
            }
            let to = to.or(sock.remote).ok_or(Errno::EDESTADDRREQ)?;
            if to.port() == 0 && self.kind == Kind::Udp {
                return Err(Errno::EINVAL);
            }
            match ancillary.segment_size.filter(|&size| size > 0) {
                None => stack.send_datagram(self.id, to, &bytes, extra)?,
                Some(size) => send_segments(stack, self.id, to, &bytes, size.into(), extra)?,
            }
            Ok(len)
        })
    }

    /// Receives into the slices of `out`: bytes of a stream, or one datagram. `peek` leaves it there. End of a stream is a length of 0.
    ///
    /// # Errors
    /// `EAGAIN`: nothing there. `ENOTCONN`, a standing error.
    pub fn receive(&self, out: &mut [&mut [u8]], peek: bool) -> Result<Received> {
        if self.kind == Kind::Tcp {
            let len = self
                .net
                .with(|stack| receive_stream(stack, self.id, out, peek))?;
            return Ok(Received {
                len,
                full_len: len,
                from: None,
                ancillary: Ancillary::default(),
            });
        }
        let mut stack = self.net.stack.borrow_mut();
        let sock = &mut stack.sockets[self.id];
        if let Some(error) = sock.error.take() {
            return Err(error);
        }
        let shut = sock.shut_read;
        let Role::Mailbox(mailbox) = &mut sock.role else {
            return Err(Errno::ENOTCONN);
        };
        let Some(datagram) = mailbox.queue.front() else {
            return if shut {
                Ok(Received::default())
            } else {
                Err(Errno::EAGAIN)
            };
        };
        let received = Received {
            len: scatter(&datagram.data, out, 0),
            full_len: datagram.data.len(),
            from: Some(self.shown(self.scoped(datagram))),
            ancillary: Ancillary::default(),
        };
        let extras = (
            datagram.to,
            datagram.link,
            datagram.hop_limit,
            datagram.traffic_class,
            datagram.time,
        );
        if !peek {
            mailbox.pop();
        }
        Ok(Received {
            ancillary: self.extras(&stack.sockets[self.id], extras),
            ..received
        })
    }

    /// The sender; a link-local one with its link.
    fn scoped(&self, datagram: &Datagram) -> SocketAddr {
        let mut from = datagram.from;
        if let SocketAddr::V6(v6) = &mut from
            && v6.ip().is_unicast_link_local()
        {
            v6.set_scope_id(datagram.link as u32 + 1);
        }
        from
    }

    /// Control data that the socket asked for.
    fn extras(
        &self,
        sock: &Sock,
        (to, link, hop_limit, traffic_class, time): (core::net::IpAddr, usize, u8, u8, u64),
    ) -> Ancillary {
        let options = &sock.options;
        let to = if self.v6 {
            crate::addr::mapped(SocketAddr::new(to, 0)).ip()
        } else {
            to
        };
        Ancillary {
            packet_info: options.packet_info.then_some((to, link as u32 + 1)),
            hop_limit: options.receive_hop_limit.then_some(hop_limit),
            traffic_class: options.receive_traffic_class.then_some(traffic_class),
            timestamp: options.timestamps.then_some(time),
            ..Ancillary::default()
        }
    }
}

/// Sends one buffer as datagrams of `size` bytes each (UDP_SEGMENT).
fn send_segments(
    stack: &mut Stack,
    id: usize,
    to: SocketAddr,
    bytes: &[u8],
    size: usize,
    extra: Extra,
) -> Result<()> {
    for (i, segment) in bytes.chunks(size).enumerate() {
        match stack.send_datagram(id, to, segment, extra) {
            // Datagrams may be lost: once the first went, the call has succeeded.
            Err(Errno::EAGAIN) if i > 0 => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

fn send_stream(stack: &mut Stack, id: usize, data: &[&[u8]]) -> Result<usize> {
    let sock = &mut stack.sockets[id];
    if let Some(error) = sock.error.take() {
        return Err(error);
    }
    let Role::Connection(conn) = sock.role else {
        return Err(Errno::EPIPE);
    };
    if sock.shut_write {
        return Err(Errno::EPIPE);
    }
    let entry = &mut stack.conns[conn];
    if entry.connecting {
        sock.blocked = true;
        return Err(Errno::EAGAIN);
    }
    let socket = entry.socket();
    if !socket.may_send() {
        return Err(Errno::EPIPE);
    }
    let wanted = total(data);
    let mut done = 0;
    for slice in data {
        let sent = socket.send_slice(slice).unwrap_or(0);
        done += sent;
        if sent < slice.len() {
            break;
        }
    }
    if done < wanted {
        stack.sockets[id].blocked = true;
    }
    if done == 0 && wanted > 0 {
        return Err(Errno::EAGAIN);
    }
    stack.touch(conn);
    Ok(done)
}

fn receive_stream(
    stack: &mut Stack,
    id: usize,
    out: &mut [&mut [u8]],
    peek: bool,
) -> Result<usize> {
    let sock = &mut stack.sockets[id];
    let Role::Connection(conn) = sock.role else {
        return Err(Errno::ENOTCONN);
    };
    let entry = &mut stack.conns[conn];
    if entry.socket().can_recv() && !entry.connecting {
        let done = if peek {
            peek_bytes(entry.socket(), out)
        } else {
            take_bytes(entry.socket(), out)
        };
        entry.seen = entry.peek().recv_queue();
        stack.touch(conn);
        return Ok(done);
    }
    if let Some(error) = sock.error.take() {
        return Err(error);
    }
    if entry.connecting {
        return Err(Errno::EAGAIN);
    }
    if entry.peer_done() || sock.shut_read {
        Ok(0)
    } else {
        Err(Errno::EAGAIN)
    }
}

fn take_bytes(socket: &mut smoltcp::socket::tcp::Socket<'_>, out: &mut [&mut [u8]]) -> usize {
    let mut done = 0;
    // Twice at most: the buffer is a ring.
    while socket.can_recv() {
        let taken = socket.recv(|bytes| {
            let taken = scatter(bytes, out, done);
            (taken, taken)
        });
        match taken {
            Ok(n) if n > 0 => done += n,
            _ => break,
        }
    }
    done
}

fn peek_bytes(socket: &mut smoltcp::socket::tcp::Socket<'_>, out: &mut [&mut [u8]]) -> usize {
    let room: usize = out.iter().map(|s| s.len()).sum();
    let mut bytes = vec![0; room.min(socket.recv_queue())];
    let len = socket.peek_slice(&mut bytes).unwrap_or(0);
    scatter(&bytes[..len], out, 0)
}
