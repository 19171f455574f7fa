//! Host ports that lead to the guest: [`ForwardTable`].

use crate::config::{Config, Forward, Protocol, UserNetError};
use crate::flows::{Ctx, Source};
use crate::tcp::TcpTable;
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry};
use socket2::SockRef;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Connections that may wait to be taken; the kernel has a limit of its own (`net.core.somaxconn`). mio asks for 128.
const BACKLOG: i32 = 4096;
/// Peers of one UDP forward that the guest can answer.
const MAX_PEERS: usize = 1024;
/// Connections or datagrams taken before others get their turn.
const BURST: usize = 64;

enum Listener {
    Tcp(TcpListener),
    Udp {
        socket: UdpSocket,
        /// What the guest calls a peer, and its host address; newest last.
        peers: VecDeque<(SocketAddr, SocketAddr)>,
    },
}

struct Entry {
    listener: Listener,
    guest: SocketAddr,
    /// There may be more than was taken.
    pending: bool,
}

/// All forwards.
pub struct ForwardTable {
    entries: Vec<Entry>,
    buffer: Vec<u8>,
}

impl ForwardTable {
    /// Binds all host addresses.
    pub fn new(config: &Config, registry: &Registry) -> Result<Self, UserNetError> {
        let mut entries = Vec::new();
        for (i, forward) in config.forwards.iter().enumerate() {
            let fail = |source| UserNetError::Bind {
                addr: forward.host,
                source,
            };
            let listener = listen(forward, registry, i).map_err(fail)?;
            let guest = SocketAddr::new(config.guest_v4.into(), forward.guest_port);
            entries.push(Entry {
                listener,
                guest,
                pending: false,
            });
        }
        let udp = config.forwards.iter().any(|f| f.protocol == Protocol::Udp);
        Ok(Self {
            entries,
            buffer: vec![0; if udp { 65_536 } else { 0 }],
        })
    }

    /// The host addresses in use, in the order of the configuration (a port 0 was replaced by what the host chose).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let local = |entry: &Entry| match &entry.listener {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Udp { socket, .. } => socket.local_addr(),
        };
        self.entries
            .iter()
            .map(|entry| local(entry).unwrap_or(unknown))
            .collect()
    }

    /// Listener `at` has something.
    pub fn event(&mut self, at: usize) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.pending = true;
        }
    }

    /// True when [`Self::resume`] has something to do while there is room.
    pub fn has_pending(&self) -> bool {
        self.entries.iter().any(|entry| entry.pending)
    }

    /// Takes connections and datagrams as far as there is room.
    pub fn resume(&mut self, ctx: &mut Ctx<'_>, tcp: &mut TcpTable) {
        for entry in self.entries.iter_mut().filter(|entry| entry.pending) {
            entry.pending = match &mut entry.listener {
                Listener::Tcp(listener) => accept(ctx, tcp, listener, entry.guest),
                Listener::Udp { socket, peers } => {
                    receive(ctx, socket, peers, entry.guest, &mut self.buffer)
                }
            };
        }
    }

    /// Sends a datagram of the guest out of the forward it answers to. True when there is one.
    pub fn answer(&mut self, guest: SocketAddr, dst: SocketAddr, payload: &[u8]) -> bool {
        for entry in self.entries.iter_mut().filter(|entry| entry.guest == guest) {
            if let Listener::Udp { socket, peers } = &mut entry.listener
                && let Some(&(_, host)) = peers.iter().rev().find(|peer| peer.0 == dst)
            {
                let _ = socket.send_to(payload, host);
                return true;
            }
        }
        false
    }
}

fn listen(forward: &Forward, registry: &Registry, at: usize) -> std::io::Result<Listener> {
    let token = Source::Forward(at).token();
    Ok(match forward.protocol {
        Protocol::Tcp => {
            let mut listener = TcpListener::bind(forward.host)?;
            SockRef::from(&listener).listen(BACKLOG)?;
            registry.register(&mut listener, token, Interest::READABLE)?;
            Listener::Tcp(listener)
        }
        Protocol::Udp => {
            let mut socket = UdpSocket::bind(forward.host)?;
            registry.register(&mut socket, token, Interest::READABLE)?;
            Listener::Udp {
                socket,
                peers: VecDeque::new(),
            }
        }
    })
}

/// Accepts connections; true when more may be waiting.
fn accept(
    ctx: &mut Ctx<'_>,
    tcp: &mut TcpTable,
    listener: &TcpListener,
    guest: SocketAddr,
) -> bool {
    for _ in 0..BURST {
        if !tcp.has_room(ctx) || !ctx.out.ready() {
            return true;
        }
        match listener.accept() {
            Ok((stream, peer)) => tcp.accept(ctx, stream, peer, guest),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            // A connection that was gone before it was taken, or no file descriptors: the next one may work.
            Err(_) => ctx.stats.refused += 1,
        }
    }
    true
}

/// Takes datagrams; true when more may be waiting.
fn receive(
    ctx: &mut Ctx<'_>,
    socket: &UdpSocket,
    peers: &mut VecDeque<(SocketAddr, SocketAddr)>,
    guest: SocketAddr,
    buffer: &mut [u8],
) -> bool {
    for _ in 0..BURST {
        if !ctx.out.ready() {
            return true;
        }
        let Ok((len, host)) = socket.recv_from(buffer) else {
            return false;
        };
        let seen = SocketAddr::new(ctx.policy.seen_by_guest(host), host.port());
        if peers.back() != Some(&(seen, host)) {
            peers.retain(|peer| peer.0 != seen);
            peers.push_back((seen, host));
            if peers.len() > MAX_PEERS {
                peers.pop_front();
            }
        }
        ctx.out.udp(seen, guest, &buffer[..len]);
    }
    true
}
