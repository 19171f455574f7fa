//! TCP sockets: on the loopback and between two machines, with Linux's answers.

mod common;
use common::*;
use std::rc::Rc;
use std::time::Duration;
use unik_net::{Errno, InetSocket, Limits, ready};

/// Sends `total` bytes from one socket to the other; `step` lets the machines work.
fn transfer(
    from: &unik_net::InetSocket,
    to: &unik_net::InetSocket,
    total: usize,
    mut step: impl FnMut(),
) {
    let data: Vec<u8> = (0..total).map(byte_at).collect();
    let (mut sent, mut got) = (0, Vec::with_capacity(total));
    while got.len() < total {
        match if sent < total {
            send(from, &data[sent..(sent + 100_000).min(total)])
        } else {
            Err(Errno::EAGAIN)
        } {
            Ok(n) => sent += n,
            Err(e) => assert_eq!(e, Errno::EAGAIN),
        }
        step();
        match receive(to, 70_000) {
            Ok(bytes) => got.extend(bytes),
            Err(e) => assert_eq!(e, Errno::EAGAIN),
        }
    }
    assert!(got == data);
}

#[test]
fn the_loopback_connects_at_once_and_carries_megabytes() {
    for (family, address) in [(AF_INET, "127.0.0.1:0"), (AF_INET6, "[::1]:0")] {
        let (net, _) = machine(1, Limits::default());
        let (server, port) = listener(&net, family, address);
        let client = inet(&net, family, STREAM);
        assert_eq!(client.poll(), ready::OUT | ready::HUP);
        assert_eq!(
            client.connect(&at(&address.replace(":0", &format!(":{port}")))),
            Ok(())
        );
        assert_eq!(server.poll(), ready::IN);
        let (accepted, peer) = server.accept().unwrap();
        assert_eq!(peer, client.local_address());
        assert_eq!(accepted.peer_address().unwrap(), client.local_address());
        assert_eq!(client.peer_address().unwrap(), accepted.local_address());
        transfer(&client, &accepted, 8 << 20, || {});
        transfer(&accepted, &client, 8 << 20, || {});
        accepted.close();
        assert_eq!(client.poll(), ready::IN | ready::OUT | ready::RDHUP);
        assert_eq!(receive(&client, 10), Ok(vec![]));
        client.close();
        assert_eq!(net.connections(), 0);
    }
}

#[test]
fn refusals_and_errors_are_linuxs() {
    let (net, _) = machine(1, Limits::default());
    let client = inet(&net, AF_INET, STREAM);
    assert_eq!(client.connect(&at("127.0.0.1:9")), Err(Errno::ECONNREFUSED));
    assert_eq!(client.take_error(), None);
    assert_eq!(client.connect(&at("192.0.2.1:80")), Err(Errno::ENETUNREACH));
    assert_eq!(client.connect(&at("[::1]:80")), Err(Errno::EAFNOSUPPORT));
    assert_eq!(send(&client, b"x"), Err(Errno::EPIPE));
    assert_eq!(receive(&client, 1), Err(Errno::ENOTCONN));
    assert_eq!(client.peer_address(), Err(Errno::ENOTCONN));
    assert_eq!(client.accept().err(), Some(Errno::EINVAL));
    assert_eq!(client.shutdown(true, true), Err(Errno::ENOTCONN));
    let (server, port) = listener(&net, AF_INET, "127.0.0.1:0");
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
    assert_eq!(server.bind(&at("127.0.0.1:0")), Err(Errno::EINVAL));
    assert_eq!(client.connect(&at(&format!("127.0.0.1:{port}"))), Ok(()));
    assert_eq!(
        client.connect(&at(&format!("127.0.0.1:{port}"))),
        Err(Errno::EISCONN)
    );
    let other = inet(&net, AF_INET, STREAM);
    assert_eq!(
        other.bind(&at(&format!("127.0.0.1:{port}"))),
        Err(Errno::EADDRINUSE)
    );
    assert_eq!(other.bind(&at("10.9.9.9:0")), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(
        net.socket(AF_INET, 3, 0, Default::default()).err(),
        Some(Errno::EPERM)
    );
    assert_eq!(
        net.socket(99, STREAM, 0, Default::default()).err(),
        Some(Errno::EAFNOSUPPORT)
    );
    assert_eq!(
        net.socket(AF_INET, STREAM, 17, Default::default()).err(),
        Some(Errno::EPROTONOSUPPORT)
    );
}

#[test]
fn dual_stack_listeners_take_both_families() {
    let (net, _) = machine(1, Limits::default());
    let (server, port) = listener(&net, AF_INET6, "[::]:0");
    let client = inet(&net, AF_INET, STREAM);
    client.connect(&at(&format!("127.0.0.1:{port}"))).unwrap();
    let (accepted, peer) = server.accept().unwrap();
    assert_eq!(
        peer.to_bytes()[8..24],
        std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()
    );
    assert!(accepted.is_v6());
    let six = inet(&net, AF_INET6, STREAM);
    six.connect(&at(&format!("[::ffff:127.0.0.1]:{port}")))
        .unwrap();
    assert_eq!(
        inet(&net, AF_INET, STREAM).bind(&at(&format!("0.0.0.0:{port}"))),
        Err(Errno::EADDRINUSE)
    );

    let only = inet(&net, AF_INET6, STREAM);
    only.set_option(41, 26, &1u32.to_ne_bytes()).unwrap();
    only.bind(&at("[::]:4000")).unwrap();
    only.listen(1).unwrap();
    assert_eq!(
        inet(&net, AF_INET, STREAM).connect(&at("127.0.0.1:4000")),
        Err(Errno::ECONNREFUSED)
    );
    inet(&net, AF_INET, STREAM)
        .bind(&at("0.0.0.0:4000"))
        .unwrap();
}

#[test]
fn ports_are_shared_by_the_rules() {
    let (net, _) = machine(1, Limits::default());
    let set = |socket: &unik_net::InetSocket, option: u32| {
        socket.set_option(1, option, &1u32.to_ne_bytes()).unwrap()
    };
    let (a, b) = (inet(&net, AF_INET, STREAM), inet(&net, AF_INET, STREAM));
    [&a, &b].into_iter().for_each(|s| set(s, 15));
    a.bind(&at("0.0.0.0:5000")).unwrap();
    b.bind(&at("0.0.0.0:5000")).unwrap();
    a.listen(64).unwrap();
    b.listen(64).unwrap();
    let clients: Vec<_> = (0..40).map(|_| inet(&net, AF_INET, STREAM)).collect();
    clients
        .iter()
        .for_each(|c| c.connect(&at("127.0.0.1:5000")).unwrap());
    let count = |s: &unik_net::InetSocket| std::iter::from_fn(|| s.accept().ok()).count();
    let (at_a, at_b) = (count(&a), count(&b));
    assert_eq!(at_a + at_b, 40);
    assert!(at_a > 5 && at_b > 5, "{at_a} and {at_b}");

    let first = inet(&net, AF_INET, STREAM);
    set(&first, 2);
    first.bind(&at("127.0.0.1:6000")).unwrap();
    let second = inet(&net, AF_INET, STREAM);
    set(&second, 2);
    second.bind(&at("127.0.0.1:6000")).unwrap();
    first.listen(1).unwrap();
    assert_eq!(second.listen(1), Err(Errno::EADDRINUSE));
}

#[test]
fn two_machines_exchange_megabytes() {
    for (mtu, offloads) in [(1500, false), (1500, true), (65_000, true)] {
        for (family, address) in [(AF_INET, "10.0.0.2"), (AF_INET6, "[fd00::2]")] {
            let pair = Pair::new(mtu, offloads, None);
            let (server, port) = listener(&pair.b, family, &format!("{address}:0"));
            let client = inet(&pair.a, family, STREAM);
            let (seen, _keep) = watch(&client);
            let to = at(&format!("{address}:{port}"));
            assert_eq!(client.connect(&to), Err(Errno::EINPROGRESS));
            assert_eq!(client.connect(&to), Err(Errno::EALREADY));
            assert_eq!(client.poll(), 0);
            pair.until("connected", || seen.0.get() & ready::OUT != 0);
            assert_eq!(client.connect_result(), Ok(()));
            pair.until("accepted", || server.poll() & ready::IN != 0);
            let (accepted, _) = server.accept().unwrap();
            transfer(&client, &accepted, 4 << 20, || pair.step());
            transfer(&accepted, &client, 4 << 20, || pair.step());
            client.close();
            pair.until("end", || receive(&accepted, 1) == Ok(vec![]));
            accepted.close();
            pair.until("all forgotten", || {
                pair.a.connections() + pair.b.connections() == 0
            });
        }
    }
}

#[test]
fn lost_packets_are_sent_again() {
    let pair = Pair::new(1500, false, Some(37));
    let (server, port) = listener(&pair.b, AF_INET, "10.0.0.2:0");
    let client = inet(&pair.a, AF_INET, STREAM);
    assert_eq!(
        client.connect(&at(&format!("10.0.0.2:{port}"))),
        Err(Errno::EINPROGRESS)
    );
    pair.until("accepted", || {
        pair.skip(Duration::from_millis(5));
        server.poll() & ready::IN != 0
    });
    let (accepted, _) = server.accept().unwrap();
    transfer(&client, &accepted, 1 << 20, || {
        pair.skip(Duration::from_millis(2));
        pair.step();
    });
}

#[test]
fn remote_errors_arrive() {
    let pair = Pair::new(1500, false, None);
    let client = inet(&pair.a, AF_INET, STREAM);
    assert_eq!(client.connect(&at("10.0.0.2:81")), Err(Errno::EINPROGRESS));
    pair.until("refused", || client.poll() & ready::ERR != 0);
    assert_eq!(
        client.poll(),
        ready::IN | ready::OUT | ready::ERR | ready::HUP | ready::RDHUP
    );
    assert_eq!(client.take_error(), Some(Errno::ECONNREFUSED));

    let nobody = inet(&pair.a, AF_INET, STREAM);
    assert_eq!(nobody.connect(&at("10.0.0.77:80")), Err(Errno::EINPROGRESS));
    pair.until("unreachable", || {
        pair.skip(Duration::from_millis(100));
        nobody.poll() & ready::ERR != 0
    });
    assert_eq!(nobody.take_error(), Some(Errno::EHOSTUNREACH));

    let (server, port) = listener(&pair.b, AF_INET, "10.0.0.2:0");
    let client = inet(&pair.a, AF_INET, STREAM);
    let _ = client.connect(&at(&format!("10.0.0.2:{port}")));
    pair.until("accepted", || server.poll() & ready::IN != 0);
    let (accepted, _) = server.accept().unwrap();
    accepted
        .set_option(1, 13, &[1, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    accepted.close();
    pair.until("reset", || client.poll() & ready::ERR != 0);
    assert_eq!(receive(&client, 1), Err(Errno::ECONNRESET));
    assert_eq!(receive(&client, 1), Ok(vec![]));
    assert_eq!(send(&client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn edges_are_announced() {
    let (net, _) = machine(1, Limits::default());
    let (server, port) = listener(&net, AF_INET, "127.0.0.1:0");
    let (seen_server, _k1) = watch(&server);
    let client = inet(&net, AF_INET, STREAM);
    let (seen, _k2) = watch(&client);
    client.connect(&at(&format!("127.0.0.1:{port}"))).unwrap();
    assert_eq!(seen.0.take() & ready::OUT, ready::OUT);
    assert_eq!(seen_server.0.take(), ready::IN);
    let (accepted, _) = server.accept().unwrap();
    let (seen_accepted, _k3) = watch(&accepted);
    for _ in 0..3 {
        send(&client, b"again").unwrap();
        assert_eq!(
            seen_accepted.0.take() & ready::IN,
            ready::IN,
            "every arrival is an edge"
        );
    }
    assert_eq!(accepted.bytes_available(), 15);
    let chunk = vec![1; 1 << 20];
    while send(&client, &chunk).is_ok() {}
    assert_eq!(client.poll() & ready::OUT, 0);
    seen.0.take();
    while receive(&accepted, 1 << 20).is_ok() {}
    assert_eq!(seen.0.take() & ready::OUT, ready::OUT);
    client.shutdown(false, true).unwrap();
    assert_eq!(seen_accepted.0.take() & ready::RDHUP, ready::RDHUP);
    assert_eq!(send(&client, b"x"), Err(Errno::EPIPE));
    while receive(&accepted, 1 << 20).is_ok_and(|b| !b.is_empty()) {}
    assert_eq!(send(&accepted, b"half open"), Ok(9));
    assert_eq!(receive(&client, 20).unwrap(), b"half open");
}

#[test]
fn peeking_takes_nothing() {
    let (net, _) = machine(1, Limits::default());
    let (_server, client, accepted) = connected(&net);
    send(&client, b"hello").unwrap();
    let (mut x, mut y) = ([0; 2], [0; 9]);
    assert_eq!(
        accepted.receive(&mut [&mut x, &mut y], true).unwrap().len,
        5
    );
    assert_eq!((&x, &y[..3]), (b"he", &b"llo"[..]));
    assert_eq!(receive(&accepted, 9).unwrap(), b"hello");
}

#[test]
fn many_connections_and_many_cycles() {
    let limits = Limits {
        tcp_default: 32 << 10,
        tcp_floor: 8 << 10,
        tcp_pool: 4 << 20,
        ..Limits::default()
    };
    let (net, _) = machine(1, limits);
    let (server, port) = listener(&net, AF_INET, "127.0.0.1:0");
    server.listen(4096).unwrap();
    let to = at(&format!("127.0.0.1:{port}"));
    let clients: Vec<_> = (0..2000).map(|_| inet(&net, AF_INET, STREAM)).collect();
    clients.iter().for_each(|c| c.connect(&to).unwrap());
    let accepted: Vec<_> = (0..2000).map(|_| server.accept().unwrap().0).collect();
    for (i, (client, accepted)) in clients.iter().zip(&accepted).enumerate() {
        send(client, &i.to_ne_bytes()).unwrap();
        assert_eq!(receive(accepted, 16).unwrap(), i.to_ne_bytes());
    }
    drop((clients, accepted));
    assert_eq!(net.connections(), 0);
    for i in 0..30_000usize {
        let client = inet(&net, AF_INET, STREAM);
        client.connect(&to).unwrap();
        let (accepted, _) = server.accept().unwrap();
        send(&client, &i.to_ne_bytes()).unwrap();
        assert_eq!(receive(&accepted, 16).unwrap(), i.to_ne_bytes());
    }
    assert_eq!(net.connections(), 0);
}

/// A server with this backlog, and clients that have asked for a connection.
fn requests(pair: &Pair, backlog: u32, count: usize) -> (Rc<InetSocket>, Vec<Rc<InetSocket>>) {
    let (server, port) = listener(&pair.b, AF_INET, "10.0.0.2:0");
    server.listen(backlog).unwrap();
    let clients: Vec<_> = (0..count).map(|_| inet(&pair.a, AF_INET, STREAM)).collect();
    for client in &clients {
        let _ = client.connect(&at(&format!("10.0.0.2:{port}")));
    }
    (server, clients)
}

#[test]
fn backlogs_are_bounded() {
    let pair = Pair::new(1500, false, None);
    let (server, _clients) = requests(&pair, 2, 10);
    (0..50).for_each(|_| pair.step());
    let accepted = std::iter::from_fn(|| server.accept().ok()).count();
    assert!((3..=10).contains(&accepted), "{accepted}");
    drop(server);
    pair.until("nothing is kept", || {
        pair.skip(Duration::from_secs(1));
        pair.b.connections() == 0
    });
}

/// As from a proxy in front of a busy guest: all requests lie there before the first handshake can end.
#[test]
fn a_burst_of_requests_is_not_reset() {
    let pair = Pair::new(1500, false, None);
    let (server, clients) = requests(&pair, 4096, 1500);
    // They know each other's station from the first on; the answers to requests are late.
    pair.step();
    let mut late = Vec::new();
    for _ in 0..20 {
        pair.step();
        late.extend(pair.to_a.borrow_mut().drain(..));
    }
    assert!(late.len() > 1000, "{} answers", late.len());
    pair.to_a.borrow_mut().extend(late);
    let mut accepted = Vec::new();
    pair.until("all are accepted", || {
        accepted.extend(std::iter::from_fn(|| server.accept().ok()));
        accepted.len() == clients.len()
    });
    for client in &clients {
        assert_eq!(send(client, b"x"), Ok(1));
    }
}

/// Two threads on a loopback connection, each asleep after EAGAIN until it is woken; between any two calls time may pass, more or less of it.
#[test]
fn a_stream_never_stalls_however_slow_the_machine() {
    for seed in 1..=40u64 {
        let slow = [0, 100_000, 1_000_000, 5_000_000][seed as usize % 4];
        let (net, skipped) = slow_machine(seed, Limits::default(), slow);
        let (_server, client, accepted) = connected(&net);
        let ((writer, _hook), (reader, _other)) = (watch(&client), watch(&accepted));
        let mut random = seed;
        let mut below = |n: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % n
        };
        let (total, chunk) = (24usize << 20, vec![7; 256 << 10]);
        let (mut sent, mut got, mut writes, mut reads) = (0, 0, true, true);
        let mut idle = 0;
        while got < total {
            let step = match below(8) {
                _ if idle > 0 => below(1_000_000),
                0 => below(40_000_000),
                1 => below(4_000_000_000),
                _ => below(2_000_000),
            };
            skipped.set(skipped.get() + step);
            net.poll();
            writes |= writer.0.take() & ready::OUT != 0;
            reads |= reader.0.take() & ready::IN != 0;
            if writes && sent < total && below(2) == 0 {
                match send(&client, &chunk[..chunk.len().min(total - sent)]) {
                    Ok(n) => sent += n,
                    Err(error) => {
                        assert_eq!(error, Errno::EAGAIN);
                        writes = false;
                    }
                }
                idle = 0;
            } else if reads && below(2) == 0 {
                match receive(&accepted, chunk.len()) {
                    Ok(bytes) => got += bytes.len(),
                    Err(error) => {
                        assert_eq!(error, Errno::EAGAIN);
                        reads = false;
                    }
                }
                idle = 0;
            } else {
                idle += 1;
            }
            assert!(
                idle < 500,
                "seed {seed}: {sent} sent, {got} received, writer {writes}, reader {reads}, {:?}",
                (client.poll(), accepted.poll())
            );
        }
    }
}

#[test]
fn data_for_a_closed_socket_is_answered_with_a_reset() {
    let (net, _) = machine(1, Limits::default());
    let (_server, client, accepted) = connected(&net);
    assert_eq!(send(&accepted, b"read"), Ok(4));
    assert_eq!(receive(&client, 10).as_deref(), Ok(&b"read"[..]));
    // Nothing is unread: the end is a clean one, until more comes.
    client.close();
    assert_eq!(receive(&accepted, 10), Ok(vec![]));
    assert_eq!(send(&accepted, b"more"), Ok(4));
    assert_eq!(send(&accepted, b"x"), Err(Errno::EPIPE));
    assert_eq!(accepted.poll() & ready::HUP, ready::HUP);
    accepted.close();
    assert_eq!(net.connections(), 0);
}
