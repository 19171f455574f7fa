//! Control messages (cmsg(3)) in program memory: reading them into [`Ancillary`] and writing what was received.

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::net::credentials;
use crate::net::socket::SocketFile;
use crate::vfs::{fds, usable};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use linux_raw_sys::net as linux;
use unik_fs::file::OpenFile;
use unik_net::message::{Ancillary, Credentials};

/// Bytes of a `struct cmsghdr`.
const HEADER: usize = 16;
/// Most descriptors in one message (`SCM_MAX_FD`).
const RIGHTS_MAX: usize = 253;
/// Most bytes of control data (net.core.optmem_max).
const CONTROL_MAX: u64 = 128 << 10;

const IP_TOS: u32 = 1;
const IP_TTL: u32 = 2;
const IP_PKTINFO: u32 = 8;
const IPV6_PKTINFO: u32 = 50;
const IPV6_HOPLIMIT: u32 = 52;
const IPV6_TCLASS: u32 = 67;
const UDP_SEGMENT: u32 = 103;
const UDP_GRO: u32 = 104;

fn word(data: &[u8], at: usize) -> Result<u32> {
    data.get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or(Errno::EINVAL)
}

/// A number from 0 to 255, as an `int` or a byte; -1: none.
fn small(data: &[u8]) -> Result<Option<u8>> {
    match data {
        [byte] => Ok(Some(*byte)),
        _ => match word(data, 0)? as i32 {
            -1 => Ok(None),
            value => u8::try_from(value).map(Some).map_err(|_| Errno::EINVAL),
        },
    }
}

fn rights(data: &[u8], into: &mut Ancillary) -> Result<()> {
    for fd in data.chunks_exact(4) {
        if into.rights.len() == RIGHTS_MAX {
            return Err(Errno::EINVAL);
        }
        let file: Rc<dyn Any> = usable(word(fd, 0)? as u64)?;
        into.rights.push(file);
    }
    Ok(())
}

/// SCM_CREDENTIALS: the only process there is may call itself any user.
fn sender(data: &[u8]) -> Result<Credentials> {
    let who = Credentials {
        pid: word(data, 0)? as i32,
        uid: word(data, 4)?,
        gid: word(data, 8)?,
    };
    if who.pid == credentials().pid {
        Ok(who)
    } else {
        Err(Errno::ESRCH)
    }
}

fn packet_info_v4(data: &[u8]) -> Result<(IpAddr, u32)> {
    let link = word(data, 0)?;
    let source = data
        .get(4..)
        .and_then(|rest| rest.first_chunk::<4>())
        .ok_or(Errno::EINVAL)?;
    Ok((Ipv4Addr::from(*source).into(), link))
}

fn packet_info_v6(data: &[u8]) -> Result<(IpAddr, u32)> {
    let source = data.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    Ok((Ipv6Addr::from(*source).into(), word(data, 16)?))
}

fn take(local: bool, level: u32, kind: u32, data: &[u8], into: &mut Ancillary) -> Result<()> {
    match (level, kind) {
        (linux::SOL_SOCKET, linux::SCM_RIGHTS) if local => rights(data, into)?,
        (linux::SOL_SOCKET, linux::SCM_CREDENTIALS) if local => {
            into.credentials = Some(sender(data)?)
        }
        (linux::SOL_SOCKET, linux::SCM_RIGHTS | linux::SCM_CREDENTIALS) => {}
        (linux::SOL_IP, IP_PKTINFO) if !local => into.packet_info = Some(packet_info_v4(data)?),
        (linux::SOL_IP, IP_TTL) if !local => into.hop_limit = small(data)?,
        (linux::SOL_IP, IP_TOS) if !local => into.traffic_class = small(data)?,
        (linux::SOL_IPV6, IPV6_PKTINFO) if !local => into.packet_info = Some(packet_info_v6(data)?),
        (linux::SOL_IPV6, IPV6_HOPLIMIT) if !local => into.hop_limit = small(data)?,
        (linux::SOL_IPV6, IPV6_TCLASS) if !local => into.traffic_class = small(data)?,
        (linux::SOL_UDP, UDP_SEGMENT) if !local => {
            let size = data.first_chunk().ok_or(Errno::EINVAL)?;
            into.segment_size = Some(u16::from_ne_bytes(*size));
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// Reads the control messages of a send call.
pub fn read(socket: &SocketFile, address: u64, len: u64) -> Result<Ancillary> {
    let mut all = Ancillary::default();
    if address == 0 || len == 0 {
        return Ok(all);
    }
    if len > CONTROL_MAX {
        return Err(Errno::ENOBUFS);
    }
    let local = socket.family() == linux::AF_UNIX;
    let mut rest = user::slice(address, len)?;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let len = word(header, 0)? as usize;
        let (level, kind) = (word(header, 8)?, word(header, 12)?);
        if word(header, 4)? != 0 {
            return Err(Errno::EINVAL);
        }
        take(
            local,
            level,
            kind,
            rest.get(HEADER..len).ok_or(Errno::EINVAL)?,
            &mut all,
        )?;
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(all)
}

/// Control messages being written into the program's buffer.
struct Writer {
    at: u64,
    left: usize,
    used: usize,
    /// MSG_CTRUNC once something did not fit.
    lost: u32,
}

impl Writer {
    fn put(&mut self, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        let len = (HEADER + data.len()).min(self.left);
        if len < HEADER + data.len() {
            self.lost = linux::MSG_CTRUNC;
        }
        if len < HEADER {
            return Ok(());
        }
        let out = user::slice_mut(self.at, len as u64)?;
        out[..8].copy_from_slice(&(len as u64).to_ne_bytes());
        out[8..12].copy_from_slice(&level.to_ne_bytes());
        out[12..16].copy_from_slice(&kind.to_ne_bytes());
        out[HEADER..].copy_from_slice(&data[..len - HEADER]);
        let space = len.next_multiple_of(8).min(self.left);
        self.at += space as u64;
        self.left -= space;
        self.used += space;
        Ok(())
    }

    /// Enters descriptors for as many files as fit; the others are closed.
    fn put_rights(&mut self, files: &[Rc<dyn Any>], close_on_exec: bool) -> Result<()> {
        let mut bytes = Vec::new();
        for file in files.iter().take(self.left.saturating_sub(HEADER) / 4) {
            let Ok(file) = file.clone().downcast::<OpenFile>() else {
                continue;
            };
            let Ok(fd) = fds().insert(file, close_on_exec) else {
                break;
            };
            bytes.extend(fd.to_ne_bytes());
        }
        if bytes.len() / 4 < files.len() {
            self.lost = linux::MSG_CTRUNC;
        }
        if bytes.is_empty() {
            Ok(())
        } else {
            self.put(linux::SOL_SOCKET, linux::SCM_RIGHTS, &bytes)
        }
    }

    fn put_packet(&mut self, received: &Ancillary, v6: bool) -> Result<()> {
        if let Some((ip, link)) = received.packet_info {
            match ip {
                IpAddr::V4(ip) if !v6 => {
                    let info = [link.to_ne_bytes(), ip.octets(), ip.octets()].concat();
                    self.put(linux::SOL_IP, IP_PKTINFO, &info)?;
                }
                ip => {
                    let ip = match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    self.put(
                        linux::SOL_IPV6,
                        IPV6_PKTINFO,
                        &[&ip.octets()[..], &link.to_ne_bytes()].concat(),
                    )?;
                }
            }
        }
        if let Some(hops) = received.hop_limit {
            let (level, kind) = if v6 {
                (linux::SOL_IPV6, IPV6_HOPLIMIT)
            } else {
                (linux::SOL_IP, IP_TTL)
            };
            self.put(level, kind, &u32::from(hops).to_ne_bytes())?;
        }
        match received.traffic_class {
            Some(class) if v6 => self.put(
                linux::SOL_IPV6,
                IPV6_TCLASS,
                &u32::from(class).to_ne_bytes(),
            ),
            Some(class) => self.put(linux::SOL_IP, IP_TOS, &[class]),
            None => Ok(()),
        }
    }
}

/// A time in nanoseconds as seconds and a fraction.
fn seconds(time: u64, nanoseconds: bool) -> Vec<u8> {
    const SECOND: u64 = 1_000_000_000;
    let fraction = if nanoseconds {
        time % SECOND
    } else {
        time % SECOND / 1000
    };
    [(time / SECOND).to_ne_bytes(), fraction.to_ne_bytes()].concat()
}

/// Writes what was received into the program's buffer: bytes used, and MSG_CTRUNC when it was too small.
pub fn write(
    socket: &SocketFile,
    received: &Ancillary,
    address: u64,
    len: u64,
    flags: u32,
) -> Result<(usize, u32)> {
    let left = if address == 0 {
        0
    } else {
        usize::try_from(len).unwrap_or(usize::MAX)
    };
    let mut out = Writer {
        at: address,
        left,
        used: 0,
        lost: 0,
    };
    if let Some(time) = received.timestamp {
        let kind = if socket.timestamp_ns.get() {
            linux::SO_TIMESTAMPNS_OLD
        } else {
            linux::SO_TIMESTAMP_OLD
        };
        out.put(
            linux::SOL_SOCKET,
            kind,
            &seconds(time, socket.timestamp_ns.get()),
        )?;
    }
    if let Some(who) = received.credentials {
        let bytes = [
            who.pid.to_ne_bytes(),
            who.uid.to_ne_bytes(),
            who.gid.to_ne_bytes(),
        ]
        .concat();
        out.put(linux::SOL_SOCKET, linux::SCM_CREDENTIALS, &bytes)?;
    }
    if !received.rights.is_empty() {
        out.put_rights(&received.rights, flags & linux::MSG_CMSG_CLOEXEC != 0)?;
    }
    out.put_packet(received, socket.family() == linux::AF_INET6)?;
    if let Some(size) = received.segment_size {
        out.put(linux::SOL_UDP, UDP_GRO, &u32::from(size).to_ne_bytes())?;
    }
    Ok((out.used, out.lost))
}
