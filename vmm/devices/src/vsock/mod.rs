//! virtio-vsock (specification 5.10): byte streams between ports of the guest and streams of the host.
//!
//! [`Vsock`] holds the connections; the host's ends are [`Stream`]s, and [`Host`] makes one when the guest asks for a port. Nothing
//! here blocks: somebody watches the streams as [`Mmio::interests`] says, marks those that are ready with [`Mmio::wake`], and calls
//! [`Mmio::serve`]. Each connection holds at most [`connection::ROOM`] bytes, and there are at most [`CONNECTIONS`]; a guest that
//! sends more than it has credit for loses the connection.
//!
//! [`packet`]: headers. [`connection`]: credit, shutdown, order of packets.

pub mod connection;
pub mod packet;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};

use vm_memory::GuestMemoryMmap;

use crate::virtio::mmio::Mmio;
use crate::virtio::ring::{Chain, Ring, take_bytes};
use crate::virtio::{Broken, Device};
use connection::{Connection, Interest, Over, ROOM};
use packet::{HEADER_LEN, Header, Id, Op};

/// Queue that carries packets to the guest.
pub const RECEIVE: usize = 0;
/// Queue that carries packets from the guest.
pub const TRANSMIT: usize = 1;

/// The context id of a guest when nobody says otherwise.
pub const GUEST_CID: u32 = 3;

/// Most connections at a time.
pub const CONNECTIONS: usize = 128;

/// Most resets that wait for room in the guest; with more, its own packets wait.
const RESETS: usize = 64;

/// Most packets in one go, so that nobody waits long for the device.
const PACKETS: usize = 64;

/// Most bytes of a packet to the guest.
const PAYLOAD: usize = 64 << 10;

/// First of the ports that the host's connections get.
const FIRST_PORT: u32 = 1 << 30;

/// VIRTIO_VSOCK_F_STREAM.
const F_STREAM: u64 = 1;

/// The host's end of a connection. No call blocks: what cannot be done now is [`io::ErrorKind::WouldBlock`].
pub trait Stream: Read + Write {
    /// The guest accepted the connection, which is called `id` from now on.
    fn opened(&mut self, id: Id) -> io::Result<()>;
    /// The guest will send no more, and all that it sent was written.
    fn finish(&mut self);
}

/// Where the guest's connections go.
pub trait Host {
    /// The host's end of a connection.
    type Stream: Stream;
    /// A stream to this port of the host, `None` when nobody listens there.
    fn connect(&mut self, port: u32) -> Option<Self::Stream>;
}

/// Plain data of a device: all that is not a connection's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    cid: u64,
    /// Resets of connections that are gone.
    resets: VecDeque<Id>,
    /// A chain taken from the queue for a packet that did not come.
    spare: Option<Chain>,
    next_port: u32,
    /// Whose turn it is to send.
    turn: Option<Id>,
}

/// The device.
#[derive(Debug)]
pub struct Vsock<H: Host> {
    host: H,
    state: State,
    connections: BTreeMap<Id, Connection<H::Stream>>,
    payload: Vec<u8>,
}

impl<H: Host> Vsock<H> {
    /// A device for the guest with this context id.
    pub fn new(host: H, cid: u32) -> Self {
        Self {
            host,
            state: State {
                cid: cid.into(),
                ..State::default()
            },
            connections: BTreeMap::new(),
            payload: Vec::new(),
        }
    }
}

impl<H: Host> Device for Vsock<H> {
    const KIND: u32 = 19;
    const FEATURES: u64 = F_STREAM;
    const QUEUES: &'static [u16] = &[256, 256, 16];

    fn config(&self) -> Vec<u8> {
        self.state.cid.to_le_bytes().to_vec()
    }

    fn reset(&mut self) {
        self.connections.clear();
        self.state = State {
            cid: self.state.cid,
            ..State::default()
        };
    }
}

impl<H: Host> Mmio<Vsock<H>> {
    /// Asks the guest for a connection to its `port`; `false`: it has no driver yet, or too many connections.
    pub fn connect(&mut self, port: u32, stream: H::Stream) -> bool {
        self.work(|vsock, _| Ok((vsock.want(port, stream), false)))
            .unwrap_or(false)
    }

    /// Moves packets in both directions. `true`: there is more, come back at once.
    pub fn serve(&mut self, mem: &GuestMemoryMmap) -> bool {
        self.work(|vsock, rings| vsock.serve(rings, mem))
            .unwrap_or(false)
    }

    /// What every stream is to be watched for.
    pub fn interests(&self) -> impl Iterator<Item = (Id, &H::Stream, Interest)> {
        let all = self.device().connections.iter();
        all.map(|(id, connection)| (*id, connection.stream(), connection.interest()))
    }

    /// A stream has become ready for this. One that hung up before the guest answered is gone.
    pub fn wake(&mut self, id: Id, ready: Interest) {
        self.work(|vsock, _| {
            if let Some(connection) = vsock.connections.get_mut(&id) {
                if ready.hang_up && connection.interest().hang_up {
                    vsock.close(id, Over { tell: true });
                } else {
                    connection.wake(ready);
                }
            }
            Ok(((), false))
        });
    }
}

impl<H: Host> Vsock<H> {
    fn want(&mut self, port: u32, stream: H::Stream) -> bool {
        if self.connections.len() >= CONNECTIONS {
            return false;
        }
        let id = loop {
            let id = Id {
                host: FIRST_PORT | self.state.next_port,
                guest: port,
            };
            self.state.next_port = (self.state.next_port + 1) % FIRST_PORT;
            if !self.connections.contains_key(&id) {
                break id;
            }
        };
        self.connections.insert(id, Connection::wanted(stream));
        true
    }

    fn serve(&mut self, rings: &mut [Ring], mem: &GuestMemoryMmap) -> Result<(bool, bool), Broken> {
        let (receive, transmit) = rings.split_at_mut(TRANSMIT);
        let (to, from) = (&mut receive[RECEIVE], &mut transmit[0]);
        let mut budget = PACKETS;
        let taken = self.take_packets(from, mem, &mut budget)?;
        self.deliver();
        let given = self.give_packets(to, mem, &mut budget)?;
        let mut raise = taken && from.wants_interrupt(mem)?;
        raise |= given && to.wants_interrupt(mem)?;
        let more = budget == 0 || self.idle(to, from, mem)?;
        Ok((more, raise))
    }

    /// Asks the driver to ring for what is missing. `true`: something is there already.
    fn idle(&self, to: &mut Ring, from: &mut Ring, mem: &GuestMemoryMmap) -> Result<bool, Broken> {
        let wants_room = self.has_news() && self.state.spare.is_none();
        let room = wants_room && to.listen(mem)?;
        let packets = self.state.resets.len() < RESETS && from.listen(mem)?;
        Ok(room || packets)
    }

    fn has_news(&self) -> bool {
        !self.state.resets.is_empty() || self.connections.values().any(Connection::has_news)
    }

    fn close(&mut self, id: Id, over: Over) {
        self.connections.remove(&id);
        if over.tell {
            self.state.resets.push_back(id);
        }
    }

    /// Takes what the guest sent. `true`: it gets chains back.
    fn take_packets(
        &mut self,
        ring: &mut Ring,
        mem: &GuestMemoryMmap,
        budget: &mut usize,
    ) -> Result<bool, Broken> {
        let mut taken = false;
        ring.quiet(mem)?;
        while *budget > 0 && self.state.resets.len() < RESETS {
            let Some(chain) = ring.pop(mem)? else { break };
            *budget -= 1;
            taken = true;
            let head = chain.head;
            self.take_packet(chain, mem)?;
            ring.push(mem, head, 0)?;
        }
        Ok(taken)
    }

    fn take_packet(&mut self, mut chain: Chain, mem: &GuestMemoryMmap) -> Result<(), Broken> {
        let bytes = take_bytes(&mut chain.readable, mem, HEADER_LEN)?;
        let bytes: &[u8; HEADER_LEN] = bytes.as_slice().try_into().map_err(|_| Broken)?;
        // What is from or for somebody else is nobody's business here.
        let Some(header) = Header::read(bytes, self.state.cid) else {
            return Ok(());
        };
        // More than any credit allows is not even looked at.
        let excess = header.len > ROOM;
        let len = if excess { 0 } else { header.len as usize };
        let payload = take_bytes(&mut chain.readable, mem, len)?;
        let known = self.connections.get_mut(&header.id);
        match (known, header.op) {
            (Some(_), _) if excess => self.close(header.id, Over { tell: true }),
            (Some(connection), _) => {
                if let Err(over) = connection.receive(&header, &payload) {
                    self.close(header.id, over);
                }
            }
            (None, Some(Op::Request)) => self.accept(&header),
            (None, Some(Op::Reset)) => {}
            (None, _) => self.state.resets.push_back(header.id),
        }
        Ok(())
    }

    fn accept(&mut self, header: &Header) {
        let full = self.connections.len() >= CONNECTIONS;
        let stream = if full {
            None
        } else {
            self.host.connect(header.id.host)
        };
        match stream {
            Some(stream) => {
                let connection = Connection::accepted(stream, header);
                self.connections.insert(header.id, connection);
            }
            None => self.state.resets.push_back(header.id),
        }
    }

    /// Gives the host's streams what waits for them.
    fn deliver(&mut self) {
        let mut over = Vec::new();
        for (id, connection) in &mut self.connections {
            over.extend(connection.deliver().err().map(|why| (*id, why)));
        }
        over.into_iter().for_each(|(id, why)| self.close(id, why));
    }

    /// Gives the guest what there is for it, each connection in its turn. `true`: it got chains.
    fn give_packets(
        &mut self,
        ring: &mut Ring,
        mem: &GuestMemoryMmap,
        budget: &mut usize,
    ) -> Result<bool, Broken> {
        let mut given = false;
        ring.quiet(mem)?;
        while *budget > 0 && self.has_news() {
            let chain = match self.state.spare.take() {
                Some(chain) => chain,
                None => match ring.pop(mem)? {
                    Some(chain) => chain,
                    None => break,
                },
            };
            let room: usize = chain.writable.iter().map(|s| s.len() as usize).sum();
            // A buffer that holds no packet at all is a driver's mistake.
            let room = room.checked_sub(HEADER_LEN + 1).ok_or(Broken)? + 1;
            let Some(header) = self.next_packet(room.min(PAYLOAD)) else {
                self.state.spare = Some(chain);
                break;
            };
            *budget -= 1;
            given = true;
            self.write_packet(ring, mem, chain, &header)?;
        }
        Ok(given)
    }

    /// The next packet; its payload is in `self.payload`.
    fn next_packet(&mut self, room: usize) -> Option<Header> {
        self.payload.clear();
        loop {
            if let Some(id) = self.state.resets.pop_front() {
                return Some(Header::new(id, Op::Reset));
            }
            let id = self.whose_turn()?;
            self.state.turn = Some(id);
            let connection = self.connections.get_mut(&id)?;
            match connection.tell(id, &mut self.payload, room) {
                Ok(Some(header)) => return Some(header),
                Ok(None) => {}
                Err(over) => self.close(id, over),
            }
        }
    }

    /// The connection after the last one that had its turn, of those with news.
    fn whose_turn(&self) -> Option<Id> {
        use std::ops::Bound::{Excluded, Unbounded};
        let news =
            |(id, connection): (&Id, &Connection<H::Stream>)| connection.has_news().then_some(*id);
        let after = self.state.turn.map_or(Unbounded, Excluded);
        let mut rest = self.connections.range((after, Unbounded));
        rest.find_map(news)
            .or_else(|| self.connections.iter().find_map(news))
    }

    fn write_packet(
        &self,
        ring: &mut Ring,
        mem: &GuestMemoryMmap,
        mut chain: Chain,
        header: &Header,
    ) -> Result<(), Broken> {
        let head = header.write(self.state.cid);
        for mut part in [&head[..], &self.payload] {
            for segment in &mut chain.writable {
                part = &part[segment.write_front(mem, part)?..];
            }
        }
        let written = head.len() + self.payload.len();
        ring.push(mem, chain.head, written as u32)
    }
}

#[cfg(test)]
mod tests;
