//! Sockets: socket(2), socketpair(2), bind(2), listen(2), accept(2), connect(2), getsockname(2), shutdown(2).
//!
//! - `address`: `struct sockaddr` in program memory. `wait`: how long a call may wait.
//! - `transfer`: sending and receiving; `message`: `struct msghdr`; `control`: control messages. `options`: getsockopt(2), setsockopt(2).

mod address;
mod control;
mod message;
mod options;
mod transfer;
mod wait;

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::net::socket::{SocketFile, target};
use crate::net::{answer, credentials, net, watch};
use crate::vfs::{fds, install, usable, vfs};
use alloc::rc::Rc;
use linux_raw_sys::{general as linux, net as socket_abi};
pub use message::{recvmmsg, recvmsg, sendmmsg, sendmsg};
pub use options::{getsockopt, setsockopt};
pub(super) use transfer::{read_parts, write_parts};
pub use transfer::{recvfrom, sendto};
use unik_fs::file::OpenFile;
use unik_fs::vfs::AT_FDCWD;
use unik_fs::wait::ready;
use unik_net::Socket;
use unik_net::addr::{Address, UnixName};
use unik_net::unix::UnixSocket;
use wait::Patience;

/// SOCK_NONBLOCK and SOCK_CLOEXEC are the same bits as these.
const FLAGS: u32 = linux::O_NONBLOCK | linux::O_CLOEXEC;

/// An open file that is a socket.
pub(super) struct Handle(Rc<OpenFile>);

impl Handle {
    /// The socket of a descriptor; `ENOTSOCK` when it is something else.
    pub(super) fn of(fd: u64) -> Result<Self> {
        let file = usable(fd)?;
        if file.downcast::<SocketFile>().is_some() {
            Ok(Self(file))
        } else {
            Err(Errno::ENOTSOCK)
        }
    }

    fn socket(&self) -> Result<&SocketFile> {
        self.0.downcast().ok_or(Errno::ENOTSOCK)
    }
}

/// Whether calls on this descriptor give up after a time: a signal handler ends them for good (signal(7)).
pub fn has_timeout(fd: u64) -> bool {
    Handle::of(fd).is_ok_and(|handle| {
        handle.socket().is_ok_and(|socket| {
            socket
                .receive_timeout
                .get()
                .or(socket.send_timeout.get())
                .is_some()
        })
    })
}

fn open(file: Rc<SocketFile>, flags: u32) -> Rc<OpenFile> {
    OpenFile::new(file, linux::O_RDWR | flags & linux::O_NONBLOCK)
}

/// Parts a type argument into the type and the flags.
fn split_kind(kind: u64) -> Result<(u32, u32)> {
    const KIND_MASK: u32 = 0xf;
    let (kind, flags) = (kind as u32 & KIND_MASK, kind as u32 & !KIND_MASK);
    if flags & !FLAGS != 0 {
        Err(Errno::EINVAL)
    } else {
        Ok((kind, flags))
    }
}

/// A new socket.
pub fn socket(domain: u64, kind: u64, protocol: u64) -> Result<u64> {
    let (kind, flags) = split_kind(kind)?;
    fds().check_room()?;
    let socket = answer(net().socket(domain as u32, kind, protocol as u32, credentials()))?;
    install(open(SocketFile::new(socket), flags), flags)
}

/// Two sockets joined with each other.
pub fn socketpair(domain: u64, kind: u64, protocol: u64, out: u64) -> Result<u64> {
    let (kind, flags) = split_kind(kind)?;
    user::check(out, 8, crate::mm::space::Access::Write)?;
    if domain as u32 == socket_abi::AF_UNIX && protocol as u32 > socket_abi::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let (a, b) = answer(net().socket_pair(domain as u32, kind, credentials()))?;
    let first = install(open(SocketFile::new(Socket::Unix(a)), flags), flags)?;
    let second =
        install(open(SocketFile::new(Socket::Unix(b)), flags), flags).inspect_err(|_| {
            let _ = fds().close(first as i32);
        })?;
    user::put(out, [first as u32, second as u32]).map(|()| 0)
}

/// Gives a Unix socket a name in the file system.
fn bind_path(socket: &Rc<UnixSocket>, path: &[u8], mode: u32) -> Result<()> {
    let vfs = vfs();
    if socket.is_bound() {
        let taken = vfs.find(AT_FDCWD, path, linux::AT_SYMLINK_NOFOLLOW).is_ok();
        return Err(if taken {
            Errno::EADDRINUSE
        } else {
            Errno::EINVAL
        });
    }
    vfs.mknod(AT_FDCWD, path, linux::S_IFSOCK | mode, 0)
        .map_err(|error| {
            if error == Errno::EEXIST {
                Errno::EADDRINUSE
            } else {
                error
            }
        })?;
    let node = vfs
        .find(AT_FDCWD, path, linux::AT_SYMLINK_NOFOLLOW)?
        .into_node()?;
    answer(socket.bind_path(path.to_vec(), (node.dev(), node.ino())))
}

/// Gives a socket an address.
pub fn bind(fd: u64, addr: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let address = address::read(addr, len)?;
    let file = handle.socket()?;
    match (&file.socket, &address) {
        (Socket::Unix(socket), Address::Unix(UnixName::Path(path))) => {
            bind_path(socket, path, file.mode.get())?;
        }
        (Socket::Unix(socket), Address::Unix(name)) => answer(socket.bind(name.clone()))?,
        (Socket::Unix(_), _) => return Err(Errno::EINVAL),
        (Socket::Inet(socket), address) => answer(socket.bind(address))?,
        (Socket::Netlink(socket), address) => answer(socket.bind(address))?,
    }
    Ok(0)
}

/// Makes a socket wait for connections.
pub fn listen(fd: u64, backlog: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    match &handle.socket()?.socket {
        Socket::Unix(socket) => answer(socket.listen(backlog as u32))?,
        Socket::Inet(socket) => answer(socket.listen(backlog as u32))?,
        Socket::Netlink(_) => return Err(Errno::EOPNOTSUPP),
    }
    Ok(0)
}

/// The oldest waiting connection and who it comes from.
fn take_connection(socket: &SocketFile) -> Result<(Rc<SocketFile>, Address)> {
    match &socket.socket {
        Socket::Unix(unix) => {
            let (accepted, name) = answer(unix.accept())?;
            Ok((SocketFile::new(Socket::Unix(accepted)), Address::Unix(name)))
        }
        Socket::Inet(inet) => {
            let accepted = inet.accept();
            watch();
            let (accepted, from) = answer(accepted)?;
            let file = SocketFile::new(Socket::Inet(accepted));
            file.receive_timeout.set(socket.receive_timeout.get());
            file.send_timeout.set(socket.send_timeout.get());
            file.timestamp_ns.set(socket.timestamp_ns.get());
            Ok((file, from))
        }
        Socket::Netlink(_) => Err(Errno::EOPNOTSUPP),
    }
}

/// Takes a connection.
pub fn accept4(fd: u64, addr: u64, len: u64, flags: u64) -> Result<u64> {
    let flags = flags as u32;
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let handle = Handle::of(fd)?;
    let socket = handle.socket()?;
    fds().check_room()?;
    let mut patience = Patience::new(&handle.0, socket.receive_timeout.get(), true);
    let (accepted, from) = patience.until_done(ready::IN, || take_connection(socket))?;
    if addr != 0 {
        address::write(addr, len, &from.to_bytes())?;
    }
    install(open(accepted, flags), flags)
}

/// Takes a connection.
pub fn accept(fd: u64, addr: u64, len: u64) -> Result<u64> {
    accept4(fd, addr, len, 0)
}

fn connect_unix(
    socket: &Rc<UnixSocket>,
    address: &Address,
    patience: &mut Patience<'_>,
) -> Result<()> {
    if *address == Address::Unspec {
        return answer(socket.connect(None));
    }
    patience.until_done(ready::OUT, || {
        answer(socket.connect(Some(&target(address)?)))
    })
}

/// Connects a socket to an address.
pub fn connect(fd: u64, addr: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let address = address::read(addr, len)?;
    let file = handle.socket()?;
    let mut patience = Patience::new(&handle.0, file.send_timeout.get(), true);
    match &file.socket {
        Socket::Unix(socket) => connect_unix(socket, &address, &mut patience)?,
        Socket::Netlink(_) => {
            if !matches!(address, Address::Netlink { .. } | Address::Unspec) {
                return Err(Errno::EINVAL);
            }
        }
        Socket::Inet(socket) => {
            let mut state = answer(socket.connect(&address));
            watch();
            // An attempt that a signal handler interrupted goes on.
            while matches!(state, Err(Errno::EINPROGRESS | Errno::EALREADY)) && patience.may_wait()
            {
                state = answer(socket.connect_result());
                if matches!(state, Err(Errno::EINPROGRESS)) {
                    match patience.wait(ready::OUT) {
                        Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
                        other => other?,
                    }
                }
            }
            state?;
        }
    }
    Ok(0)
}

/// A socket's own address.
pub fn getsockname(fd: u64, addr: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let address = match &handle.socket()?.socket {
        Socket::Unix(socket) => Address::Unix(socket.local_name()),
        Socket::Inet(socket) => socket.local_address(),
        Socket::Netlink(socket) => socket.local_address(),
    };
    address::write(addr, len, &address.to_bytes()).map(|()| 0)
}

/// The address a socket is connected to.
pub fn getpeername(fd: u64, addr: u64, len: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let address = answer(match &handle.socket()?.socket {
        Socket::Unix(socket) => socket.peer_name().map(Address::Unix),
        Socket::Inet(socket) => socket.peer_address(),
        Socket::Netlink(_) => Ok(Address::Netlink { port: 0, groups: 0 }),
    })?;
    address::write(addr, len, &address.to_bytes()).map(|()| 0)
}

/// Ends one or both directions.
pub fn shutdown(fd: u64, how: u64) -> Result<u64> {
    let handle = Handle::of(fd)?;
    let (read, write) = match how as u32 {
        socket_abi::SHUT_RD => (true, false),
        socket_abi::SHUT_WR => (false, true),
        socket_abi::SHUT_RDWR => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    match &handle.socket()?.socket {
        Socket::Unix(socket) => answer(socket.shutdown(read, write))?,
        Socket::Inet(socket) => {
            let done = socket.shutdown(read, write);
            watch();
            answer(done)?;
        }
        Socket::Netlink(_) => return Err(Errno::EOPNOTSUPP),
    }
    Ok(0)
}
