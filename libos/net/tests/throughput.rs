//! How fast the stack is: `cargo test --release -p unik-net --test throughput -- --ignored --nocapture`.

mod common;
use common::*;
use std::time::Instant;
use unik_net::{InetSocket, Limits, ready};

const TOTAL: usize = 1 << 30;

fn bulk(what: &str, from: &InetSocket, to: &InetSocket, mut step: impl FnMut()) {
    let (chunk, mut room) = (vec![1; 128 << 10], vec![0; 128 << 10]);
    let (begin, mut got) = (Instant::now(), 0);
    while got < TOTAL {
        let _ = send(from, &chunk);
        step();
        got += to.receive(&mut [&mut room], false).map_or(0, |r| r.len);
    }
    println!(
        "{what}: {:.1} Gbit/s",
        got as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
    );
}

#[test]
#[ignore = "a measurement, for release builds"]
fn streams_round_trips_and_connections() {
    let (net, _) = machine(1, Limits::default());
    let (server, port) = listener(&net, AF_INET, "127.0.0.1:0");
    let to = at(&format!("127.0.0.1:{port}"));
    let client = inet(&net, AF_INET, STREAM);
    client.connect(&to).unwrap();
    client.set_option(6, 1, &1u32.to_ne_bytes()).unwrap();
    let (accepted, _) = server.accept().unwrap();
    bulk("loopback stream", &client, &accepted, || {});
    let (begin, mut buf) = (Instant::now(), [0; 256]);
    for _ in 0..200_000 {
        send(&client, &buf[..100]).unwrap();
        accepted.receive(&mut [&mut buf], false).unwrap();
        send(&accepted, &buf[..200]).unwrap();
        client.receive(&mut [&mut buf], false).unwrap();
    }
    println!(
        "loopback request and answer: {:.0} ns",
        begin.elapsed().as_nanos() as f64 / 200_000.0
    );
    let begin = Instant::now();
    for _ in 0..50_000 {
        let client = inet(&net, AF_INET, STREAM);
        client.connect(&to).unwrap();
        server.accept().unwrap();
    }
    println!(
        "loopback connect, accept, close: {:.0} ns",
        begin.elapsed().as_nanos() as f64 / 50_000.0
    );
    for (mtu, offloads) in [(1500, false), (1500, true), (65_000, true)] {
        let pair = Pair::new(mtu, offloads, None);
        let (server, port) = listener(&pair.b, AF_INET, "10.0.0.2:0");
        let client = inet(&pair.a, AF_INET, STREAM);
        let _ = client.connect(&at(&format!("10.0.0.2:{port}")));
        pair.until("accepted", || server.poll() & ready::IN != 0);
        let (accepted, _) = server.accept().unwrap();
        bulk(
            &format!("two machines, MTU {mtu}, offloads {offloads}"),
            &client,
            &accepted,
            || pair.step(),
        );
    }
}
