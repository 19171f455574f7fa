//! Network cards in their places: the window, and the thread that carries a card's frames.
//!
//! The thread works while there is something to carry, with the guest's doorbells off; then it looks again and again for a while, as long as that
//! has paid lately ([`patience`]), and only then asks the guest to ring and sleeps. A card that nobody uses costs a sleeping thread.
//!
//! - [`user`], [`tap`]: the back ends. - [`pcap`]: a copy for Wireshark.

pub mod patience;
pub mod pcap;
pub mod tap;
pub mod user;

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unik_devices::net::{Counts, Net, Offloads, RECEIVE, Settings, TRANSMIT, Traffic};
use unik_devices::virtio::mmio::Effect;
use unik_host::EventFd;
use unik_host::poll::{self, Watch};
use unik_host::seccomp::{self, Kind};
use vm_memory::GuestMemoryMmap;

use super::Machine;
use super::slot::{Bell, Slot, Window};
use crate::error::Error;
use crate::net::{Backend, Card};
use patience::Patience;
use pcap::Pcap;

/// What carries a card's frames. Nothing here may block.
pub trait Carrier: Send {
    /// Moves frames both ways; whether any moved.
    fn exchange(&mut self, traffic: &mut Traffic<'_>, mem: &GuestMemoryMmap) -> bool;
    /// Whether it waits for nothing but the guest's buffers.
    fn wants_room(&self) -> bool;
    /// Readable when there is something for the guest; `None` while that would not help.
    fn event(&self) -> Option<RawFd>;
    /// When to look again even if nothing happens.
    fn deadline(&self) -> Option<Instant>;
}

/// What a carrier can do.
struct Abilities {
    mac: [u8; 6],
    mtu: u16,
    from_driver: Offloads,
    to_driver: Offloads,
}

const ALL: Offloads = Offloads {
    checksum: true,
    tso4: true,
    tso6: true,
};

/// A card, its place and its bells.
struct NetWindow {
    slot: Slot<Net>,
    receive: Bell,
    transmit: Bell,
}

impl Window for NetWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.slot.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self.slot.write(offset, data) {
            Effect::Doorbell(queue) if usize::from(queue) == RECEIVE => self.receive.ring(),
            Effect::Doorbell(queue) if usize::from(queue) == TRANSMIT => self.transmit.ring(),
            Effect::Ready => self.transmit.ring(),
            _ => {}
        }
    }
}

/// What a card did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames and interrupts.
    pub counts: Counts,
    /// How often the guest rang.
    pub kicks: u64,
    /// How often the thread slept.
    pub sleeps: u64,
}

/// All cards of a machine.
pub struct Cards {
    /// What the guest is told of each: the records `net` of its configuration (`unik_abi::config`).
    pub records: Vec<String>,
    running: Vec<Running>,
}

impl Cards {
    /// Attaches `cards` to `machine`, with a copy of their traffic in the file `pcap`.
    pub fn attach(
        machine: &mut Machine,
        cards: &[Card],
        pcap: Option<&Path>,
    ) -> Result<Self, Error> {
        let pcap = pcap.map(Pcap::create).transpose()?.map(Arc::new);
        let (mut records, mut running) = (Vec::new(), Vec::new());
        for card in cards {
            let (record, thread) = attach(machine, card, pcap.as_ref())?;
            records.push(record);
            running.push(thread);
        }
        Ok(Self { records, running })
    }

    /// The guest has stopped: carries out what it still sent, and says what each card did.
    pub fn finish(self) -> Vec<Tally> {
        self.running.into_iter().map(Running::finish).collect()
    }
}

/// A card's thread.
struct Running {
    stop: Arc<Stop>,
    thread: JoinHandle<Tally>,
}

struct Stop {
    wanted: AtomicBool,
    event: EventFd,
}

impl Running {
    fn finish(self) -> Tally {
        self.stop.wanted.store(true, Ordering::Release);
        let _ = self.stop.event.write(1);
        self.thread.join().unwrap_or_default()
    }
}

/// Attaches one card and starts its thread.
fn attach(
    machine: &mut Machine,
    card: &Card,
    pcap: Option<&Arc<Pcap>>,
) -> Result<(String, Running), Error> {
    let (carrier, abilities): (Box<dyn Carrier>, Abilities) = match &card.backend {
        Backend::User(config) => user::UserCarrier::open(config, pcap.cloned())?,
        Backend::Tap(name) => tap::TapCarrier::open(name, pcap.cloned())?,
    };
    let settings = Settings {
        mac: card.mac.unwrap_or(abilities.mac),
        mtu: card.mtu.unwrap_or(abilities.mtu),
        from_driver: abilities.from_driver,
        to_driver: abilities.to_driver,
    };
    let place = machine.next_place();
    let bell = |queue| {
        Bell::new(Arc::clone(&machine.vm), place.window, queue)
            .map_err(Error::host("create an event"))
    };
    let window = Arc::new(NetWindow {
        receive: bell(RECEIVE)?,
        transmit: bell(TRANSMIT)?,
        slot: Slot::new(Net::new(settings), machine.ram.view().clone(), place.line),
    });
    machine.attach(window.clone());
    let record = format!("{:#x}{}", place.window, card.record);
    Ok((record, start(window, carrier)?))
}

fn start(window: Arc<NetWindow>, carrier: Box<dyn Carrier>) -> Result<Running, Error> {
    let stop = Arc::new(Stop {
        wanted: AtomicBool::new(false),
        event: unik_host::event().map_err(Error::host("create an event"))?,
    });
    let ours = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("unik-net".into())
        .stack_size(256 << 10)
        .spawn(move || {
            let mut worker = Worker {
                window: &window,
                carrier,
                live: false,
                kicks: 0,
                sleeps: 0,
            };
            // What cannot be confined does not serve; the event loop says why.
            if seccomp::enter(Kind::Network).is_ok() {
                worker.serve(&ours);
            }
            Tally {
                counts: window.slot.with(|device, _| device.device().counts()),
                kicks: worker.kicks,
                sleeps: worker.sleeps,
            }
        })
        .map_err(Error::host("start a thread"))?;
    Ok(Running { stop, thread })
}

struct Worker<'a> {
    window: &'a NetWindow,
    carrier: Box<dyn Carrier>,
    /// There was a driver at the last exchange.
    live: bool,
    kicks: u64,
    sleeps: u64,
}

impl Worker<'_> {
    fn serve(&mut self, stop: &Stop) {
        let mut patience = Patience::default();
        loop {
            // Asked first, so that what the guest sent before it stopped is seen below.
            let last = stop.wanted.load(Ordering::Acquire);
            if self.exchange() {
                patience.renew();
                continue;
            }
            if last {
                return;
            }
            if patience.lasts() {
                std::thread::yield_now();
                continue;
            }
            if self.listen() {
                continue;
            }
            let asleep = Instant::now();
            if self.sleep(stop).is_err() {
                return;
            }
            patience.learn(asleep.elapsed());
        }
    }

    fn exchange(&mut self) -> bool {
        let carrier = &mut self.carrier;
        let moved = self.window.slot.with(|device, mem| {
            device.exchange(mem, |traffic| {
                traffic.outgoing.quiet();
                carrier.exchange(traffic, mem)
            })
        });
        self.live = moved.is_some();
        moved.unwrap_or(false)
    }

    /// Asks the guest to ring. `true`: there is something to do already.
    fn listen(&self) -> bool {
        let wants_room = self.carrier.wants_room();
        let listen = |traffic: &mut Traffic<'_>| {
            // With room already, it is not buffers that things wait for.
            let room = wants_room && !traffic.incoming.ready() && traffic.incoming.listen();
            traffic.outgoing.listen() || room
        };
        self.window
            .slot
            .with(|device, mem| device.exchange(mem, listen))
            .unwrap_or(false)
    }

    fn sleep(&mut self, stop: &Stop) -> std::io::Result<()> {
        let now = Instant::now();
        let limit = self
            .carrier
            .deadline()
            .map(|at| at.saturating_duration_since(now));
        // Without a driver nothing would take what comes, and the event would stay.
        let event = self.carrier.event().filter(|_| self.live);
        let mut watches = [
            Watch::readable(&stop.event),
            Watch::readable(self.window.receive.event()),
            Watch::readable(self.window.transmit.event()),
            Watch::readable(&event.unwrap_or(-1)),
        ];
        poll::wait(&mut watches, limit.map(|l| l.max(Duration::from_millis(1))))?;
        self.sleeps += 1;
        for (watch, bell) in [
            (watches[1], &self.window.receive),
            (watches[2], &self.window.transmit),
        ] {
            if watch.ready {
                self.kicks += bell.clear();
            }
        }
        Ok(())
    }
}
