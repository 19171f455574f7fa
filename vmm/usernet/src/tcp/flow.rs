//! One TCP connection: [`Flow`], and the moving of bytes between its two ends.

use mio::net::TcpStream;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

/// The two ends as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub guest: SocketAddr,
    pub remote: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest waits for the host's connection.
    Connecting,
    /// The handshake with the guest is under way.
    Handshake,
    Open,
}

pub struct Flow {
    pub key: Key,
    /// Tells flows apart that had the same place in the table.
    pub serial: u64,
    pub phase: Phase,
    pub sockets: SocketSet<'static>,
    pub handle: SocketHandle,
    pub host: TcpStream,
    /// The host's socket may have something to read, may take something. Cleared by "would block".
    pub readable: bool,
    pub writable: bool,
    /// The host sends no more; the guest sends no more (and the host was told).
    pub host_done: bool,
    pub guest_done: bool,
    /// Is in the line of those that wait for room at the guest.
    pub stalled: bool,
    /// Bytes of both buffers.
    pub memory: usize,
    pub expires: Option<Instant>,
    pub deadline: Option<Instant>,
}

impl Flow {
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// Bytes of the guest to the host. True when any moved.
pub fn to_host(flow: &mut Flow) -> bool {
    let socket = flow.sockets.get_mut::<Socket<'static>>(flow.handle);
    let mut moved = false;
    while flow.writable && socket.can_recv() {
        let host = &mut flow.host;
        let written = socket.recv(|bytes| match host.write(bytes) {
            Ok(n) => (n, Ok(n)),
            Err(error) => (0, Err(error.kind())),
        });
        match written {
            Ok(Ok(n)) if n > 0 => moved = true,
            Ok(Err(ErrorKind::WouldBlock)) => flow.writable = false,
            Ok(Err(ErrorKind::Interrupted)) => {}
            _ => {
                fail(flow);
                return true;
            }
        }
    }
    let finished = !socket.may_recv()
        && !socket.can_recv()
        && matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
    if finished && !flow.guest_done {
        flow.guest_done = true;
        let _ = flow.host.shutdown(Shutdown::Write);
    }
    moved
}

/// Bytes of the host to the guest. True when any moved.
pub fn to_guest(flow: &mut Flow) -> bool {
    let socket = flow.sockets.get_mut::<Socket<'static>>(flow.handle);
    let mut moved = false;
    while flow.readable && !flow.host_done && socket.can_send() {
        let host = &mut flow.host;
        let read = socket.send(|room| match host.read(room) {
            Ok(n) => (n, Ok(n)),
            Err(error) => (0, Err(error.kind())),
        });
        match read {
            Ok(Ok(0)) => {
                flow.host_done = true;
                socket.close();
                return true;
            }
            Ok(Ok(_)) => moved = true,
            Ok(Err(ErrorKind::WouldBlock)) => flow.readable = false,
            Ok(Err(ErrorKind::Interrupted)) => {}
            _ => {
                fail(flow);
                return true;
            }
        }
    }
    moved
}

/// The host's connection broke: so does the guest's. What the guest still has in the buffer goes nowhere; trying again would fail for ever.
fn fail(flow: &mut Flow) {
    (flow.readable, flow.writable) = (false, false);
    flow.socket().abort();
}
