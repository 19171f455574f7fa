//! The guest's side of the wire: frames from the network into the library OS's stack, with sockets that listen, connect and receive.
#![no_main]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use unik_net::addr::Address;
use unik_net::message::{Ancillary, Credentials};
use unik_net::{
    DeviceInfo, Host, InetSocket, Limits, LinkSetup, Net, PacketDevice, Socket, TxOffload,
};
use unik_vmm_fuzz::{bounded, frame};

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// A clock that scripts move, and a poor generator.
struct Fate {
    now: Rc<Cell<u64>>,
    state: Cell<u64>,
}

impl Host for Fate {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn realtime(&self) -> u64 {
        self.now.get()
    }

    fn random(&self) -> u64 {
        let next = self
            .state
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.state.set(next);
        next ^ next >> 29
    }
}

struct Card(Frames);

impl PacketDevice for Card {
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            checksum: true,
            tso4: true,
            lossy: true,
        }
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> bool {
        let Some(frame) = self.0.borrow_mut().pop_front() else {
            return false;
        };
        take(&frame, frame.len().is_multiple_of(2));
        true
    }

    fn ready(&mut self) -> bool {
        true
    }

    fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxOffload) {
        let mut frame = vec![0; len];
        let offload = fill(&mut frame);
        assert!(len <= 1514 || offload.segment.is_some(), "{len}");
    }

    fn flush(&mut self) {}
}

struct Guest {
    net: Rc<Net>,
    frames: Frames,
    now: Rc<Cell<u64>>,
    listener: Rc<InetSocket>,
    open: Vec<Rc<InetSocket>>,
}

fn guest() -> Guest {
    let (now, frames) = (Rc::new(Cell::new(1 << 30)), Frames::default());
    let fate = Fate {
        now: now.clone(),
        state: Cell::new(7),
    };
    let net = Net::new(Rc::new(fate), Limits::default());
    let setup = LinkSetup {
        name: "eth0".into(),
        addresses: vec![
            ([10, 0, 0, 1].into(), 24),
            ("fd00::1".parse().expect("an address"), 64),
        ],
        gateway_v4: Some([10, 0, 0, 2].into()),
        ..LinkSetup::default()
    };
    net.add_link(Box::new(Card(frames.clone())), &setup);
    let (listener, datagrams) = (socket(&net, 10, 1), socket(&net, 10, 2));
    let at = |port: u16| Address::Inet(([0u16; 8], port).into());
    listener.bind(&at(80)).expect("a free port");
    listener.listen(4).expect("a listener");
    datagrams.bind(&at(53)).expect("a free port");
    Guest {
        net,
        frames,
        now,
        listener,
        open: vec![datagrams],
    }
}

fn socket(net: &Rc<Net>, family: u32, kind: u32) -> Rc<InetSocket> {
    match net.socket(family, kind, 0, Credentials::default()) {
        Ok(Socket::Inet(socket)) => socket,
        _ => unreachable!("an internet socket was asked for"),
    }
}

fuzz_target!(|script: &[u8]| {
    bounded(16 << 20, || {
        let mut guest = guest();
        for (command, bytes) in frame::pieces(script) {
            guest.step(command, bytes);
        }
        assert!(guest.net.connections() <= 2048);
    });
});

impl Guest {
    fn step(&mut self, command: u8, bytes: &[u8]) {
        let first = u64::from(bytes.first().copied().unwrap_or(0));
        match command % 8 {
            0 => self.frames.borrow_mut().push_back(bytes.to_vec()),
            1..=3 => {
                let mut frame = bytes.to_vec();
                frame::repair(&mut frame);
                self.frames.borrow_mut().push_back(frame);
            }
            4 => self.now.set(self.now.get() + first * 20_000_000),
            5 if self.open.len() < 16 => {
                if let Ok((socket, _)) = self.listener.accept() {
                    self.open.push(socket);
                }
                let socket = socket(&self.net, 2, 1);
                let to = Address::Inet(([10, 0, 0, 2], 7).into());
                let _ = socket.connect(&to);
                self.open.push(socket);
            }
            6 => {
                for socket in &self.open {
                    let _ = socket.receive(&mut [&mut [0; 200]], first & 1 != 0);
                    let _ = socket.send(&[bytes], None, &Ancillary::default());
                }
            }
            _ => self.open.truncate(1 + first as usize % 16),
        }
        for _ in 0..8 {
            if !self.net.poll() {
                break;
            }
        }
        let _ = self.net.deadline();
    }
}
