//! A guest made of smoltcp, wired to a user network in one thread: [`Lab`].
#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use unik_usernet::{Config, FrameSink, GuestOffloads, Offload, UserNet};

pub const GUEST_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

/// Frames on their way to the guest.
pub struct Inbox {
    pub frames: VecDeque<Vec<u8>>,
    pub room: usize,
    pub offloads: Vec<Offload>,
}

impl FrameSink for Inbox {
    fn ready(&mut self) -> bool {
        self.frames.len() < self.room
    }

    fn send(&mut self, len: usize, offload: Offload, fill: &mut dyn FnMut(&mut [u8])) {
        if self.frames.len() < self.room * 2 {
            let mut frame = vec![0; len];
            fill(&mut frame);
            self.frames.push_back(frame);
            if offload.segment.is_some() {
                self.offloads.push(offload);
            }
        }
    }
}

/// The guest's network card.
pub struct Nic {
    pub inbox: Inbox,
    pub outbox: VecDeque<Vec<u8>>,
    pub mtu: usize,
    pub checksums: bool,
}

pub struct Rx(Vec<u8>);
pub struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Nic {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.inbox.frames.pop_front()?), Tx(&mut self.outbox)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        (self.outbox.len() < 64).then_some(Tx(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ethernet;
        caps.max_transmission_unit = self.mtu + 14;
        if !self.checksums {
            (caps.checksum.tcp, caps.checksum.udp) = (Checksum::None, Checksum::None);
        }
        caps
    }
}

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// Guest and network.
pub struct Lab {
    pub net: UserNet,
    pub nic: Nic,
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    start: Instant,
    next_port: u16,
}

impl Lab {
    /// A guest with static addresses and full checksums.
    pub fn new(config: Config) -> Self {
        Self::with_offloads(config, GuestOffloads::default())
    }

    pub fn with_offloads(config: Config, offloads: GuestOffloads) -> Self {
        let mut nic = Nic {
            inbox: Inbox {
                frames: VecDeque::new(),
                room: 256,
                offloads: Vec::new(),
            },
            outbox: VecDeque::new(),
            mtu: config.mtu.into(),
            checksums: !offloads.checksum,
        };
        let mut settings = IfaceConfig::new(HardwareAddress::Ethernet(GUEST_MAC));
        settings.random_seed = 7;
        let mut iface = Interface::new(settings, &mut nic, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|addrs| {
            addrs.push(IpCidr::new(config.guest_v4.into(), 24)).unwrap();
            addrs.push("fd00::15/64".parse().unwrap()).unwrap();
        });
        iface
            .routes_mut()
            .add_default_ipv4_route(config.gateway_v4)
            .unwrap();
        iface
            .routes_mut()
            .add_default_ipv6_route(config.gateway_v6)
            .unwrap();
        let net = UserNet::new(config, offloads).unwrap();
        Self {
            net,
            nic,
            iface,
            sockets: SocketSet::new(Vec::new()),
            start: Instant::now(),
            next_port: 40_000,
        }
    }

    pub fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// One round on both sides. True when a frame moved.
    pub fn step(&mut self) -> bool {
        let now = self.now();
        let mut moved = !self.nic.inbox.frames.is_empty();
        self.iface.poll(now, &mut self.nic, &mut self.sockets);
        while let Some(frame) = self.nic.outbox.pop_front() {
            self.net.receive(&frame, &mut self.nic.inbox);
            moved = true;
        }
        self.net.poll(&mut self.nic.inbox).unwrap();
        moved
    }

    /// Steps until `done`; panics after `seconds`.
    pub fn until(&mut self, seconds: u64, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !done(self) {
            if !self.step() {
                std::thread::sleep(Duration::from_micros(50));
            }
            assert!(
                Instant::now() < end,
                "time is up: {what}; {:?}",
                self.net.stats()
            );
        }
    }

    /// Steps for a while, and on until nothing moves: a busy machine may take the while for something else.
    pub fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            if !self.step() {
                if Instant::now() >= end {
                    return;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// A guest socket that starts connecting.
    pub fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let mut socket = tcp_socket(256 << 10);
        self.next_port += 1;
        socket
            .connect(self.iface.context(), IpEndpoint::from(to), self.next_port)
            .unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends a raw frame to the network.
    pub fn inject(&mut self, frame: &[u8]) {
        self.net.receive(frame, &mut self.nic.inbox);
    }
}

pub fn tcp_socket(buffer: usize) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; buffer]),
        tcp::SocketBuffer::new(vec![0; buffer]),
    );
    socket.set_nagle_enabled(false);
    socket
}

/// The router stands for the host's loopback: what the tests' servers listen on.
pub fn open_config() -> Config {
    Config {
        allow_host_loopback: true,
        ..Config::default()
    }
}

pub fn gateway(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 2], port))
}

/// Byte `i` of a stream.
pub fn byte_at(i: usize) -> u8 {
    ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8
}
