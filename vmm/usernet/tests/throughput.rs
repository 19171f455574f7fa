//! How fast the user network is: `cargo test --release -p unik-usernet --test throughput -- --ignored --nocapture`.

mod common;
use common::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;
use unik_usernet::{Config, GuestOffloads};

const TOTAL: usize = 1 << 30;

fn report(what: &str, since: Instant, bytes: usize) {
    let seconds = since.elapsed().as_secs_f64();
    println!(
        "{what}: {:.2} Gbit/s (guest stack included)",
        bytes as f64 * 8.0 / seconds / 1e9
    );
}

#[test]
#[ignore = "a measurement, for release builds"]
fn one_stream_each_way() {
    for (mtu, offloads) in [
        (1500, GuestOffloads::default()),
        (
            1500,
            GuestOffloads {
                checksum: true,
                tso4: true,
            },
        ),
        (
            65_000,
            GuestOffloads {
                checksum: true,
                tso4: true,
            },
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut lab = Lab::with_offloads(
            Config {
                mtu,
                ..open_config()
            },
            offloads,
        );
        let handle = lab.connect(gateway(port));
        lab.until(5, "connected", |lab| lab.tcp(handle).may_send());
        let (mut stream, _) = listener.accept().unwrap();
        let mut sender = stream.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let (mut total, mut buf) = (0, vec![0; 1 << 18]);
            while total < TOTAL {
                total += stream.read(&mut buf).unwrap();
            }
        });
        let (begin, chunk, mut sent) = (Instant::now(), vec![1; 1 << 18], 0);
        lab.until(120, "to host", |lab| {
            sent += lab
                .tcp(handle)
                .send_slice(&chunk[..chunk.len().min(TOTAL - sent)])
                .unwrap();
            sent == TOTAL && reader.is_finished()
        });
        report(
            &format!("guest to host, MTU {mtu}, {offloads:?}"),
            begin,
            TOTAL,
        );
        let (begin, mut got) = (Instant::now(), 0);
        let writer = thread::spawn(move || {
            let chunk = vec![2; 1 << 18];
            (0..TOTAL / chunk.len()).for_each(|_| sender.write_all(&chunk).unwrap());
        });
        lab.until(120, "to guest", |lab| {
            while lab.tcp(handle).can_recv() {
                got += lab.tcp(handle).recv(|b| (b.len(), b.len())).unwrap();
            }
            got == TOTAL
        });
        report(
            &format!("host to guest, MTU {mtu}, {offloads:?}"),
            begin,
            TOTAL,
        );
        writer.join().unwrap();
    }
}
