//! The user network: frames of the guest on one side, host sockets on the other. Runs in a network of its own
//! (`cargo xtask fuzz` sees to that), so that nothing leaves this machine.
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use libfuzzer_sys::fuzz_target;
use unik_usernet::{Config, FrameSink, GuestOffloads, Limits, Offload, UserNet};
use unik_vmm_fuzz::{bounded, frame};

/// Frames for the guest wait in a short queue.
#[derive(Default)]
struct Inbox(VecDeque<usize>);

impl FrameSink for Inbox {
    fn ready(&mut self) -> bool {
        self.0.len() < 16
    }

    fn send(&mut self, len: usize, offload: Offload, fill: &mut dyn FnMut(&mut [u8])) {
        assert!(
            len <= 65536 + 14 && (len <= 1514 || offload.segment.is_some()),
            "{len}"
        );
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        self.0.push_back(len);
        self.0.truncate(32);
    }
}

fn net() -> UserNet {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let alone = devices
        .lines()
        .skip(2)
        .all(|line| line.trim_start().starts_with("lo:"));
    assert!(
        alone,
        "start this by `cargo xtask fuzz usernet` or `unshare -rn`: it must have no network"
    );
    let limits = Limits {
        tcp_flows: 32,
        tcp_half_open: 8,
        udp_flows: 16,
        ping_flows: 4,
        tcp_buffer_floor: 4 << 10,
        tcp_buffer_ceiling: 16 << 10,
        tcp_buffer_pool: 256 << 10,
    };
    let forwards = ["127.0.0.1:0:80", "127.0.0.1:0:53/udp"];
    let config = Config {
        allow_host_loopback: true,
        resolvers: vec!["127.0.0.1:53".parse().expect("an address")],
        forwards: forwards
            .iter()
            .map(|f| f.parse().expect("a forward"))
            .collect(),
        limits,
        ..Config::default()
    };
    let offloads = GuestOffloads {
        checksum: true,
        tso4: true,
    };
    UserNet::new(config, offloads).expect("a user network")
}

thread_local! {
    static NET: RefCell<Option<UserNet>> = const { RefCell::new(None) };
}

fuzz_target!(|script: &[u8]| {
    NET.with_borrow_mut(|slot| {
        let net = slot.get_or_insert_with(net);
        let mut inbox = Inbox::default();
        let mut outside = Vec::new();
        bounded(8 << 20, || {
            for (command, bytes) in frame::pieces(script) {
                step(net, &mut inbox, &mut outside, command, bytes);
            }
            outside.clear();
            let _ = net.poll(&mut inbox);
            let stats = net.stats();
            assert!(stats.tcp_flows <= 32 && stats.udp_flows <= 16 && stats.ping_flows <= 4);
            net.reset(GuestOffloads::default());
        });
    });
});

fn step(
    net: &mut UserNet,
    inbox: &mut Inbox,
    outside: &mut Vec<TcpStream>,
    command: u8,
    bytes: &[u8],
) {
    let addresses = net.forward_addresses();
    match command % 8 {
        0 => net.receive(bytes, inbox),
        1..=3 => {
            let mut frame = bytes.to_vec();
            frame::repair(&mut frame);
            net.receive(&frame, inbox);
        }
        4 => {
            let _ = net.poll(inbox);
        }
        5 => inbox.0.clear(),
        6 if outside.len() < 4 => {
            if let Ok(stream) = TcpStream::connect(addresses[0]) {
                let _ = stream.set_nonblocking(true);
                outside.push(stream);
            }
            if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
                let _ = socket.send_to(bytes, addresses[1]);
            }
        }
        _ => {
            for stream in outside {
                let _ = stream.write(bytes);
                let _ = stream.read(&mut [0; 100]);
            }
        }
    }
}
