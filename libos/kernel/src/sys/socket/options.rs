//! getsockopt(2), setsockopt(2): what all sockets have in common and what local ones have; the rest is the network's.

use super::Handle;
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::net::socket::SocketFile;
use crate::net::{answer, watch};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use linux_raw_sys::net as linux;
use unik_net::Socket;
use unik_net::message::Credentials;
use unik_net::unix::{DEFAULT_BUFFER, UnixSocket};

/// Longest value looked at.
const VALUE_MAX: u64 = 4096;
const SECOND: u64 = 1_000_000_000;

fn int(value: &[u8]) -> Result<u32> {
    value
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or(Errno::EINVAL)
}

/// Level and name. Some options of `SOL_SOCKET` have two names: on a 64-bit machine both mean the same.
fn canonical(level: u64, name: u64) -> (u32, u32) {
    let (level, name) = (level as u32, name as u32);
    let name = match name {
        name if level != linux::SOL_SOCKET => name,
        linux::SO_RCVTIMEO_NEW => linux::SO_RCVTIMEO_OLD,
        linux::SO_SNDTIMEO_NEW => linux::SO_SNDTIMEO_OLD,
        linux::SO_TIMESTAMP_NEW => linux::SO_TIMESTAMP_OLD,
        linux::SO_TIMESTAMPNS_NEW => linux::SO_TIMESTAMPNS_OLD,
        name => name,
    };
    (level, name)
}

/// A `struct timeval` as nanoseconds; zero means "for ever".
fn timeval(value: &[u8]) -> Result<Option<u64>> {
    let part = |at: usize| {
        value
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| i64::from_ne_bytes(*bytes))
            .ok_or(Errno::EINVAL)
    };
    let (seconds, micros) = (part(0)?, part(8)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    let time = (seconds.max(0) as u64)
        .saturating_mul(SECOND)
        .saturating_add(micros as u64 * 1000);
    Ok((time > 0).then_some(time))
}

fn show_timeval(time: &Cell<Option<u64>>) -> Vec<u8> {
    let time = time.get().unwrap_or(0);
    [
        (time / SECOND).to_ne_bytes(),
        (time % SECOND / 1000).to_ne_bytes(),
    ]
    .concat()
}

fn show(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Options that mean nothing to a local socket, and what they are at first: remembered, as on Linux.
fn initial(level: u32, name: u32) -> Option<u32> {
    /// NETLINK_PKTINFO, NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK.
    const NETLINK: [u32; 6] = [3, 4, 5, 10, 11, 12];
    match (level, name) {
        (linux::SOL_NETLINK, name) => NETLINK.contains(&name).then_some(0),
        (linux::SOL_SOCKET, linux::SO_RCVBUF) => Some(DEFAULT_BUFFER as u32),
        (linux::SOL_SOCKET, linux::SO_SNDBUF) => Some(DEFAULT_BUFFER as u32),
        (linux::SOL_SOCKET, linux::SO_RCVLOWAT) => Some(1),
        (
            linux::SOL_SOCKET,
            linux::SO_DEBUG
            | linux::SO_NO_CHECK
            | linux::SO_REUSEADDR
            | linux::SO_KEEPALIVE
            | linux::SO_BROADCAST
            | linux::SO_OOBINLINE
            | linux::SO_PRIORITY
            | linux::SO_MARK
            | linux::SO_TIMESTAMP_OLD
            | linux::SO_TIMESTAMPNS_OLD
            | linux::SO_DONTROUTE
            | linux::SO_PASSCRED,
        ) => Some(0),
        _ => None,
    }
}

fn set_local(file: &SocketFile, level: u32, name: u32, value: &[u8]) -> Result<()> {
    if (level, name) == (linux::SOL_SOCKET, linux::SO_LINGER) {
        let (on, seconds) = (int(value)?, int(value.get(4..).unwrap_or_default())?);
        file.remembered.borrow_mut().insert(
            (level, name),
            if on == 0 {
                0
            } else {
                seconds.saturating_add(1)
            },
        );
        return Ok(());
    }
    initial(level, name).ok_or(Errno::ENOPROTOOPT)?;
    let value = int(value)?;
    let kept = match name {
        _ if level != linux::SOL_SOCKET => value,
        linux::SO_RCVBUF => value
            .saturating_mul(2)
            .clamp(2304, 2 * DEFAULT_BUFFER as u32),
        linux::SO_PRIORITY | linux::SO_MARK => value,
        linux::SO_RCVLOWAT if (value as i32) < 0 => i32::MAX as u32,
        linux::SO_RCVLOWAT => value.max(1),
        _ => u32::from(value != 0),
    };
    file.remembered.borrow_mut().insert((level, name), kept);
    Ok(())
}

fn set_unix(
    file: &SocketFile,
    socket: &UnixSocket,
    level: u32,
    name: u32,
    value: &[u8],
) -> Result<()> {
    match (level, name) {
        (level, _) if level != linux::SOL_SOCKET => return Err(Errno::EOPNOTSUPP),
        (linux::SOL_SOCKET, linux::SO_PASSCRED) => socket.pass_credentials.set(int(value)? != 0),
        (linux::SOL_SOCKET, linux::SO_SNDBUF | linux::SO_SNDBUFFORCE) => {
            socket.set_send_buffer(int(value)? as usize)
        }
        _ => set_local(file, level, name, value)?,
    }
    Ok(())
}

/// Sets an option.
pub fn setsockopt(fd: u64, level: u64, name: u64, value: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let file = handle.socket()?;
    let (level, name) = canonical(level, name);
    if (len as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    if level == linux::SOL_SOCKET && name != linux::SO_BINDTODEVICE && len < 4 {
        return Err(Errno::EINVAL);
    }
    let value = user::slice(value, (len as u32 as u64).min(VALUE_MAX))?;
    match (level, name, &file.socket) {
        (linux::SOL_SOCKET, linux::SO_RCVTIMEO_OLD, _) => file.receive_timeout.set(timeval(value)?),
        (linux::SOL_SOCKET, linux::SO_SNDTIMEO_OLD, _) => file.send_timeout.set(timeval(value)?),
        // Pages are always copied, so nobody needs to be told when they were sent.
        (linux::SOL_SOCKET, linux::SO_ZEROCOPY, _) => return Err(Errno::EOPNOTSUPP),
        (_, _, Socket::Unix(socket)) => set_unix(file, socket, level, name, value)?,
        (_, _, Socket::Netlink(_)) => set_local(file, level, name, value)?,
        (_, _, Socket::Inet(socket)) => {
            answer(socket.set_option(level, name, value))?;
            if level == linux::SOL_SOCKET
                && matches!(name, linux::SO_TIMESTAMP_OLD | linux::SO_TIMESTAMPNS_OLD)
            {
                file.timestamp_ns.set(name == linux::SO_TIMESTAMPNS_OLD);
            }
            watch();
        }
    }
    Ok(0)
}

fn show_credentials(who: Credentials) -> Vec<u8> {
    [
        who.pid.to_ne_bytes(),
        who.uid.to_ne_bytes(),
        who.gid.to_ne_bytes(),
    ]
    .concat()
}

fn get_local(file: &SocketFile, level: u32, name: u32) -> Result<Vec<u8>> {
    let remembered = file.remembered.borrow().get(&(level, name)).copied();
    if level != linux::SOL_SOCKET {
        return initial(level, name)
            .map(|first| show(remembered.unwrap_or(first)))
            .ok_or(Errno::ENOPROTOOPT);
    }
    match name {
        linux::SO_TYPE => Ok(show(file.kind())),
        linux::SO_DOMAIN => Ok(show(file.family())),
        linux::SO_PROTOCOL | linux::SO_ERROR | linux::SO_ACCEPTCONN => Ok(show(0)),
        linux::SO_SNDLOWAT => Ok(show(1)),
        linux::SO_LINGER => {
            let linger = remembered.unwrap_or(0);
            Ok([
                u32::from(linger > 0).to_ne_bytes(),
                linger.saturating_sub(1).to_ne_bytes(),
            ]
            .concat())
        }
        name => initial(level, name)
            .map(|first| show(remembered.unwrap_or(first)))
            .ok_or(Errno::ENOPROTOOPT),
    }
}

fn get_unix(file: &SocketFile, socket: &Rc<UnixSocket>, level: u32, name: u32) -> Result<Vec<u8>> {
    match (level, name) {
        (level, _) if level != linux::SOL_SOCKET => Err(Errno::EOPNOTSUPP),
        (linux::SOL_SOCKET, linux::SO_ERROR) => {
            Ok(show(socket.take_error().map_or(0, |error| error.0 as u32)))
        }
        (linux::SOL_SOCKET, linux::SO_ACCEPTCONN) => Ok(show(socket.is_listening().into())),
        (linux::SOL_SOCKET, linux::SO_PASSCRED) => Ok(show(socket.pass_credentials.get().into())),
        (linux::SOL_SOCKET, linux::SO_SNDBUF) => Ok(show(socket.send_buffer() as u32)),
        (linux::SOL_SOCKET, linux::SO_PEERCRED) => Ok(show_credentials(
            socket.peer_credentials().unwrap_or(NOBODY),
        )),
        (linux::SOL_SOCKET, linux::SO_PEERGROUPS) => socket
            .peer_credentials()
            .map(|_| Vec::new())
            .map_err(|_| Errno::ENODATA),
        _ => get_local(file, level, name),
    }
}

/// SO_PEERCRED of a socket whose peer is not known.
const NOBODY: Credentials = Credentials {
    pid: 0,
    uid: u32::MAX,
    gid: u32::MAX,
};

/// Reads an option; the value is cut to the caller's room.
pub fn getsockopt(fd: u64, level: u64, name: u64, value: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let file = handle.socket()?;
    let (level, name) = canonical(level, name);
    let room = usize::try_from(user::get::<i32>(len)?).map_err(|_| Errno::EINVAL)?;
    let bytes = match (level, name, &file.socket) {
        (linux::SOL_SOCKET, linux::SO_RCVTIMEO_OLD, _) => show_timeval(&file.receive_timeout),
        (linux::SOL_SOCKET, linux::SO_SNDTIMEO_OLD, _) => show_timeval(&file.send_timeout),
        (linux::SOL_SOCKET, linux::SO_ZEROCOPY, _) => show(0),
        (_, _, Socket::Unix(socket)) => get_unix(file, socket, level, name)?,
        (_, _, Socket::Netlink(_)) => get_local(file, level, name)?,
        (linux::SOL_SOCKET, linux::SO_PEERCRED, Socket::Inet(_)) => show_credentials(NOBODY),
        (_, _, Socket::Inet(socket)) => answer(socket.option(level, name))?,
    };
    let part = &bytes[..bytes.len().min(room)];
    user::slice_mut(value, part.len() as u64)?.copy_from_slice(part);
    user::put(len, part.len() as i32).map(|()| 0)
}
