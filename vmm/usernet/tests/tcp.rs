//! TCP through the user network: a smoltcp guest against real host sockets.

mod common;
use common::*;
use smoltcp::socket::tcp::State;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use unik_usernet::{Config, Forward, GuestOffloads, Limits, Protocol};

/// A host server that sends back what it gets, on every connection.
fn echo_server(address: &str) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buf = vec![0; 65_536];
                while let Ok(n) = stream.read(&mut buf) {
                    if n == 0 || stream.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, server)
}

/// Sends `total` bytes to an echo server and checks every byte that comes back.
fn echo_megabytes(lab: &mut Lab, to: std::net::SocketAddr, total: usize) {
    let handle = lab.connect(to);
    let (mut sent, mut got) = (0, 0);
    lab.until(60, "echo", |lab| {
        let socket = lab.tcp(handle);
        if socket.state() == State::SynSent {
            return false;
        }
        assert!(
            socket.state() != State::Closed,
            "connection broke after {sent} sent, {got} received"
        );
        while sent < total && socket.can_send() {
            sent += socket
                .send(|room| {
                    let n = room.len().min(total - sent);
                    room[..n]
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, b)| *b = byte_at(sent + i));
                    (n, n)
                })
                .unwrap();
            if sent == total {
                socket.close();
            }
        }
        while socket.can_recv() {
            got += socket
                .recv(|bytes| {
                    assert!(
                        bytes
                            .iter()
                            .enumerate()
                            .all(|(i, &b)| b == byte_at(got + i)),
                        "wrong bytes near {got}"
                    );
                    (bytes.len(), bytes.len())
                })
                .unwrap();
        }
        got == total
    });
    lab.until(10, "close", |lab| {
        matches!(lab.tcp(handle).state(), State::Closed | State::TimeWait)
    });
    lab.until(10, "flow forgotten", |lab| lab.net.stats().tcp_flows == 0);
}

#[test]
fn megabytes_come_back_unharmed() {
    let (port, _server) = echo_server("127.0.0.1");
    let mut lab = Lab::new(open_config());
    echo_megabytes(&mut lab, gateway(port), 8 << 20);
}

#[test]
fn megabytes_over_ipv6_and_a_large_mtu() {
    let (port, _server) = echo_server("::1");
    let offloads = GuestOffloads {
        checksum: true,
        tso4: true,
    };
    let mut lab = Lab::with_offloads(
        Config {
            mtu: 65_000,
            ..open_config()
        },
        offloads,
    );
    echo_megabytes(
        &mut lab,
        format!("[fd00::2]:{port}").parse().unwrap(),
        8 << 20,
    );
}

#[test]
fn segmentation_is_left_to_the_guest_where_it_can() {
    let (port, _server) = echo_server("127.0.0.1");
    let mut lab = Lab::with_offloads(
        open_config(),
        GuestOffloads {
            checksum: true,
            tso4: true,
        },
    );
    echo_megabytes(&mut lab, gateway(port), 4 << 20);
    assert!(
        lab.nic
            .inbox
            .offloads
            .iter()
            .all(|o| o.unchecked && o.segment == Some(1460))
    );
    assert!(lab.nic.inbox.offloads.len() > 10);
}

#[test]
fn many_connections_at_once() {
    let (port, _server) = echo_server("127.0.0.1");
    let mut lab = Lab::new(open_config());
    let handles: Vec<_> = (0..200).map(|_| lab.connect(gateway(port))).collect();
    lab.until(20, "200 connections", |lab| {
        handles.iter().all(|&h| lab.tcp(h).may_send())
    });
    assert_eq!(lab.net.stats().tcp_flows, 200);
    for (i, &handle) in handles.iter().enumerate() {
        lab.tcp(handle)
            .send_slice(format!("I am {i}").as_bytes())
            .unwrap();
    }
    for (i, &handle) in handles.iter().enumerate() {
        let expected = format!("I am {i}");
        lab.until(20, "answers", |lab| {
            lab.tcp(handle).recv_queue() == expected.len()
        });
        lab.tcp(handle)
            .recv(|b| (b.len(), assert_eq!(b, expected.as_bytes())))
            .unwrap();
        lab.tcp(handle).close();
    }
    lab.until(20, "all closed", |lab| lab.net.stats().tcp_flows == 0);
}

#[test]
fn a_refusal_reaches_the_guest() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut lab = Lab::new(open_config());
    let handle = lab.connect(gateway(port));
    lab.until(5, "reset", |lab| lab.tcp(handle).state() == State::Closed);
    assert_eq!(lab.net.stats().tcp_flows, 0);
}

#[test]
fn the_hosts_loopback_is_closed_by_default() {
    let (port, _server) = echo_server("127.0.0.1");
    let mut lab = Lab::new(Config::default());
    for to in [
        gateway(port),
        format!("[fd00::2]:{port}").parse().unwrap(),
        format!("127.0.0.1:{port}").parse().unwrap(),
    ] {
        let handle = lab.connect(to);
        lab.until(5, "reset", |lab| lab.tcp(handle).state() == State::Closed);
    }
    assert_eq!(lab.net.stats().refused, 3);
    assert_eq!(lab.net.stats().tcp_opened, 0);
}

#[test]
fn halves_close_one_by_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut lab = Lab::new(open_config());
    let handle = lab.connect(gateway(port));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"after your end").unwrap();
        all
    });
    lab.until(5, "connected", |lab| lab.tcp(handle).may_send());
    lab.tcp(handle).send_slice(b"request").unwrap();
    lab.tcp(handle).close();
    lab.until(5, "answer", |lab| lab.tcp(handle).recv_queue() == 14);
    lab.until(5, "end", |lab| {
        !lab.tcp(handle).may_recv() || lab.tcp(handle).state() == State::TimeWait
    });
    assert_eq!(server.join().unwrap(), b"request");
}

#[test]
fn resets_travel_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut lab = Lab::new(open_config());
    let first = lab.connect(gateway(port));
    lab.until(5, "connected", |lab| lab.tcp(first).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    lab.tcp(first).abort();
    lab.until(5, "flow gone", |lab| lab.net.stats().tcp_flows == 0);
    assert_eq!(
        stream.read(&mut [0; 8]).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );

    let second = lab.connect(gateway(port));
    lab.until(5, "connected", |lab| lab.tcp(second).may_send());
    let (stream, _) = listener.accept().unwrap();
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    lab.until(5, "reset", |lab| lab.tcp(second).state() == State::Closed);
}

#[test]
fn a_reset_with_bytes_of_the_guest_still_waiting_ends_the_flow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut lab = Lab::new(open_config());
    let handle = lab.connect(gateway(port));
    lab.until(5, "connected", |lab| lab.tcp(handle).may_send());
    let (stream, _) = listener.accept().unwrap();
    // Nobody reads: the host's buffers fill, then the flow's.
    for _ in 0..2000 {
        let _ = lab.tcp(handle).send_slice(&[9; 65_536]);
        lab.step();
    }
    drop(stream);
    lab.until(5, "reset", |lab| {
        lab.tcp(handle).state() == State::Closed && lab.net.stats().tcp_flows == 0
    });
}

#[test]
fn forwards_lead_to_the_guest() {
    let forward = Forward {
        protocol: Protocol::Tcp,
        host: "127.0.0.1:0".parse().unwrap(),
        guest_port: 80,
    };
    let mut lab = Lab::new(Config {
        forwards: vec![forward],
        ..Config::default()
    });
    let address = lab.net.forward_addresses()[0];
    let mut server = tcp_socket(65_536);
    server.listen(80).unwrap();
    let handle = lab.sockets.add(server);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    lab.until(5, "request", |lab| lab.tcp(handle).recv_queue() == 5);
    assert_eq!(
        lab.tcp(handle).remote_endpoint().unwrap().addr,
        "10.0.2.2".parse().unwrap()
    );
    lab.tcp(handle).send_slice(b"200 hello").unwrap();
    lab.tcp(handle).close();
    lab.until(5, "end", |lab| lab.net.stats().tcp_flows == 0);
    assert_eq!(client.join().unwrap(), "200 hello");

    // Nobody listens any more: the client sees a reset, not silence.
    lab.sockets.remove(handle);
    let client =
        thread::spawn(move || TcpStream::connect(address).and_then(|mut s| s.read(&mut [0; 1])));
    lab.until(5, "reset", |lab| {
        lab.net.stats().tcp_opened == 2 && lab.net.stats().tcp_flows == 0
    });
    assert_eq!(
        client.join().unwrap().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

/// A guest that stops reading, then a host that does: the other side is stopped, little is kept, nothing is lost.
#[test]
fn slow_readers_stop_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut lab = Lab::new(open_config());
    let handle = lab.connect(gateway(port));
    lab.until(5, "connected", |lab| lab.tcp(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    const TOTAL: usize = 64 << 20;
    let writer = thread::spawn(move || {
        let mut sent = 0;
        let chunk: Vec<u8> = vec![7; 1 << 16];
        while sent < TOTAL {
            match stream.write(&chunk[..chunk.len().min(TOTAL - sent)]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        (stream, sent)
    });
    lab.run(Duration::from_millis(600));
    let (mut stream, sent) = writer.join().unwrap();
    assert!(sent < TOTAL, "the host's writer was never stopped");
    assert!(lab.net.stats().tcp_memory <= 1 << 20);
    let mut got = 0;
    lab.until(30, "the rest", |lab| {
        got += lab.tcp(handle).recv(|b| (b.len(), b.len())).unwrap();
        got == sent
    });

    let mut pushed = 0;
    let before = std::time::Instant::now();
    while before.elapsed() < Duration::from_millis(400) {
        pushed += lab.tcp(handle).send_slice(&[9; 65_536]).unwrap();
        lab.step();
    }
    let reader = thread::spawn(move || {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (mut total, mut buf) = (0, vec![0; 1 << 16]);
        while total < pushed {
            total += stream.read(&mut buf).unwrap();
        }
        total
    });
    lab.until(30, "drained", |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), pushed);
}

#[test]
fn connections_are_bounded() {
    let (port, _server) = echo_server("127.0.0.1");
    let limits = Limits {
        tcp_flows: 10,
        ..Limits::default()
    };
    let mut lab = Lab::new(Config {
        limits,
        ..open_config()
    });
    let handles: Vec<_> = (0..25).map(|_| lab.connect(gateway(port))).collect();
    lab.until(10, "all decided", |lab| {
        handles
            .iter()
            .all(|&h| matches!(lab.tcp(h).state(), State::Established | State::Closed))
    });
    let open = handles
        .iter()
        .filter(|&&h| lab.tcp(h).state() == State::Established)
        .count();
    assert_eq!(
        (open, lab.net.stats().tcp_flows, lab.net.stats().refused),
        (10, 10, 15)
    );
}
