//! Network cards: virtio drivers as the network's packet devices, and when they interrupt.
//!
//! While somebody looks, nobody interrupts: [`waiting`] is a look at one memory word a card, made at every chance ([`super::look`]). Only a
//! vCPU that is about to halt asks for an interrupt ([`arm`]), and the watch in [`super`] for a program that makes no calls.

use crate::console::{Bus, Dma};
use crate::lock::Locked;
use crate::{config, interrupts};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicUsize, Ordering};
use unik_net::{DeviceInfo, PacketDevice, TxOffload};
use unik_virtio::mmio::{BatchedMmio, Prefetch};
use unik_virtio::net::{self, Segments, Work};
use unik_virtio::{DeviceType, DriverError};

/// Most cards.
const MAX_CARDS: usize = 8;

type Driver = net::Net<Dma, BatchedMmio<Bus>>;

struct Card {
    driver: RefCell<Driver>,
    gsi: Option<u32>,
}

static CARDS: Locked<Vec<Rc<Card>>> = Locked::new(Vec::new());

/// One card's count of received chains: where the device counts, and up to where it was read.
struct Ring {
    cell: AtomicPtr<AtomicU16>,
    seen: AtomicU16,
}

static RINGS: [Ring; MAX_CARDS] = [const {
    Ring {
        cell: AtomicPtr::new(core::ptr::null_mut()),
        seen: AtomicU16::new(0),
    }
}; MAX_CARDS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Brings up the card behind the register window at `window`.
pub fn open(window: u64) -> Result<Box<dyn PacketDevice>, DriverError> {
    let prefetch = Prefetch {
        queues: net::QUEUES,
        config_words: net::CONFIG_WORDS,
        trust_type: config::get().own_monitor,
    };
    let transport = BatchedMmio::probe(Bus, window, DeviceType::Network, prefetch)?;
    let driver = Driver::new(transport)?;
    let card = Rc::new(Card {
        driver: RefCell::new(driver),
        gsi: interrupts::gsi_of(window),
    });
    if let Some(gsi) = card.gsi {
        interrupts::route(gsi);
    }
    let mut cards = CARDS.get();
    if let Some(ring) = RINGS.get(cards.len()) {
        let cell = card.driver.borrow().watch().as_ptr();
        ring.cell.store(cell, Ordering::Release);
        cards.push(card.clone());
        COUNT.store(cards.len(), Ordering::Release);
    }
    Ok(Box::new(Port(card)))
}

/// True when a card has received something that nobody has taken. Needs no lock.
#[inline]
pub fn waiting() -> bool {
    RINGS[..COUNT.load(Ordering::Relaxed)].iter().any(|ring| {
        // SAFETY: a ring of a driver that is never dropped; the device only writes numbers there.
        let count = unsafe { &*ring.cell.load(Ordering::Relaxed) };
        count.load(Ordering::Acquire) != ring.seen.load(Ordering::Relaxed)
    })
}

/// True when there are cards.
pub fn any() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// Asks the cards for an interrupt at their next frame, until one has a frame already: then true.
pub fn arm() -> bool {
    CARDS
        .get()
        .iter()
        .any(|card| card.driver.borrow_mut().arm())
}

/// Asks all cards for silence.
pub fn disarm() {
    CARDS
        .get()
        .iter()
        .for_each(|card| card.driver.borrow_mut().disarm());
}

/// Notes how far the cards were read.
pub fn note_seen() {
    for (card, ring) in CARDS.get().iter().zip(&RINGS) {
        let seen = card.driver.borrow().seen();
        ring.seen.store(seen, Ordering::Relaxed);
    }
}

/// True when one of the cards' interrupts is among `vectors`; it is acknowledged where the monitor needs that to send another.
pub fn interrupted(vectors: crate::arch::vcpu::Vectors) -> bool {
    let mut found = false;
    for card in CARDS.get().iter() {
        if card.gsi.is_some_and(|gsi| interrupts::has(vectors, gsi)) {
            found = true;
            // Our own monitor sends each of these edges, acknowledged or not; an access to a register costs more than the rest.
            if !config::get().own_monitor {
                card.driver.borrow_mut().ack_interrupt();
            }
        }
    }
    found
}

/// A card as the network sees it.
struct Port(Rc<Card>);

impl PacketDevice for Port {
    fn info(&self) -> DeviceInfo {
        let info = self.0.driver.borrow().info();
        DeviceInfo {
            mac: info.mac,
            mtu: info.mtu.into(),
            checksum: info.checksum,
            tso4: info.tso4,
            lossy: true,
        }
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> bool {
        self.0.driver.borrow_mut().receive(take).unwrap_or(false)
    }

    fn ready(&mut self) -> bool {
        self.0.driver.borrow_mut().ready()
    }

    fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxOffload) {
        let mut fill = |frame: &mut [u8]| work(&fill(frame));
        self.0.driver.borrow_mut().send(len, &mut fill);
    }

    fn flush(&mut self) {
        self.0.driver.borrow_mut().flush();
    }
}

/// What is left to do with a frame, in the driver's words.
fn work(offload: &TxOffload) -> Work {
    Work {
        checksum: offload.checksum.map(|field| (field.start, field.offset)),
        segments: offload.segment.map(|size| Segments {
            size,
            header_len: offload.header_len,
        }),
    }
}
