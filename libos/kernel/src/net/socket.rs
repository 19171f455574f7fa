//! A socket as an open file: [`SocketFile`].
//!
//! It answers at once, like every file; `crate::sys::socket` waits on its queue, which the network wakes through [`Hook`].

use super::{answer, net, watch};
use crate::errno::{Errno, Result};
use crate::time;
use crate::vfs::vfs;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::{Cell, RefCell};
use linux_raw_sys::{ioctl as io, net as linux};
use unik_fs::anon::{self, SOCKET_DEV};
use unik_fs::cred;
use unik_fs::file::FileLike;
use unik_fs::inode::{FileType, Metadata};
use unik_fs::system::{Time, UserMemory};
use unik_fs::vfs::AT_FDCWD;
use unik_fs::wait::WaitQueue;
use unik_net::addr::{Address, UnixName};
use unik_net::inet::ioctl::IFREQ;
use unik_net::message::{Ancillary, Received};
use unik_net::unix::{self, Target};
use unik_net::{Hook, Kind, Socket};

/// Passes the network's wake-ups on to whoever waits on the file.
#[derive(Default)]
struct Events(WaitQueue);

impl Hook for Events {
    fn wake(&self, mask: u32) {
        self.0.wake(mask);
    }
}

/// A socket that descriptors refer to. Dropping it closes the socket.
pub struct SocketFile {
    /// The socket.
    pub socket: Socket,
    events: Rc<Events>,
    ino: u64,
    born: Time,
    /// Permissions; a name in the file system gets them, less the umask.
    pub mode: Cell<u32>,
    /// SO_RCVTIMEO, nanoseconds.
    pub receive_timeout: Cell<Option<u64>>,
    /// SO_SNDTIMEO, nanoseconds.
    pub send_timeout: Cell<Option<u64>>,
    /// SO_TIMESTAMPNS rather than SO_TIMESTAMP was asked for.
    pub timestamp_ns: Cell<bool>,
    /// Options of local sockets that have no effect there, by level and name: remembered, as Linux does.
    pub remembered: RefCell<BTreeMap<(u32, u32), u32>>,
}

impl SocketFile {
    /// A file for `socket`.
    pub fn new(socket: Socket) -> Rc<Self> {
        let (events, ino): (Rc<Events>, u64) = (Rc::default(), anon::next_ino());
        let hook: Rc<dyn Hook> = events.clone();
        match &socket {
            Socket::Unix(socket) => socket.set_hook(&hook),
            Socket::Inet(socket) => {
                socket.set_hook(&hook);
                socket.set_inode(ino);
            }
            Socket::Netlink(socket) => socket.set_hook(&hook),
        }
        Rc::new(Self {
            socket,
            events,
            ino,
            born: Time::from_ns(time::realtime()),
            mode: Cell::new(0o777),
            receive_timeout: Cell::default(),
            send_timeout: Cell::default(),
            timestamp_ns: Cell::default(),
            remembered: RefCell::default(),
        })
    }

    /// AF_*.
    pub fn family(&self) -> u32 {
        match &self.socket {
            Socket::Unix(_) => linux::AF_UNIX,
            Socket::Inet(socket) if socket.is_v6() => linux::AF_INET6,
            Socket::Inet(_) => linux::AF_INET,
            Socket::Netlink(_) => linux::AF_NETLINK,
        }
    }

    /// SOCK_*.
    pub fn kind(&self) -> u32 {
        match &self.socket {
            Socket::Unix(socket) => match socket.kind() {
                unix::Kind::Stream => linux::SOCK_STREAM,
                unix::Kind::Datagram => linux::SOCK_DGRAM,
                unix::Kind::SeqPacket => linux::SOCK_SEQPACKET,
            },
            Socket::Inet(socket) if socket.kind() == Kind::Tcp => linux::SOCK_STREAM,
            Socket::Inet(_) => linux::SOCK_DGRAM,
            Socket::Netlink(_) => linux::SOCK_RAW,
        }
    }

    /// A stream of bytes, without message boundaries.
    pub fn is_stream(&self) -> bool {
        self.kind() == linux::SOCK_STREAM
    }

    /// FIONREAD: bytes that a read would find. `None` when that is not known beforehand.
    pub fn available(&self) -> Option<usize> {
        match &self.socket {
            Socket::Unix(socket) => Some(socket.bytes_available()),
            Socket::Inet(socket) => Some(socket.bytes_available()),
            Socket::Netlink(_) => None,
        }
    }

    /// Receives what is there; `EAGAIN` when nothing is.
    pub fn receive(&self, out: &mut [&mut [u8]], peek: bool) -> Result<Received> {
        answer(match &self.socket {
            Socket::Unix(socket) => socket.receive(out, peek),
            Socket::Inet(socket) => {
                let received = socket.receive(out, peek);
                watch();
                received
            }
            Socket::Netlink(socket) => socket.receive(out, peek),
        })
    }

    /// Sends what there is room for; `EAGAIN` when there is none.
    pub fn send(
        &self,
        data: &[&[u8]],
        to: Option<&Address>,
        ancillary: &Ancillary,
    ) -> Result<usize> {
        match &self.socket {
            Socket::Unix(socket) => {
                let target = match to {
                    // A stream refuses any address: it need not lead anywhere.
                    Some(_) if socket.kind() != unix::Kind::Datagram => Some(Target {
                        name: UnixName::Unnamed,
                        inode: None,
                    }),
                    Some(to) => Some(target(to)?),
                    None => None,
                };
                answer(socket.send(data, target.as_ref(), ancillary.clone()))
            }
            Socket::Inet(socket) => {
                let sent = socket.send(data, to, ancillary);
                watch();
                answer(sent)
            }
            Socket::Netlink(socket) => answer(socket.send(data)),
        }
    }

    fn interface_ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        let mut request = [0; IFREQ];
        memory.read(argument, &mut request)?;
        answer(net().interface_ioctl(command, &mut request))?;
        memory.write(argument, &request).map(|()| 0)
    }
}

/// SIOCGIFCONF: a `struct ifconf`, whose length alone is answered when it has no buffer.
fn interface_list(argument: u64, memory: &dyn UserMemory) -> Result<u64> {
    let mut head = [0; 16];
    memory.read(argument, &mut head)?;
    let list = net().interface_list();
    let (room, buffer) = head.split_at(8);
    let room = i32::from_le_bytes([room[0], room[1], room[2], room[3]]).max(0) as usize;
    let buffer = buffer
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let len = if buffer == 0 {
        list.len()
    } else {
        list.len().min(room / IFREQ * IFREQ)
    };
    if buffer != 0 {
        memory.write(buffer, &list[..len])?;
    }
    memory
        .write(argument, &(len as i32).to_le_bytes())
        .map(|()| 0)
}

/// Finds out whom an AF_UNIX address means. A path leads to a socket inode: `ECONNREFUSED` when it is something else.
pub fn target(address: &Address) -> Result<Target> {
    let Address::Unix(name) = address else {
        return Err(Errno::EINVAL);
    };
    let UnixName::Path(path) = name else {
        return Ok(Target {
            name: name.clone(),
            inode: None,
        });
    };
    let vfs = vfs();
    let node = vfs.find(AT_FDCWD, path, 0)?.into_node()?;
    vfs.permit(&*node, cred::WRITE)?;
    if node.kind() != FileType::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    Ok(Target {
        name: name.clone(),
        inode: Some((node.dev(), node.ino())),
    })
}

impl FileLike for SocketFile {
    fn metadata(&self) -> Metadata {
        anon::metadata(
            SOCKET_DEV,
            self.ino,
            FileType::Socket.mode() | self.mode.get(),
            self.born,
        )
    }

    fn set_mode(&self, mode: u32) {
        self.mode.set(mode);
    }

    fn label(&self) -> Vec<u8> {
        format!("socket:[{}]", self.ino).into_bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        self.receive(&mut [out], false).map(|received| received.len)
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        self.send(&[data], None, &Ancillary::default())
    }

    fn poll(&self) -> u32 {
        match &self.socket {
            Socket::Unix(socket) => socket.poll(),
            Socket::Inet(socket) => socket.poll(),
            Socket::Netlink(socket) => socket.poll(),
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.events.0)
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        let count = match command {
            io::FIONREAD => self.available().ok_or(Errno::ENOTTY)?,
            io::TIOCOUTQ => match &self.socket {
                Socket::Inet(socket) => socket.bytes_unsent(),
                _ => return Err(Errno::ENOTTY),
            },
            // There is no urgent data, so the mark is never passed.
            io::SIOCATMARK if self.is_stream() => 0,
            io::SIOCGIFCONF => return interface_list(argument, memory),
            _ => return self.interface_ioctl(command, argument, memory),
        };
        memory
            .write(argument, &(count as i32).to_le_bytes())
            .map(|()| 0)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        match &self.socket {
            Socket::Unix(socket) => socket.close(),
            Socket::Inet(socket) => {
                socket.close();
                watch();
            }
            Socket::Netlink(_) => {}
        }
    }
}
