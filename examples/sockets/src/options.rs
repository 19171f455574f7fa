//! Socket options by number: what each kind of socket says at first, takes, and says then. What Linux versions disagree on is left out.

use crate::Result;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Level, name, both in words, and a value to set.
type Row = (&'static str, i32, i32, i32);

/// Options that the run-times and libraries of the field set.
const ROWS: &[Row] = &[
    ("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
    ("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
    ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST, 1),
    ("SO_OOBINLINE", libc::SOL_SOCKET, libc::SO_OOBINLINE, 0),
    ("SO_TYPE", libc::SOL_SOCKET, libc::SO_TYPE, 1),
    ("SO_DOMAIN", libc::SOL_SOCKET, libc::SO_DOMAIN, 1),
    ("SO_ERROR", libc::SOL_SOCKET, libc::SO_ERROR, 1),
    ("SO_ACCEPTCONN", libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 1),
    ("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
    ("SO_TIMESTAMP", libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1),
    ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
    ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 30),
    ("TCP_KEEPINTVL", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5),
    ("TCP_KEEPCNT", libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
    ("TCP_QUICKACK", libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0),
    ("TCP_CORK", libc::IPPROTO_TCP, libc::TCP_CORK, 1),
    (
        "TCP_USER_TIMEOUT",
        libc::IPPROTO_TCP,
        libc::TCP_USER_TIMEOUT,
        900,
    ),
    ("IP_TTL", libc::IPPROTO_IP, libc::IP_TTL, 9),
    ("IP_TOS", libc::IPPROTO_IP, libc::IP_TOS, 0x10),
    ("IP_RECVTOS", libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
    ("IP_PKTINFO", libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    ("IP_RECVTTL", libc::IPPROTO_IP, libc::IP_RECVTTL, 1),
    ("IP_RECVERR", libc::IPPROTO_IP, libc::IP_RECVERR, 1),
    (
        "IP_MTU_DISCOVER",
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        2,
    ),
    ("IP_FREEBIND", libc::IPPROTO_IP, libc::IP_FREEBIND, 1),
    (
        "IP_MULTICAST_TTL",
        libc::IPPROTO_IP,
        libc::IP_MULTICAST_TTL,
        7,
    ),
    (
        "IP_MULTICAST_LOOP",
        libc::IPPROTO_IP,
        libc::IP_MULTICAST_LOOP,
        0,
    ),
    ("IPV6_V6ONLY", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1),
    (
        "IPV6_UNICAST_HOPS",
        libc::IPPROTO_IPV6,
        libc::IPV6_UNICAST_HOPS,
        9,
    ),
    ("IPV6_TCLASS", libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 96),
    (
        "IPV6_RECVTCLASS",
        libc::IPPROTO_IPV6,
        libc::IPV6_RECVTCLASS,
        1,
    ),
    (
        "IPV6_RECVPKTINFO",
        libc::IPPROTO_IPV6,
        libc::IPV6_RECVPKTINFO,
        1,
    ),
    (
        "IPV6_RECVHOPLIMIT",
        libc::IPPROTO_IPV6,
        libc::IPV6_RECVHOPLIMIT,
        1,
    ),
    ("IPV6_RECVERR", libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    (
        "IPV6_MTU_DISCOVER",
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU_DISCOVER,
        2,
    ),
    (
        "IPV6_MULTICAST_HOPS",
        libc::IPPROTO_IPV6,
        libc::IPV6_MULTICAST_HOPS,
        7,
    ),
    (
        "IPV6_MULTICAST_LOOP",
        libc::IPPROTO_IPV6,
        libc::IPV6_MULTICAST_LOOP,
        0,
    ),
];

pub fn run() -> Result<()> {
    for (family, domain) in [("inet", libc::AF_INET), ("inet6", libc::AF_INET6)] {
        for (kind, number) in [("stream", libc::SOCK_STREAM), ("dgram", libc::SOCK_DGRAM)] {
            let own = |row: &&Row| match row.1 {
                libc::IPPROTO_TCP => number == libc::SOCK_STREAM,
                libc::IPPROTO_IPV6 => domain == libc::AF_INET6,
                _ => true,
            };
            let multicast = |row: &&Row| row.0.contains("MULTICAST");
            let fits = |row: &&Row| own(row) && !(multicast(row) && number == libc::SOCK_STREAM);
            for row in ROWS.iter().filter(fits) {
                println!("{family} {kind} {}", one(domain, number, row)?);
            }
        }
    }
    Ok(())
}

/// A fresh socket, so that no option is seen through another.
fn one(domain: i32, kind: i32, &(words, level, name, value): &Row) -> Result<String> {
    // SAFETY: a new descriptor or -1.
    let fd = unsafe { libc::socket(domain, kind, 0) };
    if fd < 0 {
        return Err(Error::last_os_error().into());
    }
    // SAFETY: just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let first = get(&socket, level, name);
    // SAFETY: the value is an int and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            4,
        )
    };
    let set = if set == 0 { "set".to_owned() } else { error() };
    Ok(format!(
        "{words}: {first}, {set}, {}",
        get(&socket, level, name)
    ))
}

fn get(socket: &OwnedFd, level: i32, name: i32) -> String {
    let (mut value, mut len) = (0_i32, 4);
    let (at, room) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: `len` bytes at `value` may be written.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, at, room) } {
        0 => value.to_string(),
        _ => error(),
    }
}

fn error() -> String {
    format!(
        "error {}",
        Error::last_os_error().raw_os_error().unwrap_or(0)
    )
}
