//! What goes wrong, by error number.

use crate::Result;
use std::io::Error;
use std::mem::size_of;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// 0 or the error number of a call.
fn code(result: libc::c_int) -> i32 {
    if result >= 0 {
        0
    } else {
        Error::last_os_error().raw_os_error().unwrap_or(-1)
    }
}

fn option(fd: i32, name: libc::c_int) -> i32 {
    let (mut value, mut len) = (-1i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: value and length are live and agree.
    match code(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut len,
        )
    }) {
        0 => value,
        error => -error,
    }
}

/// A new socket, closed again: 0 or the error number.
fn attempt(family: i32, kind: i32, protocol: i32) -> i32 {
    // SAFETY: the descriptor is closed by nobody else.
    unsafe {
        let fd = libc::socket(family, kind, protocol);
        let answer = code(fd);
        if fd >= 0 {
            libc::close(fd);
        }
        answer
    }
}

pub fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    println!(
        "in use: {:?}",
        TcpListener::bind(address).unwrap_err().raw_os_error()
    );
    println!(
        "not ours: {:?}",
        TcpListener::bind("192.0.2.1:0").unwrap_err().raw_os_error()
    );
    let client = TcpStream::connect(address)?;
    for (what, name) in [
        ("type", libc::SO_TYPE),
        ("domain", libc::SO_DOMAIN),
        ("protocol", libc::SO_PROTOCOL),
        ("accepting", libc::SO_ACCEPTCONN),
        ("error", libc::SO_ERROR),
        ("reuse", libc::SO_REUSEADDR),
        ("keepalive", libc::SO_KEEPALIVE),
    ] {
        println!(
            "{what}: {} {}",
            option(listener.as_raw_fd(), name),
            option(client.as_raw_fd(), name)
        );
    }
    drop(listener);
    println!(
        "refused: {:?}",
        TcpStream::connect(address).unwrap_err().raw_os_error()
    );
    println!(
        "unknown: {} {} {}",
        attempt(77, 1, 0),
        attempt(libc::AF_INET, 1, 99),
        attempt(libc::AF_UNIX, 9, 0)
    );
    println!(
        "flags: {}",
        attempt(
            libc::AF_INET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0
        )
    );
    // SAFETY: no memory is passed but what is named.
    unsafe {
        println!("not a socket: {}", code(libc::listen(1, 1)));
        println!("not open: {}", code(libc::listen(999, 1)));
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        println!(
            "not connected: {}",
            code(libc::send(fd, c"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) as i32)
        );
        println!("no peer: {}", code(libc::shutdown(fd, libc::SHUT_RDWR)));
        println!(
            "bad address: {}",
            code(libc::connect(fd, 8 as *const _, 16))
        );
        println!(
            "short address: {}",
            code(libc::connect(fd, c"\x02".as_ptr().cast(), 2))
        );
        println!("no option: {}", option(fd, 12345));
        libc::close(fd);
        let mut pair = [0; 2];
        println!(
            "pair of the internet: {}",
            code(libc::socketpair(
                libc::AF_INET,
                libc::SOCK_STREAM,
                0,
                pair.as_mut_ptr()
            ))
        );
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr());
        libc::write(pair[0], c"message".as_ptr().cast(), 7);
        let mut short = [0u8; 4];
        println!(
            "cut message: {}",
            libc::recv(pair[1], short.as_mut_ptr().cast(), 4, libc::MSG_TRUNC)
        );
        println!(
            "nothing left: {}",
            code(libc::recv(pair[1], short.as_mut_ptr().cast(), 4, libc::MSG_DONTWAIT) as i32)
        );
        libc::close(pair[0]);
        println!(
            "end: {}",
            libc::recv(pair[1], short.as_mut_ptr().cast(), 4, 0)
        );
        libc::close(pair[1]);
    }
    Ok(())
}
