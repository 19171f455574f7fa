//! Sending and receiving bytes: [`send`] and [`receive`], which all calls share; sendto(2), recvfrom(2), and read(2) and write(2) of sockets.

use super::wait::Patience;
use super::{Handle, address};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::net::socket::SocketFile;
use crate::sys::io::{MAX_COUNT, Span, broken_pipe};
use alloc::vec::Vec;
use linux_raw_sys::net as linux;
use unik_fs::file::OpenFile;
use unik_fs::wait::ready;
use unik_net::Socket;
use unik_net::addr::{Address, UnixName};
use unik_net::message::{Ancillary, Received};

/// Bytes of a stream looked at in one step.
const STEP: u64 = 256 << 10;
/// No message is larger than this.
const MESSAGE_MAX: u64 = 1 << 20;

/// Bytes `skip..skip + len` of the concatenation of `spans`, as spans.
fn cut(spans: &[Span], mut skip: u64, mut len: u64) -> impl Iterator<Item = Span> {
    spans.iter().filter_map(move |span| {
        let skipped = skip.min(span.len);
        skip -= skipped;
        let part = Span {
            address: span.address + skipped,
            len: (span.len - skipped).min(len),
        };
        len -= part.len;
        (part.len > 0).then_some(part)
    })
}

pub(super) fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.len).sum()
}

/// One attempt to receive into `spans` from byte `done` on. Of the buffer only what can be filled is looked at.
fn receive_once(socket: &SocketFile, spans: &[Span], done: u64, flags: u32) -> Result<Received> {
    let peek = flags & linux::MSG_PEEK != 0;
    let known = socket
        .available()
        .map_or(MESSAGE_MAX, |available| available.max(1) as u64);
    let room = (total(spans) - done).min(known);
    if flags & linux::MSG_TRUNC != 0 && socket.is_stream() && socket.family() != linux::AF_UNIX {
        // Bytes of a TCP stream are thrown away (tcp(7)).
        let mut scratch = alloc::vec![0; room.min(STEP) as usize];
        return socket.receive(&mut [&mut scratch], peek);
    }
    if let [span] = spans {
        return socket.receive(&mut [user::slice_mut(span.address + done, room)?], peek);
    }
    let mut parts = cut(spans, done, room)
        .map(|part| user::slice_mut(part.address, part.len))
        .collect::<Result<Vec<_>>>()?;
    socket.receive(&mut parts, peek)
}

/// Receives into `spans`: bytes of a stream or one message, waiting as `flags` (MSG_*) and the file permit.
pub(super) fn receive(
    file: &OpenFile,
    socket: &SocketFile,
    spans: &[Span],
    flags: u32,
) -> Result<Received> {
    if flags & linux::MSG_OOB != 0 {
        return Err(if socket.is_stream() {
            Errno::EINVAL
        } else {
            Errno::EOPNOTSUPP
        });
    }
    let wait = flags & (linux::MSG_DONTWAIT | linux::MSG_ERRQUEUE) == 0;
    let mut patience = Patience::new(file, socket.receive_timeout.get(), wait);
    if flags & linux::MSG_ERRQUEUE != 0 {
        return Err(Errno::EAGAIN);
    }
    let mut received = patience.until_done(ready::IN, || receive_once(socket, spans, 0, flags))?;
    let whole =
        flags & linux::MSG_WAITALL != 0 && flags & linux::MSG_PEEK == 0 && socket.is_stream();
    while whole
        && received.len > 0
        && (received.len as u64) < total(spans)
        && received.ancillary.is_plain()
    {
        let done = received.len as u64;
        match patience.until_done(ready::IN, || receive_once(socket, spans, done, flags)) {
            Ok(more) if more.len > 0 => {
                received.len += more.len;
                received.full_len += more.full_len;
                received.ancillary = more.ancillary;
            }
            _ => break,
        }
    }
    Ok(received)
}

/// One attempt to send bytes `done..done + len` of `spans`.
fn send_once(
    socket: &SocketFile,
    spans: &[Span],
    done: u64,
    len: u64,
    to: Option<&Address>,
    ancillary: &Ancillary,
) -> Result<usize> {
    if let [span] = spans {
        return socket.send(&[user::slice(span.address + done, len)?], to, ancillary);
    }
    let parts = cut(spans, done, len)
        .map(|part| user::slice(part.address, part.len))
        .collect::<Result<Vec<_>>>()?;
    socket.send(&parts, to, ancillary)
}

fn send_stream(
    patience: &mut Patience<'_>,
    socket: &SocketFile,
    spans: &[Span],
    to: Option<&Address>,
    ancillary: Ancillary,
) -> Result<u64> {
    let all = total(spans);
    let (mut done, mut ancillary) = (0, ancillary);
    loop {
        let len = (all - done).min(STEP);
        match patience.until_done(ready::OUT, || {
            send_once(socket, spans, done, len, to, &ancillary)
        }) {
            Ok(sent) => {
                done += sent as u64;
                if done == all {
                    return Ok(done);
                }
                ancillary = Ancillary::default();
            }
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
}

/// Sends `spans`: all of a stream's bytes or one message, waiting as `flags` (MSG_*) and the file permit.
pub(super) fn send(
    file: &OpenFile,
    socket: &SocketFile,
    spans: &[Span],
    flags: u32,
    to: Option<&Address>,
    ancillary: Ancillary,
) -> Result<u64> {
    if flags & linux::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut patience = Patience::new(
        file,
        socket.send_timeout.get(),
        flags & linux::MSG_DONTWAIT == 0,
    );
    if socket.is_stream() {
        let sent = send_stream(&mut patience, socket, spans, to, ancillary);
        return if flags & linux::MSG_NOSIGNAL == 0 {
            broken_pipe(sent)
        } else {
            sent
        };
    }
    let len = total(spans);
    if len > MESSAGE_MAX {
        return Err(Errno::EMSGSIZE);
    }
    patience
        .until_done(ready::OUT, || {
            send_once(socket, spans, 0, len, to, &ancillary)
        })
        .map(|sent| sent as u64)
}

/// What a receive call answers: with MSG_TRUNC the length that a message had.
pub(super) fn answered(received: &Received, flags: u32) -> u64 {
    if flags & linux::MSG_TRUNC != 0 {
        received.full_len as u64
    } else {
        received.len as u64
    }
}

/// The bytes of a sender's address; none for a stream and for a local socket without a name.
pub(super) fn sender(received: &Received) -> Vec<u8> {
    match &received.from {
        None | Some(Address::Unix(UnixName::Unnamed)) => Vec::new(),
        Some(from) => from.to_bytes(),
    }
}

/// Sends, to an address if there is one.
pub fn sendto(fd: u64, buf: u64, len: u64, flags: u64, addr: u64, addr_len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let to = address::read_optional(addr, addr_len)?;
    let span = Span {
        address: buf,
        len: len.min(MAX_COUNT),
    };
    send(
        &handle.0,
        handle.socket()?,
        &[span],
        flags as u32,
        to.as_ref(),
        Ancillary::default(),
    )
}

/// Receives, and says from whom.
pub fn recvfrom(fd: u64, buf: u64, len: u64, flags: u64, addr: u64, addr_len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let span = Span {
        address: buf,
        len: len.min(MAX_COUNT),
    };
    let received = receive(&handle.0, handle.socket()?, &[span], flags as u32)?;
    if addr != 0 {
        address::write(addr, addr_len, &sender(&received))?;
    }
    Ok(answered(&received, flags as u32))
}

/// read(2) and readv(2), if the file is a socket: one message goes into all parts.
pub(in crate::sys) fn read_parts(file: &OpenFile, spans: &[Span]) -> Option<Result<u64>> {
    let socket = file.downcast::<SocketFile>()?;
    if total(spans) == 0 {
        return Some(Ok(0));
    }
    Some(receive(file, socket, spans, 0).map(|received| received.len as u64))
}

/// write(2) and writev(2), if the file is a socket: all parts are one message.
pub(in crate::sys) fn write_parts(file: &OpenFile, spans: &[Span]) -> Option<Result<u64>> {
    let socket = file.downcast::<SocketFile>()?;
    if total(spans) == 0 && matches!(socket.socket, Socket::Unix(_)) && socket.is_stream() {
        return Some(Ok(0));
    }
    Some(send(file, socket, spans, 0, None, Ancillary::default()))
}
