//! A guest that means harm: floods, half-open connections, nonsense frames. Nothing hangs, nothing panics, nothing grows without bound.

mod common;
use common::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};
use std::net::TcpListener;
use std::time::Duration;
use unik_usernet::{Config, Limits};

fn syn_frame(src: IpAddress, src_port: u16, dst: IpAddress, dst_port: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port,
        dst_port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: Some(1),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = IpRepr::new(src, dst, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let caps = ChecksumCapabilities::default();
    let mut bytes = vec![0; 14 + ip.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(GUEST_MAC);
    frame.set_dst_addr(smoltcp::wire::EthernetAddress::BROADCAST);
    frame.set_ethertype(if src.version() == smoltcp::wire::IpVersion::Ipv4 {
        EthernetProtocol::Ipv4
    } else {
        EthernetProtocol::Ipv6
    });
    ip.emit(frame.payload_mut(), &caps);
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut frame.payload_mut()[ip.header_len()..]),
        &src,
        &dst,
        &caps,
    );
    bytes
}

/// A small generator: the tests are the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_syn_flood_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = Limits {
        tcp_half_open: 64,
        tcp_flows: 200,
        ..Limits::default()
    };
    let mut lab = Lab::new(Config {
        limits,
        ..open_config()
    });
    for i in 0..5000u16 {
        lab.inject(&syn_frame(
            IpAddress::v4(10, 0, 2, 15),
            1024 + i,
            IpAddress::v4(10, 0, 2, 2),
            port,
        ));
        lab.nic.inbox.frames.clear();
        if i % 16 == 0 {
            lab.net.poll(&mut lab.nic.inbox).unwrap();
        }
    }
    let stats = lab.net.stats();
    assert!(stats.tcp_flows <= 64, "{stats:?}");
    assert!(stats.tcp_memory <= 64 << 20, "{stats:?}");
    // A real connection still gets through (to another listener: the flood has filled the first one's queue).
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = lab.connect(gateway(other.local_addr().unwrap().port()));
    lab.until(10, "connected", |lab| lab.tcp(handle).may_send());
}

#[test]
fn foreign_sources_are_dropped() {
    let mut lab = Lab::new(open_config());
    for source in [
        IpAddress::v4(192, 0, 2, 1),
        IpAddress::v4(10, 0, 2, 2),
        IpAddress::v4(127, 0, 0, 1),
        "2001:db8::1".parse().unwrap(),
    ] {
        let to = if source.version() == smoltcp::wire::IpVersion::Ipv4 {
            IpAddress::v4(10, 0, 2, 2)
        } else {
            "fd00::2".parse().unwrap()
        };
        lab.inject(&syn_frame(source, 1, to, 80));
    }
    assert_eq!(lab.net.stats().dropped, 4);
    assert_eq!(lab.net.stats().tcp_opened, 0);
}

#[test]
fn nonsense_never_panics() {
    let mut lab = Lab::new(open_config());
    let mut random = Random(0x1234_5678_9abc_def1);
    let good: Vec<Vec<u8>> = vec![
        syn_frame(
            IpAddress::v4(10, 0, 2, 15),
            1000,
            IpAddress::v4(10, 0, 2, 2),
            9,
        ),
        syn_frame(
            "fd00::15".parse().unwrap(),
            1000,
            "fd00::2".parse().unwrap(),
            9,
        ),
        {
            let mut arp = vec![0xff; 6];
            arp.extend(GUEST_MAC.0);
            arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            arp.extend(GUEST_MAC.0);
            arp.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
            arp
        },
    ];
    for round in 0..60_000 {
        let mut frame = good[round % good.len()].clone();
        if round % 7 == 0 {
            frame = (0..random.next() % 200)
                .map(|_| random.next() as u8)
                .collect();
            if frame.len() > 14 {
                frame[6] &= 0xfe;
                let kinds: [[u8; 2]; 3] = [[8, 0], [0x86, 0xdd], [8, 6]];
                frame[12..14].copy_from_slice(&kinds[round % 3]);
            }
        }
        for _ in 0..random.next() % 6 {
            if frame.len() > 14 {
                let at = 14 + random.next() as usize % (frame.len() - 14);
                frame[at] = random.next() as u8;
            }
        }
        if random.next().is_multiple_of(5) {
            frame.truncate(random.next() as usize % (frame.len() + 1));
        }
        lab.inject(&frame);
        lab.nic.inbox.frames.clear();
        if round % 64 == 0 {
            lab.net.poll(&mut lab.nic.inbox).unwrap();
        }
    }
    let stats = lab.net.stats();
    assert!(stats.dropped > 1000 && stats.tcp_flows <= 4096, "{stats:?}");
}

/// A guest that gives no receive buffers at all: everything waits, and goes on when it does.
#[test]
fn a_guest_without_room_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut lab = Lab::new(open_config());
    let handle = lab.connect(gateway(port));
    lab.until(5, "connected", |lab| lab.tcp(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    lab.nic.inbox.room = 0;
    std::io::Write::write_all(&mut stream, &[5; 100_000]).unwrap();
    lab.run(Duration::from_millis(50));
    assert!(lab.net.wants_room());
    lab.nic.inbox.room = 256;
    lab.until(5, "bytes", |lab| lab.tcp(handle).recv_queue() == 100_000);
}
