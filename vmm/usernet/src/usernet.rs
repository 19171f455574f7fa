//! [`UserNet`]: takes frames of the guest apart and gives each to its flow; turns host events into frames.

use crate::config::{Config, UserNetError};
use crate::flows::{Ctx, Port, Source};
use crate::forward::ForwardTable;
use crate::ping::PingTable;
use crate::policy::Policy;
use crate::sink::{FrameSink, GuestOffloads};
use crate::tcp::TcpTable;
use crate::udp::UdpTable;
use crate::wire::{ETHERNET, IpPacket, Out};
use crate::{dhcp, link};
use mio::{Events, Poll};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::raw;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, IpCidr, IpProtocol,
    IpVersion, UdpPacket,
};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How often silent UDP and ICMP conversations are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// What a user network has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Frames of the guest.
    pub frames_in: u64,
    /// Frames for the guest.
    pub frames_out: u64,
    /// Frames of the guest that were malformed or had a source that is not the guest's.
    pub dropped: u64,
    /// TCP connections opened, from either side.
    pub tcp_opened: u64,
    /// TCP connections that are over.
    pub tcp_closed: u64,
    /// Connections and datagrams refused: not permitted, not possible, or too many.
    pub refused: u64,
    /// Flows dropped to make room, or because a handshake took too long.
    pub evicted: u64,
    /// TCP connections now.
    pub tcp_flows: usize,
    /// UDP ports of the guest in use now.
    pub udp_flows: usize,
    /// ICMP echo conversations now.
    pub ping_flows: usize,
    /// Bytes of TCP buffers now.
    pub tcp_memory: usize,
}

/// All flows of a guest.
struct Tables {
    tcp: TcpTable,
    udp: UdpTable,
    ping: PingTable,
    forwards: ForwardTable,
}

/// A user network for one guest.
pub struct UserNet {
    config: Config,
    policy: Policy,
    poll: Poll,
    events: Events,
    /// Made when the first driver comes: a guest without network does not pay for it.
    iface: Option<Box<Interface>>,
    tables: Tables,
    guest: GuestOffloads,
    guest_mac: EthernetAddress,
    /// Puts IPv4 fragments together; made when the first comes.
    whole: Option<(SocketSet<'static>, SocketHandle)>,
    epoch: Instant,
    sweep: Instant,
    stats: Stats,
    frames_out: u64,
}

impl UserNet {
    /// Binds the forwards and makes the network. `guest` is what the guest's driver can take.
    ///
    /// # Errors
    /// A host port cannot be bound, or the host has no event queue left.
    pub fn new(config: Config, guest: GuestOffloads) -> Result<Self, UserNetError> {
        let poll = Poll::new()?;
        let forwards = ForwardTable::new(&config, poll.registry())?;
        let epoch = Instant::now();
        Ok(Self {
            policy: Policy::new(&config),
            iface: None,
            poll,
            events: Events::with_capacity(256),
            tables: Tables {
                tcp: TcpTable::new(),
                udp: UdpTable::new(),
                ping: PingTable::new(),
                forwards,
            },
            guest,
            guest_mac: EthernetAddress::BROADCAST,
            whole: None,
            epoch,
            sweep: epoch + SWEEP,
            stats: Stats::default(),
            frames_out: 0,
            config,
        })
    }

    /// The guest's driver was started anew: all its connections are gone, and it may take other offloads.
    pub fn reset(&mut self, guest: GuestOffloads) {
        self.guest = guest;
        self.iface = None;
        self.tables.tcp = TcpTable::new();
        self.tables.udp = UdpTable::new();
        self.tables.ping = PingTable::new();
    }

    /// A descriptor that becomes readable when [`Self::poll`] has work (epoll's; valid as long as this value).
    pub fn event_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Host addresses of the forwards, in the order of the configuration.
    pub fn forward_addresses(&self) -> Vec<SocketAddr> {
        self.tables.forwards.addresses()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats {
            frames_out: self.frames_out,
            tcp_flows: self.tables.tcp.len(),
            udp_flows: self.tables.udp.len(),
            ping_flows: self.tables.ping.len(),
            tcp_memory: self.tables.tcp.memory(),
            ..self.stats
        }
    }

    /// When [`Self::poll`] must be called at the latest, even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let sweep = (self.tables.udp.len() + self.tables.ping.len() > 0).then_some(self.sweep);
        [self.tables.tcp.deadline(), sweep]
            .into_iter()
            .flatten()
            .min()
    }

    /// True when there is work that waits for nothing but room at the guest: call [`Self::poll`] when it has some.
    pub fn wants_room(&self) -> bool {
        self.tables.tcp.has_stalled()
            || self.tables.udp.has_stalled()
            || self.tables.forwards.has_pending()
    }

    /// Takes an Ethernet frame of the guest.
    pub fn receive(&mut self, frame: &[u8], sink: &mut dyn FrameSink) {
        self.stats.frames_in += 1;
        if self.dispatch(frame, sink).is_none() {
            self.stats.dropped += 1;
        }
    }

    /// `None`: the frame is malformed or not the guest's to send.
    fn dispatch(&mut self, frame: &[u8], sink: &mut dyn FrameSink) -> Option<()> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        ethernet.src_addr().is_unicast().then_some(())?;
        self.guest_mac = ethernet.src_addr();
        let body = frame.get(ETHERNET..)?;
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let (config, mut out) = self.out(sink);
                link::arp(config, body, &mut out);
                Some(())
            }
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => {
                self.ip(&IpPacket::parse(body)?, sink)
            }
            _ => None,
        }
    }

    fn ip(&mut self, packet: &IpPacket<'_>, sink: &mut dyn FrameSink) -> Option<()> {
        if packet.protocol == IpProtocol::Icmpv6 {
            let (config, mut out) = self.out(sink);
            if link::neighbour_discovery(config, packet, &mut out) {
                return Some(());
            }
        }
        match packet.protocol {
            _ if packet.fragment => return self.fragment(packet, sink),
            IpProtocol::Udp => return self.datagram(packet, sink),
            _ => self.policy.is_guest(packet.src).then_some(())?,
        }
        self.with(sink, |tables, ctx| match packet.protocol {
            IpProtocol::Tcp => tables.tcp.packet(ctx, packet),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => tables.ping.packet(ctx, packet),
            _ => {}
        });
        Some(())
    }

    fn datagram(&mut self, packet: &IpPacket<'_>, sink: &mut dyn FrameSink) -> Option<()> {
        let udp = UdpPacket::new_checked(packet.payload).ok()?;
        if packet.dst.is_ipv4() && udp.dst_port() == 67 && udp.src_port() == 68 {
            let (config, mut out) = self.out(sink);
            dhcp::answer(config, udp.payload(), &mut out);
            return Some(());
        }
        if packet.dst.is_multicast()
            || packet.dst == IpAddr::from([255, 255, 255, 255])
            || udp.src_port() == 0
            || udp.dst_port() == 0
        {
            return Some(());
        }
        self.policy.is_guest(packet.src).then_some(())?;
        let guest = SocketAddr::new(packet.src, udp.src_port());
        let dst = SocketAddr::new(packet.dst, udp.dst_port());
        self.with(sink, |tables, ctx| {
            if !tables.forwards.answer(guest, dst, udp.payload()) {
                tables.udp.datagram(ctx, packet, &udp);
            }
        });
        Some(())
    }

    /// Keeps a fragment until the datagram is complete. Other protocols are not sent in fragments.
    fn fragment(&mut self, packet: &IpPacket<'_>, sink: &mut dyn FrameSink) -> Option<()> {
        (packet.src.is_ipv4()
            && packet.protocol == IpProtocol::Udp
            && self.policy.is_guest(packet.src))
        .then_some(())?;
        let (mut whole, handle) = self.whole.take().unwrap_or_else(reassembly);
        self.with(sink, |_, ctx| ctx.feed(&mut whole, packet.bytes));
        let complete = whole
            .get_mut::<raw::Socket<'_>>(handle)
            .recv()
            .map(<[u8]>::to_vec);
        self.whole = Some((whole, handle));
        if let Ok(bytes) = complete {
            self.datagram(&IpPacket::parse(&bytes)?, sink)?;
        }
        Some(())
    }

    /// Moves what the host has for the guest, and lets time pass.
    ///
    /// # Errors
    /// The event queue failed.
    pub fn poll(&mut self, sink: &mut dyn FrameSink) -> Result<(), UserNetError> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        let sweep = self.sweep;
        let swept = self.with(sink, |tables, ctx| {
            tables.tcp.resume(ctx);
            tables.udp.resume(ctx);
            for event in &events {
                let over = event.is_error() || event.is_read_closed() || event.is_write_closed();
                match Source::of(event.token()) {
                    Source::Tcp(at) => tables.tcp.event(
                        ctx,
                        at,
                        event.is_readable() || over,
                        event.is_writable() || over,
                    ),
                    Source::Udp(at) => tables.udp.event(ctx, at),
                    Source::Ping(at) => tables.ping.event(ctx, at),
                    Source::Forward(at) => tables.forwards.event(at),
                }
            }
            tables.forwards.resume(ctx, &mut tables.tcp);
            tables.tcp.expire(ctx);
            if ctx.now < sweep {
                return None;
            }
            tables.udp.expire(ctx);
            tables.ping.expire(ctx);
            Some(ctx.now + SWEEP)
        });
        self.events = events;
        self.sweep = swept.unwrap_or(sweep);
        Ok(())
    }

    fn out<'a>(&'a mut self, sink: &'a mut dyn FrameSink) -> (&'a Config, Out<'a>) {
        let out = Out {
            sink,
            guest_mac: self.guest_mac,
            guest: self.guest,
            mtu: usize::from(self.config.mtu),
            frames: &mut self.frames_out,
        };
        (&self.config, out)
    }

    fn with<R>(
        &mut self,
        sink: &mut dyn FrameSink,
        work: impl FnOnce(&mut Tables, &mut Ctx<'_>) -> R,
    ) -> R {
        let out = Out {
            sink,
            guest_mac: self.guest_mac,
            guest: self.guest,
            mtu: usize::from(self.config.mtu),
            frames: &mut self.frames_out,
        };
        let mut ctx = Ctx {
            registry: self.poll.registry(),
            policy: &self.policy,
            limits: &self.config.limits,
            iface: self
                .iface
                .get_or_insert_with(|| interface(&self.config, self.guest)),
            out,
            stats: &mut self.stats,
            now: Instant::now(),
            epoch: self.epoch,
        };
        work(&mut self.tables, &mut ctx)
    }
}

/// A socket that gets UDP datagrams whole, one at a time.
fn reassembly() -> (SocketSet<'static>, SocketHandle) {
    let buffer =
        |bytes| raw::PacketBuffer::new(vec![raw::PacketMetadata::EMPTY; 2], vec![0; bytes]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(raw::Socket::new(
        Some(IpVersion::Ipv4),
        Some(IpProtocol::Udp),
        buffer(66_000),
        buffer(0),
    ));
    (sockets, handle)
}

/// smoltcp's view of the network: every address beyond the router is this interface's own.
fn interface(config: &Config, guest: GuestOffloads) -> Box<Interface> {
    let mut nobody = Nobody;
    let mut frames = 0;
    let mut out = Out {
        sink: &mut nobody,
        guest_mac: EthernetAddress::BROADCAST,
        guest,
        mtu: usize::from(config.mtu),
        frames: &mut frames,
    };
    let mut settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
    // Sequence numbers must not be guessable: take the seed from the hasher's random keys.
    settings.random_seed = RandomState::new().build_hasher().finish();
    let mut iface = Box::new(Interface::new(
        settings,
        &mut Port {
            inbound: None,
            out: &mut out,
        },
        smoltcp::time::Instant::ZERO,
    ));
    iface.update_ip_addrs(|addrs| {
        let _ = addrs.push(IpCidr::new(config.gateway_v4.into(), config.prefix_v4));
        let _ = addrs.push(IpCidr::new(config.gateway_v6.into(), 64));
    });
    iface.set_any_ip(true);
    iface
}

/// A sink for making an interface: nothing is sent through it.
struct Nobody;

impl FrameSink for Nobody {
    fn ready(&mut self) -> bool {
        false
    }

    fn send(&mut self, _: usize, _: crate::Offload, _: &mut dyn FnMut(&mut [u8])) {}
}
