//! The network stack behind the sockets: [`Stack`], all tables in one place, borrowed by one operation at a time.
//!
//! smoltcp does TCP, ARP, neighbour discovery, DHCP, SLAAC and reassembly. Every TCP connection has a smoltcp socket set of its own:
//! a packet is given to the one connection it belongs to, so its cost does not grow with their number.
//!
//! - `link`, `port`, `neighbour`: network cards and the loopback. - `route`: where packets go. - `demux`: where they come to.
//! - `conn`, `listen`: TCP. - `datagram`: UDP and ICMP. - `ports`: who has which port. - `timers`: what is due when.

pub(crate) mod conn;
pub(crate) mod datagram;
mod demux;
pub(crate) mod link;
pub(crate) mod listen;
mod neighbour;
mod port;
pub(crate) mod ports;
mod route;
mod timers;

use crate::errno::Errno;
use crate::host::Host;
use crate::inet::options::Options;
use crate::ready::{self, Hook};
use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use conn::{Conn, Key};
use core::cmp::Reverse;
use core::net::SocketAddr;
use datagram::Mailbox;
use hashbrown::HashMap;
use link::Link;
use ports::Proto;
use slab::Slab;
use smoltcp::iface::SocketSet;

/// Bounds on what the network can hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of TCP buffers that each connection always gets (both directions together).
    pub tcp_floor: usize,
    /// Bytes of TCP buffers that a connection gets while there are few.
    pub tcp_default: usize,
    /// Bytes that all connections share above their floors.
    pub tcp_pool: usize,
    /// Connections at once, those of no socket any more included.
    pub tcp_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_floor: 32 << 10,
            tcp_default: 512 << 10,
            tcp_pool: 64 << 20,
            tcp_connections: 16_384,
        }
    }
}

/// What an internet socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SOCK_STREAM.
    Tcp,
    /// SOCK_DGRAM.
    Udp,
    /// SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6.
    Ping,
}

/// What a socket is doing.
pub(crate) enum Role {
    Idle,
    Listener(listen::Listener),
    Connection(usize),
    Mailbox(Mailbox),
}

/// A socket that a descriptor refers to.
pub(crate) struct Sock {
    pub kind: Kind,
    /// An AF_INET6 socket.
    pub v6: bool,
    pub options: Options,
    /// Bound address; IPv4 in IPv6 is stored as IPv4.
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub role: Role,
    pub error: Option<Errno>,
    pub shut_read: bool,
    pub shut_write: bool,
    /// Somebody found no room to send.
    pub blocked: bool,
    pub hook: Option<Weak<dyn Hook>>,
    /// Number of the file that it is.
    pub inode: u64,
}

/// Everything.
pub struct Stack {
    pub(crate) host: Rc<dyn Host>,
    pub(crate) limits: Limits,
    pub(crate) links: Vec<Link>,
    pub(crate) sockets: Slab<Sock>,
    pub(crate) conns: Slab<Conn>,
    pub(crate) flows: HashMap<Key, usize>,
    pub(crate) ports: BTreeMap<(Proto, u16), Vec<usize>>,
    pub(crate) timers: BinaryHeap<Reverse<(u64, usize, u64)>>,
    /// Connections that a packet or a call has touched.
    pub(crate) dirty: VecDeque<usize>,
    pub(crate) wakes: Vec<(Weak<dyn Hook>, u32)>,
    pub(crate) nobody: SocketSet<'static>,
    pub(crate) pool_used: usize,
    /// Sockets of finished connections, for their buffers.
    pub(crate) spares: Vec<smoltcp::socket::tcp::Socket<'static>>,
    pub(crate) serial: u64,
    pub(crate) next_port: u16,
    pub(crate) counters: Counters,
}

/// What the stack has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames received from all cards.
    pub received: u64,
    /// Frames dropped as malformed or for a wrong checksum.
    pub malformed: u64,
    /// Connection requests dropped because a backlog was full.
    pub backlog_full: u64,
    /// Datagrams dropped because a socket's buffer was full.
    pub buffer_full: u64,
}

impl Stack {
    /// A stack with the loopback link only.
    pub(crate) fn new(host: Rc<dyn Host>, limits: Limits) -> Self {
        let loopback = Link::loopback(host.random());
        let next_port = host.random() as u16;
        Self {
            host,
            limits,
            links: alloc::vec![loopback],
            sockets: Slab::new(),
            conns: Slab::new(),
            flows: HashMap::new(),
            ports: BTreeMap::new(),
            timers: BinaryHeap::new(),
            dirty: VecDeque::new(),
            wakes: Vec::new(),
            nobody: SocketSet::new(Vec::new()),
            pool_used: 0,
            spares: Vec::new(),
            serial: 0,
            next_port,
            counters: Counters::default(),
        }
    }

    /// Now, for smoltcp.
    pub(crate) fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros((self.host.now() / 1000) as i64)
    }

    /// Notes that the readiness of socket `id` may have changed.
    pub(crate) fn wake(&mut self, id: usize, mask: u32) {
        if let Some(hook) = self.sockets.get(id).and_then(|sock| sock.hook.clone()) {
            self.wakes.push((hook, mask));
        }
    }

    /// Sets the standing error of socket `id`.
    pub(crate) fn fail(&mut self, id: usize, error: Errno) {
        if let Some(sock) = self.sockets.get_mut(id) {
            sock.error = Some(error);
        }
        self.wake(id, ready::ERR | ready::IN | ready::OUT);
    }

    /// Works until nothing moves: connections touched, packets on the loopback. Ends every operation.
    pub(crate) fn settle(&mut self) {
        loop {
            if let Some(conn) = self.dirty.pop_front() {
                self.pump(conn);
            } else if let Some(packet) = self.links[0].take_looped() {
                self.ingress_looped(&packet);
            } else {
                break;
            }
        }
        for link in &mut self.links {
            link.flush();
        }
    }
}
