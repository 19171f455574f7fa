//! UDP, ping, options, netlink.

mod common;
use common::*;
use std::time::Duration;
use unik_net::message::{Ancillary, Credentials};
use unik_net::{Errno, Limits, Socket, ready};

#[test]
fn datagrams_on_the_loopback() {
    let (net, _) = machine(1, Limits::default());
    let (a, b) = (inet(&net, AF_INET, DGRAM), inet(&net, AF_INET, DGRAM));
    a.bind(&at("127.0.0.1:0")).unwrap();
    let port = port_of(&a.local_address());
    let (seen, _keep) = watch(&a);
    assert_eq!(receive(&a, 1), Err(Errno::EAGAIN));
    assert_eq!(send(&b, b"x"), Err(Errno::EDESTADDRREQ));
    assert_eq!(send_to(&b, b"", &format!("127.0.0.1:{port}")), Ok(0));
    assert_eq!(
        send_to(&b, &[7; 60_000], &format!("127.0.0.1:{port}")),
        Ok(60_000)
    );
    assert_eq!(
        send_to(&b, &[7; 70_000], &format!("127.0.0.1:{port}")),
        Err(Errno::EMSGSIZE)
    );
    assert_eq!(seen.0.take(), ready::IN);
    assert_eq!(receive(&a, 9).unwrap(), b"");
    let mut small = [0; 10];
    let received = a.receive(&mut [&mut small], false).unwrap();
    assert_eq!((received.len, received.full_len), (10, 60_000));
    b.connect(&at(&format!("127.0.0.1:{port}"))).unwrap();
    assert_eq!(b.peer_address(), Ok(a.local_address()));
    send(&b, b"connected").unwrap();
    let (bytes, from) = receive_from(&a, 99).unwrap();
    assert_eq!(
        (bytes.as_slice(), from),
        (&b"connected"[..], Some(b.local_address()))
    );
    drop(a);
    assert_eq!(send(&b, b"nobody"), Ok(6));
    assert_eq!(b.poll() & ready::ERR, ready::ERR);
    assert_eq!(send(&b, b"nobody"), Err(Errno::ECONNREFUSED));
}

#[test]
fn receive_buffers_are_bounded() {
    let (net, _) = machine(1, Limits::default());
    let (a, b) = (inet(&net, AF_INET, DGRAM), inet(&net, AF_INET, DGRAM));
    a.bind(&at("127.0.0.1:7000")).unwrap();
    for _ in 0..1000 {
        send_to(&b, &[1; 1000], "127.0.0.1:7000").unwrap();
    }
    let count = std::iter::from_fn(|| receive(&a, 2000).ok()).count();
    assert!((100..250).contains(&count), "{count}");
    assert_eq!(net.counters().buffer_full as usize, 1000 - count);
}

#[test]
fn datagrams_between_machines() {
    for (mtu, offloads) in [(1500, false), (1500, true)] {
        let pair = Pair::new(mtu, offloads, None);
        for (family, b_at, a_at) in [
            (AF_INET, "10.0.0.2:700", "10.0.0.1:0"),
            (AF_INET6, "[fd00::2]:700", "[fd00::1]:0"),
        ] {
            let (a, b) = (inet(&pair.a, family, DGRAM), inet(&pair.b, family, DGRAM));
            b.bind(&at(b_at)).unwrap();
            a.bind(&at(a_at)).unwrap();
            for len in [0, 1, 1400, 9000] {
                let bytes: Vec<u8> = (0..len).map(byte_at).collect();
                if len > 1452 && family == AF_INET6 {
                    assert_eq!(send_to(&a, &bytes, b_at), Err(Errno::EMSGSIZE));
                    continue;
                }
                send_to(&a, &bytes, b_at).unwrap();
                pair.until("there", || b.poll() & ready::IN != 0);
                let (got, from) = receive_from(&b, 65_536).unwrap();
                assert!(got == bytes, "{len} bytes");
                assert_eq!(from, Some(a.local_address()));
                b.send(&[&got], from.as_ref(), &Ancillary::default())
                    .unwrap();
                pair.until("back", || a.poll() & ready::IN != 0);
                assert!(receive(&a, 65_536).unwrap() == bytes);
            }
        }
    }
}

#[test]
fn port_unreachable_reaches_the_sender() {
    let pair = Pair::new(1500, false, None);
    let a = inet(&pair.a, AF_INET, DGRAM);
    a.connect(&at("10.0.0.2:999")).unwrap();
    send(&a, b"anybody?").unwrap();
    pair.until("error", || a.poll() & ready::ERR != 0);
    assert_eq!(receive(&a, 1), Err(Errno::ECONNREFUSED));
    assert_eq!(receive(&a, 1), Err(Errno::EAGAIN));
}

#[test]
fn a_silent_neighbour_does_not_hold_up_the_others() {
    let pair = Pair::new(1500, false, None);
    let (a, b) = (inet(&pair.a, AF_INET, DGRAM), inet(&pair.b, AF_INET, DGRAM));
    b.bind(&at("10.0.0.2:700")).unwrap();
    for _ in 0..10 {
        send_to(&a, b"lost", "10.0.0.99:1").unwrap();
    }
    send_to(&a, b"found", "10.0.0.2:700").unwrap();
    pair.until("there", || b.poll() & ready::IN != 0);
    pair.skip(Duration::from_secs(4));
    pair.step();
    pair.skip(Duration::from_secs(4));
    pair.step();
    assert!(
        pair.a.deadline().is_none_or(|d| d > 5_000_000_000),
        "nothing is left to be sent"
    );
}

#[test]
fn segments_and_packet_info() {
    let (net, _) = machine(1, Limits::default());
    let (a, b) = (inet(&net, AF_INET, DGRAM), inet(&net, AF_INET, DGRAM));
    a.bind(&at("0.0.0.0:7000")).unwrap();
    a.set_option(0, 8, &1u32.to_ne_bytes()).unwrap();
    a.set_option(0, 12, &1u32.to_ne_bytes()).unwrap();
    let extra = Ancillary {
        segment_size: Some(1000),
        ..Ancillary::default()
    };
    assert_eq!(
        b.send(&[&[5; 2500]], Some(&at("127.0.0.1:7000")), &extra),
        Ok(2500)
    );
    let mut lens = Vec::new();
    while let Ok(received) = a.receive(&mut [&mut [0; 3000]], false) {
        assert_eq!(
            received.ancillary.packet_info,
            Some(([127, 0, 0, 1].into(), 1))
        );
        assert_eq!(received.ancillary.hop_limit, Some(64));
        lens.push(received.len);
    }
    assert_eq!(lens, [1000, 1000, 500]);
}

#[test]
fn pings_are_answered() {
    let pair = Pair::new(1500, false, None);
    let ping = |net, to: &str| {
        let Ok(Socket::Inet(socket)) =
            pair_net(&pair, net).socket(AF_INET, DGRAM, 1, Credentials::default())
        else {
            panic!("a ping socket")
        };
        let mut request = vec![8, 0, 0, 0, 0, 0, 0, 9];
        request.extend(b"payload");
        send_to(&socket, &request, to).unwrap();
        pair.until("reply", || socket.poll() & ready::IN != 0);
        let reply = receive(&socket, 99).unwrap();
        assert_eq!((reply[0], &reply[6..]), (0, &request[6..]));
    };
    ping(0, "10.0.0.2:0");
    ping(0, "127.0.0.1:0");
}

fn pair_net(pair: &Pair, which: usize) -> &std::rc::Rc<unik_net::Net> {
    if which == 0 { &pair.a } else { &pair.b }
}

#[test]
fn options_keep_their_values() {
    let (net, _) = machine(1, Limits::default());
    let tcp = inet(&net, AF_INET6, STREAM);
    for (level, name, value) in [
        (1, 2, 1u32),
        (1, 9, 1),
        (1, 15, 1),
        (6, 1, 1),
        (6, 4, 60),
        (6, 5, 5),
        (6, 6, 3),
        (6, 18, 9000),
        (41, 26, 1),
        (0, 2, 9),
        (1, 10, 1),
        (1, 49, 2),
        (6, 7, 9),
        (6, 8, 30),
        (0, 49, 0),
        (41, 62, 1),
    ] {
        tcp.set_option(level, name, &value.to_ne_bytes()).unwrap();
        assert_eq!(
            tcp.option(level, name).unwrap(),
            value.to_ne_bytes(),
            "option {level}/{name}"
        );
    }
    tcp.set_option(1, 8, &10_000u32.to_ne_bytes()).unwrap();
    assert_eq!(tcp.option(1, 8).unwrap(), 20_000u32.to_ne_bytes());
    assert_eq!(tcp.set_option(6, 999, &[0; 4]), Err(Errno::ENOPROTOOPT));
    assert_eq!(tcp.set_option(6, 1, &[0; 1]), Err(Errno::EINVAL));
    assert_eq!(tcp.option(1, 3).unwrap(), 1u32.to_ne_bytes());
    assert_eq!(tcp.option(1, 4).unwrap(), 0u32.to_ne_bytes());
}

#[test]
fn options_are_refused_as_linux_refuses_them() {
    let (net, _) = machine(1, Limits::default());
    let [tcp, udp] = [STREAM, DGRAM].map(|kind| inet(&net, AF_INET, kind));
    let six = inet(&net, AF_INET6, STREAM);
    let set = |socket: &unik_net::InetSocket, level, name, value: i32| {
        socket
            .set_option(level, name, &value.to_ne_bytes())
            .unwrap_err()
    };
    // IP_TTL, IP_MULTICAST_TTL and IP_ADD_MEMBERSHIP on TCP, IP_MULTICAST_IF for an address of nobody, IP_MULTICAST_ALL.
    assert_eq!(set(&tcp, 0, 2, 0), Errno::EINVAL);
    assert_eq!(set(&tcp, 0, 33, 1), Errno::EINVAL);
    assert_eq!(set(&tcp, 0, 35, 1), Errno::EPROTO);
    assert_eq!(set(&udp, 0, 32, 1), Errno::EADDRNOTAVAIL);
    assert_eq!(set(&udp, 0, 49, 2), Errno::EINVAL);
    // IPV6_MULTICAST_HOPS on TCP, IPV6_MULTICAST_LOOP, IPV6_MTU_DISCOVER, an option of IPv6 on an IPv4 socket.
    assert_eq!(set(&six, 41, 18, 1), Errno::ENOPROTOOPT);
    assert_eq!(set(&six, 41, 19, 2), Errno::EINVAL);
    assert_eq!(set(&six, 41, 23, 6), Errno::EINVAL);
    assert_eq!(set(&tcp, 41, 26, 1), Errno::ENOPROTOOPT);
    // TCP_SYNCNT, TCP_USER_TIMEOUT, TCP_NODELAY on UDP, UDP_SEGMENT.
    assert_eq!(set(&tcp, 6, 7, 128), Errno::EINVAL);
    assert_eq!(set(&tcp, 6, 18, -1), Errno::EINVAL);
    assert_eq!(set(&udp, 6, 1, 1), Errno::ENOPROTOOPT);
    assert_eq!(set(&udp, 17, 103, 65_536), Errno::EINVAL);
    // An empty value is zero where a byte would do.
    udp.set_option(0, 1, &[]).unwrap();
    assert_eq!(udp.set_option(0, 33, &[]), Err(Errno::EINVAL));
    // What an IPv4 socket is asked for of a strange level, and an IPv6 socket.
    assert_eq!(tcp.option(99, 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(udp.option(17, 999), Err(Errno::ENOPROTOOPT));
    assert_eq!(six.option(99, 1), Err(Errno::ENOPROTOOPT));
    // TCP keeps the bits of ECN for itself.
    tcp.set_option(0, 1, &[255]).unwrap();
    assert_eq!(tcp.option(0, 1).unwrap(), 252u32.to_ne_bytes());
}

#[test]
fn netlink_lists_addresses() {
    let pair = Pair::new(1500, false, None);
    let Ok(Socket::Netlink(socket)) = pair.a.socket(16, 3, 0, Credentials::default()) else {
        panic!("a netlink socket")
    };
    let mut request = Vec::from(20u32.to_ne_bytes());
    request.extend(22u16.to_ne_bytes());
    request.extend(0x301u16.to_ne_bytes());
    request.extend([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(socket.send(&[&request]), Ok(20));
    assert_eq!(socket.poll(), ready::IN | ready::OUT);
    let mut bytes = vec![0; 8192];
    let len = socket.receive(&mut [&mut bytes], false).unwrap().len;
    let mut at = 0;
    let mut kinds = Vec::new();
    let mut found = Vec::new();
    while at < len {
        let size = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        kinds.push(u16::from_ne_bytes(
            bytes[at + 4..at + 6].try_into().unwrap(),
        ));
        if bytes[at + 16] == 2 {
            found.push(bytes[at + 28..at + 32].to_vec());
        }
        at += size.next_multiple_of(4);
    }
    assert_eq!(kinds, [20, 20, 20, 20, 20, 3]);
    assert_eq!(found, [[127, 0, 0, 1], [10, 0, 0, 1]]);
}

/// musl steps from attribute to attribute by padded lengths until it is exactly at the end of the message.
#[test]
fn netlink_attributes_fill_their_message() {
    let pair = Pair::new(1500, false, None);
    for (ask, answer, head) in [(18u16, 16, 16), (22, 20, 8), (26, 24, 12)] {
        let Ok(Socket::Netlink(socket)) = pair.a.socket(16, 3, 0, Credentials::default()) else {
            panic!("a netlink socket")
        };
        let mut request = Vec::from(20u32.to_ne_bytes());
        request.extend(ask.to_ne_bytes());
        request.extend(0x301u16.to_ne_bytes());
        request.resize(20, 0);
        assert_eq!(socket.send(&[&request]), Ok(20));
        let mut bytes = vec![0; 8192];
        let len = socket.receive(&mut [&mut bytes], false).unwrap().len;
        let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
        let (mut at, mut attributes) = (0, 0);
        while at < len {
            let end = at + usize::from(half(at));
            if half(at + 4) == answer {
                at += 16 + head;
                while at < end {
                    at += usize::from(half(at)).next_multiple_of(4);
                    attributes += 1;
                }
                assert_eq!(at, end, "the last attribute of a message of kind {answer}");
            }
            at = end.next_multiple_of(4);
        }
        assert!(attributes > 3, "{attributes} attributes");
    }
}
