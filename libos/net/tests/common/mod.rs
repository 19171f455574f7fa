//! Two machines on a wire, and shorthands for their sockets.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};
use unik_net::addr::Address;
use unik_net::message::{Ancillary, Credentials};
use unik_net::{
    DeviceInfo, Errno, Hook, Host, InetSocket, Limits, LinkSetup, Net, PacketDevice, Socket,
    TxOffload,
};

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const STREAM: u32 = 1;
pub const DGRAM: u32 = 2;

/// Real time, moved forward at will, and a poor generator.
pub struct TestHost {
    start: Instant,
    skipped: Rc<Cell<u64>>,
    state: Cell<u64>,
    /// Each look at the clock takes up to so many nanoseconds.
    slow: u64,
}

impl Host for TestHost {
    fn now(&self) -> u64 {
        if self.slow > 0 {
            self.skipped
                .set(self.skipped.get() + self.random() % self.slow);
        }
        self.start.elapsed().as_nanos() as u64 + self.skipped.get() + 1_000_000_000
    }

    fn realtime(&self) -> u64 {
        1_700_000_000_000_000_000 + self.now()
    }

    fn random(&self) -> u64 {
        self.state.set(
            self.state
                .get()
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        );
        self.state.get() ^ self.state.get() >> 29
    }
}

/// A network on its own, with a clock that tests can move.
pub fn machine(seed: u64, limits: Limits) -> (Rc<Net>, Rc<Cell<u64>>) {
    slow_machine(seed, limits, 0)
}

/// The same, where each look at the clock takes up to `slow` nanoseconds.
pub fn slow_machine(seed: u64, limits: Limits, slow: u64) -> (Rc<Net>, Rc<Cell<u64>>) {
    let skipped = Rc::new(Cell::new(0));
    let host = TestHost {
        start: Instant::now(),
        skipped: skipped.clone(),
        state: Cell::new(seed),
        slow,
    };
    (Net::new(Rc::new(host), limits), skipped)
}

pub type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a wire. Drops every `lose`th frame when that is set.
pub struct Card {
    info: DeviceInfo,
    inbound: Frames,
    outbound: Frames,
    lose: Option<u32>,
    count: u32,
}

impl PacketDevice for Card {
    fn info(&self) -> DeviceInfo {
        self.info
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> bool {
        let Some(frame) = self.inbound.borrow_mut().pop_front() else {
            return false;
        };
        take(&frame, self.info.checksum);
        true
    }

    fn ready(&mut self) -> bool {
        self.outbound.borrow().len() < 256
    }

    fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxOffload) {
        let mut frame = vec![0; len];
        let offload = fill(&mut frame);
        assert!(offload.segment.is_none() || offload.header_len >= 54);
        assert!(
            len <= self.info.mtu + 14 || offload.segment.is_some(),
            "{len} bytes at MTU {}",
            self.info.mtu
        );
        self.count += 1;
        if self.lose.is_none_or(|n| !self.count.is_multiple_of(n)) {
            self.outbound.borrow_mut().push_back(frame);
        }
    }

    fn flush(&mut self) {}
}

/// Two machines, 10.0.0.1 / fd00::1 and 10.0.0.2 / fd00::2.
pub struct Pair {
    pub a: Rc<Net>,
    pub b: Rc<Net>,
    pub clock_a: Rc<Cell<u64>>,
    pub clock_b: Rc<Cell<u64>>,
    /// Frames on their way from `b` to `a`.
    pub to_a: Frames,
}

impl Pair {
    pub fn new(mtu: usize, offloads: bool, lose: Option<u32>) -> Self {
        let (x, y) = (Frames::default(), Frames::default());
        let (a, clock_a) = machine(1, Limits::default());
        let (b, clock_b) = machine(2, Limits::default());
        for (net, last, inbound, outbound) in [(&a, 1, &x, &y), (&b, 2, &y, &x)] {
            let info = DeviceInfo {
                mac: [2, 0, 0, 0, 0, last],
                mtu,
                checksum: offloads,
                tso4: offloads,
                lossy: lose.is_some(),
            };
            let card = Card {
                info,
                inbound: inbound.clone(),
                outbound: outbound.clone(),
                lose,
                count: 0,
            };
            let setup = LinkSetup {
                name: "eth0".into(),
                addresses: vec![
                    ([10, 0, 0, last].into(), 24),
                    (format!("fd00::{last}").parse().unwrap(), 64),
                ],
                gateway_v4: Some([10, 0, 0, 3 - last].into()),
                ..LinkSetup::default()
            };
            assert_eq!(net.add_link(Box::new(card), &setup), 2);
        }
        Self {
            a,
            b,
            clock_a,
            clock_b,
            to_a: x,
        }
    }

    pub fn step(&self) {
        self.a.poll();
        self.b.poll();
    }

    /// Lets `time` pass at once.
    pub fn skip(&self, time: Duration) {
        for clock in [&self.clock_a, &self.clock_b] {
            clock.set(clock.get() + time.as_nanos() as u64);
        }
    }

    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            self.step();
            assert!(Instant::now() < end, "time is up: {what}");
        }
    }
}

/// Collects wake-ups.
#[derive(Default)]
pub struct Seen(pub Cell<u32>);

impl Hook for Seen {
    fn wake(&self, mask: u32) {
        self.0.set(self.0.get() | mask);
    }
}

pub fn watch(socket: &InetSocket) -> (Rc<Seen>, Rc<dyn Hook>) {
    let seen = Rc::new(Seen::default());
    let hook: Rc<dyn Hook> = seen.clone();
    socket.set_hook(&hook);
    (seen, hook)
}

pub fn inet(net: &Rc<Net>, family: u32, kind: u32) -> Rc<InetSocket> {
    match net.socket(family, kind, 0, Credentials::default()).unwrap() {
        Socket::Inet(socket) => socket,
        _ => unreachable!("an internet socket was asked for"),
    }
}

pub fn at(text: &str) -> Address {
    Address::Inet(text.parse().unwrap())
}

pub fn port_of(address: &Address) -> u16 {
    match address {
        Address::Inet(addr) => addr.port(),
        _ => 0,
    }
}

pub fn send(socket: &InetSocket, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&[bytes], None, &Ancillary::default())
}

pub fn send_to(socket: &InetSocket, bytes: &[u8], to: &str) -> Result<usize, Errno> {
    socket.send(&[bytes], Some(&at(to)), &Ancillary::default())
}

pub fn receive(socket: &InetSocket, room: usize) -> Result<Vec<u8>, Errno> {
    receive_from(socket, room).map(|r| r.0)
}

pub fn receive_from(socket: &InetSocket, room: usize) -> Result<(Vec<u8>, Option<Address>), Errno> {
    let mut buf = vec![0; room];
    let received = socket.receive(&mut [&mut buf], false)?;
    buf.truncate(received.len);
    Ok((buf, received.from))
}

pub fn listener(net: &Rc<Net>, family: u32, address: &str) -> (Rc<InetSocket>, u16) {
    let socket = inet(net, family, STREAM);
    socket.bind(&at(address)).unwrap();
    socket.listen(128).unwrap();
    let port = port_of(&socket.local_address());
    (socket, port)
}

/// A connection on the loopback: the listening socket and both ends.
pub fn connected(net: &Rc<Net>) -> (Rc<InetSocket>, Rc<InetSocket>, Rc<InetSocket>) {
    let (server, port) = listener(net, AF_INET, "127.0.0.1:0");
    let client = inet(net, AF_INET, STREAM);
    client.connect(&at(&format!("127.0.0.1:{port}"))).unwrap();
    let (accepted, _) = server.accept().unwrap();
    (server, client, accepted)
}

/// Byte `i` of a stream.
pub fn byte_at(i: usize) -> u8 {
    ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8
}
