//! `struct msghdr`: sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2).

use super::transfer::{answered, receive, send, sender};
use super::{Handle, address, control};
use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::sys::io::{Span, parts};
use crate::sys::time::{read_timespec, write_timespec};
use crate::time;
use alloc::vec::Vec;
use linux_raw_sys::net as linux;
use unik_net::addr::STORAGE;

/// Bytes of a `struct mmsghdr`: a `struct msghdr`, and the length at its end.
const MANY_SIZE: u64 = 64;
/// Where the length stands in it.
const MANY_LENGTH: u64 = 56;
/// Most messages of one call (`UIO_MAXIOV`).
const MANY_MAX: u64 = 1024;
/// recvmmsg: MSG_DONTWAIT after the first message.
const MSG_WAITFORONE: u32 = 0x1_0000;

/// A `struct msghdr` of the program.
struct Header {
    /// Where it is.
    at: u64,
    name: u64,
    name_len: u32,
    spans: Vec<Span>,
    control: u64,
    control_len: u64,
}

impl Header {
    fn read(at: u64) -> Result<Self> {
        let [name, name_len, iov, count, control, control_len, _flags]: [u64; 7] = user::get(at)?;
        if (name_len as i32) < 0 {
            return Err(Errno::EINVAL);
        }
        if count > MANY_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let name_len = (name_len as u32).min(STORAGE as u32);
        Ok(Self {
            at,
            name,
            name_len,
            spans: parts(iov, count)?,
            control,
            control_len,
        })
    }

    fn put_name_len(&self, len: usize) -> Result<()> {
        user::put(self.at + 8, len as i32)
    }

    fn put_control(&self, len: usize, flags: u32) -> Result<()> {
        user::put(self.at + 40, len as u64)?;
        user::put(self.at + 48, flags)
    }
}

fn send_message(handle: &Handle, at: u64, flags: u32) -> Result<u64> {
    let header = Header::read(at)?;
    let socket = handle.socket()?;
    let to = address::read_optional(header.name, header.name_len as u64)?;
    let ancillary = control::read(socket, header.control, header.control_len)?;
    send(
        &handle.0,
        socket,
        &header.spans,
        flags,
        to.as_ref(),
        ancillary,
    )
}

fn receive_message(handle: &Handle, at: u64, flags: u32) -> Result<u64> {
    let header = Header::read(at)?;
    let socket = handle.socket()?;
    let received = receive(&handle.0, socket, &header.spans, flags)?;
    if header.name != 0 {
        let from = sender(&received);
        let part = &from[..from.len().min(header.name_len as usize)];
        user::slice_mut(header.name, part.len() as u64)?.copy_from_slice(part);
        header.put_name_len(from.len())?;
    }
    let cut = if received.full_len > received.len && !socket.is_stream() {
        linux::MSG_TRUNC
    } else {
        0
    };
    let (used, lost) = control::write(
        socket,
        &received.ancillary,
        header.control,
        header.control_len,
        flags,
    )?;
    header.put_control(used, cut | lost | flags & linux::MSG_CMSG_CLOEXEC)?;
    Ok(answered(&received, flags))
}

/// Sends bytes and control messages from several buffers.
pub fn sendmsg(fd: u64, message: u64, flags: u64) -> Result<u64> {
    send_message(&Handle::of(fd)?, message, flags as u32)
}

/// Receives bytes and control messages into several buffers.
pub fn recvmsg(fd: u64, message: u64, flags: u64) -> Result<u64> {
    receive_message(&Handle::of(fd)?, message, flags as u32)
}

/// Does `one` for each of `count` headers and notes its answer, until one fails or `enough` says so. The answer is how many went well.
fn many(
    messages: u64,
    count: u64,
    mut one: impl FnMut(u64, bool) -> Result<u64>,
    mut enough: impl FnMut() -> bool,
) -> Result<u64> {
    let mut done = 0;
    while done < (count as u32 as u64).min(MANY_MAX) {
        let at = messages + done * MANY_SIZE;
        match one(at, done > 0).and_then(|len| user::put(at + MANY_LENGTH, len as u32)) {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        if enough() {
            break;
        }
    }
    Ok(done)
}

/// Sends several messages.
pub fn sendmmsg(fd: u64, messages: u64, count: u64, flags: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    many(
        messages,
        count,
        |at, _| send_message(&handle, at, flags as u32),
        || false,
    )
}

/// Receives several messages; the time is looked at after each of them, as on Linux.
pub fn recvmmsg(fd: u64, messages: u64, count: u64, flags: u64, timeout: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let end = if timeout == 0 {
        None
    } else {
        Some(time::now().saturating_add(read_timespec(timeout)?))
    };
    let (flags, eager) = (
        flags as u32 & !MSG_WAITFORONE,
        flags as u32 & MSG_WAITFORONE != 0,
    );
    let receive = |at, later| {
        let hurry = if later && eager {
            linux::MSG_DONTWAIT
        } else {
            0
        };
        receive_message(&handle, at, flags | hurry)
    };
    let done = many(messages, count, receive, || {
        end.is_some_and(|end| time::now() >= end)
    })?;
    if let Some(end) = end {
        write_timespec(timeout, end.saturating_sub(time::now()))?;
    }
    Ok(done)
}
