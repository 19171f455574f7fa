//! UDP, DNS, DHCP, ping, neighbour discovery and address configuration through the user network.

mod common;
use common::*;
use smoltcp::socket::{dhcpv4, icmp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpEndpoint};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use unik_usernet::{Config, Forward, Limits, Protocol};

fn udp_socket(lab: &mut Lab, port: u16) -> smoltcp::iface::SocketHandle {
    let buffer =
        || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 256 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    lab.sockets.add(socket)
}

fn receive(lab: &mut Lab, handle: smoltcp::iface::SocketHandle) -> (Vec<u8>, IpEndpoint) {
    let mut got = None;
    lab.until(5, "datagram", |lab| {
        got = lab
            .sockets
            .get_mut::<udp::Socket<'_>>(handle)
            .recv()
            .ok()
            .map(|(b, meta)| (b.to_vec(), meta.endpoint));
        got.is_some()
    });
    got.unwrap()
}

fn send(lab: &mut Lab, handle: smoltcp::iface::SocketHandle, to: &str, bytes: &[u8]) {
    let to: SocketAddr = to.parse().unwrap();
    lab.sockets
        .get_mut::<udp::Socket<'_>>(handle)
        .send_slice(bytes, IpEndpoint::from(to))
        .unwrap();
}

fn host_socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[test]
fn datagrams_of_all_sizes_go_and_come_back() {
    for mtu in [1500, 65_000] {
        let (host, port) = host_socket();
        let mut lab = Lab::new(Config {
            mtu,
            ..open_config()
        });
        let handle = udp_socket(&mut lab, 4000);
        // The test guest's stack cuts packets of up to 16 KiB into fragments.
        let largest = if mtu == 1500 { 16_000 } else { 60_000 };
        for len in [0, 1, 1472, 1473, 9000, largest] {
            let payload: Vec<u8> = (0..len).map(byte_at).collect();
            send(&mut lab, handle, &format!("10.0.2.2:{port}"), &payload);
            lab.run(Duration::from_millis(20));
            let mut buf = vec![0; 65_536];
            let (got, from) = host.recv_from(&mut buf).unwrap();
            assert!(
                buf[..got] == payload,
                "{len} bytes to the host at MTU {mtu}"
            );
            host.send_to(&payload, from).unwrap();
            let (back, sender) = receive(&mut lab, handle);
            assert!(back == payload, "{len} bytes to the guest at MTU {mtu}");
            assert_eq!(sender, IpEndpoint::from(gateway(port)));
        }
    }
}

#[test]
fn strangers_cannot_write_to_the_guest() {
    let (host, port) = host_socket();
    let (stranger, _) = host_socket();
    let mut lab = Lab::new(open_config());
    let handle = udp_socket(&mut lab, 4000);
    send(&mut lab, handle, &format!("10.0.2.2:{port}"), b"hello");
    lab.run(Duration::from_millis(20));
    let (_, from) = host.recv_from(&mut [0; 16]).unwrap();
    stranger
        .send_to(b"evil", SocketAddr::from(([127, 0, 0, 1], from.port())))
        .unwrap();
    host.send_to(b"good", from).unwrap();
    assert_eq!(receive(&mut lab, handle).0, b"good");
}

#[test]
fn forwarded_datagrams_are_answered_to_their_sender() {
    let forward = Forward {
        protocol: Protocol::Udp,
        host: "127.0.0.1:0".parse().unwrap(),
        guest_port: 53,
    };
    let mut lab = Lab::new(Config {
        forwards: vec![forward],
        ..Config::default()
    });
    let to = lab.net.forward_addresses()[0];
    let handle = udp_socket(&mut lab, 53);
    for client in [host_socket().0, host_socket().0] {
        client.send_to(b"question", to).unwrap();
        let (question, from) = receive(&mut lab, handle);
        assert_eq!(
            (question.as_slice(), from.addr),
            (&b"question"[..], IpAddress::v4(10, 0, 2, 2))
        );
        send(&mut lab, handle, &from.to_string(), b"answer");
        lab.run(Duration::from_millis(20));
        let mut buf = [0; 16];
        let (len, sender) = client.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..len], sender), (&b"answer"[..], to));
    }
}

#[test]
fn dns_goes_to_the_hosts_resolver_and_retries_the_next() {
    let (first, first_port) = host_socket();
    let (second, second_port) = host_socket();
    let resolvers = [first_port, second_port]
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .to_vec();
    let mut lab = Lab::new(Config {
        resolvers,
        ..Config::default()
    });
    let handle = udp_socket(&mut lab, 5000);
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    for resolver in [&first, &second] {
        send(&mut lab, handle, "10.0.2.3:53", query);
        lab.run(Duration::from_millis(20));
        let mut buf = [0; 64];
        let (len, from) = resolver.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..len], query);
        resolver.send_to(b"\x12\x34 answer", from).unwrap();
        let (answer, sender) = receive(&mut lab, handle);
        assert_eq!(answer, b"\x12\x34 answer");
        assert_eq!(
            sender,
            IpEndpoint::from(SocketAddr::from(([10, 0, 2, 3], 53)))
        );
    }
}

#[test]
fn dhcp_gives_the_guest_its_address() {
    let mut lab = Lab::new(Config {
        mtu: 9000,
        ..Config::default()
    });
    lab.iface.update_ip_addrs(|addrs| addrs.clear());
    let mut socket = dhcpv4::Socket::new();
    socket.set_parameter_request_list(&[1, 3, 6, 26]);
    let handle = lab.sockets.add(socket);
    let mut config = None;
    lab.until(5, "lease", |lab| {
        if let Some(dhcpv4::Event::Configured(c)) =
            lab.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll()
        {
            config = Some((c.address, c.router, c.dns_servers.to_vec()));
        }
        config.is_some()
    });
    let (address, router, dns) = config.unwrap();
    assert_eq!(address.to_string(), "10.0.2.15/24");
    assert_eq!(router, Some([10, 0, 2, 2].into()));
    assert_eq!(dns, [std::net::Ipv4Addr::from([10, 0, 2, 3])]);
}

#[test]
fn the_router_advertises_its_prefix() {
    let mut lab = Lab::new(Config::default());
    let mut settings =
        smoltcp::iface::Config::new(smoltcp::wire::HardwareAddress::Ethernet(GUEST_MAC));
    settings.slaac = true;
    let now = lab.now();
    lab.iface = smoltcp::iface::Interface::new(settings, &mut lab.nic, now);
    lab.iface
        .update_ip_addrs(|addrs| addrs.push("fe80::ff:fe00:1/64".parse().unwrap()).unwrap());
    let wanted = "fd00::ff:fe00:1".parse::<std::net::Ipv6Addr>().unwrap();
    lab.until(10, "an address", |lab| lab.iface.has_ip_addr(wanted));
}

#[test]
fn the_router_answers_pings() {
    let mut lab = Lab::new(Config::default());
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(77)).unwrap();
    let handle = lab.sockets.add(socket);
    let data: &[u8] = b"are you there";
    let v4 = Icmpv4Repr::EchoRequest {
        ident: 77,
        seq_no: 3,
        data,
    };
    let bytes = lab
        .sockets
        .get_mut::<icmp::Socket<'_>>(handle)
        .send(v4.buffer_len(), IpAddress::v4(10, 0, 2, 3))
        .unwrap();
    v4.emit(&mut Icmpv4Packet::new_unchecked(bytes), &Default::default());
    lab.until(5, "reply", |lab| {
        lab.sockets.get_mut::<icmp::Socket<'_>>(handle).can_recv()
    });
    let (reply, from) = lab
        .sockets
        .get_mut::<icmp::Socket<'_>>(handle)
        .recv()
        .unwrap();
    let packet = Icmpv4Packet::new_checked(reply).unwrap();
    assert_eq!(
        Icmpv4Repr::parse(&packet, &Default::default()),
        Ok(Icmpv4Repr::EchoReply {
            ident: 77,
            seq_no: 3,
            data
        })
    );
    assert_eq!(from, IpAddress::v4(10, 0, 2, 3));

    let to: IpAddress = "fd00::2".parse().unwrap();
    let (src, dst) = ("fd00::15".parse().unwrap(), "fd00::2".parse().unwrap());
    let v6 = Icmpv6Repr::EchoRequest {
        ident: 77,
        seq_no: 4,
        data,
    };
    let bytes = lab
        .sockets
        .get_mut::<icmp::Socket<'_>>(handle)
        .send(v6.buffer_len(), to)
        .unwrap();
    v6.emit(
        &src,
        &dst,
        &mut Icmpv6Packet::new_unchecked(bytes),
        &Default::default(),
    );
    lab.until(5, "reply", |lab| {
        lab.sockets.get_mut::<icmp::Socket<'_>>(handle).can_recv()
    });
}

#[test]
fn udp_ports_are_bounded() {
    let (_host, port) = host_socket();
    let limits = Limits {
        udp_flows: 8,
        ..Limits::default()
    };
    let mut lab = Lab::new(Config {
        limits,
        ..open_config()
    });
    for i in 0..50 {
        let handle = udp_socket(&mut lab, 6000 + i);
        send(&mut lab, handle, &format!("10.0.2.2:{port}"), b"x");
        lab.run(Duration::from_millis(2));
    }
    assert_eq!(lab.net.stats().udp_flows, 8);
    assert_eq!(lab.net.stats().evicted, 42);
}
