//! Network card (virtio 1.2, 5.1): one pair of queues, frames shown in place, frames built in place.
//!
//! [`Net`] joins [`receive::Receiver`] and [`transmit::Transmitter`]. Checksums and segmentation are the device's work where it offers
//! that, in both directions. Neither direction interrupts by itself: [`Net::arm`] asks for one interrupt, for a driver's owner that is about to sleep.

mod receive;
mod transmit;

use crate::queue::RingWatch;
use crate::setup::{DriverError, F_EVENT_IDX, finish, negotiate};
use receive::Receiver;
use transmit::Transmitter;
use virtio_drivers::Hal;
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};

const RX_QUEUE: u16 = 0;
const TX_QUEUE: u16 = 1;

/// Number of queues to prefetch for this driver.
pub const QUEUES: u16 = 2;
/// Words of configuration to prefetch: MAC address, status, pairs, MTU.
pub const CONFIG_WORDS: u16 = 3;

const MTU_AT: usize = 10;
const DEFAULT_MTU: u16 = 1500;

/// Feature bits (virtio 1.2, 5.1.3).
mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const MRG_RXBUF: u64 = 1 << 15;
}

/// Bytes of `struct virtio_net_hdr` before each frame.
const HEADER: usize = 12;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Largest frame with segments to cut or put together.
const LARGE_FRAME: usize = ETHERNET + 65_535;

/// `virtio_net_hdr::flags`: the checksum is only begun.
const NEEDS_CSUM: u8 = 1;
/// `virtio_net_hdr::flags`: the checksum was found good.
const DATA_VALID: u8 = 2;

/// What a card is and can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Finishes TCP and UDP checksums of frames sent.
    pub checksum: bool,
    /// Cuts large TCP packets over IPv4 into segments.
    pub tso4: bool,
}

/// Into what a card cuts a large TCP packet over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of payload in each.
    pub size: u16,
    /// Bytes of all headers, Ethernet to TCP.
    pub header_len: u16,
}

/// What the card has still to do with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Sum from the first number on, put the result at the sum of both (`csum_start`, `csum_offset`).
    pub checksum: Option<(u16, u16)>,
    /// Cut it up.
    pub segments: Option<Segments>,
}

/// A network card.
pub struct Net<H: Hal, T: Transport> {
    transport: T,
    info: Info,
    rx: Receiver<H>,
    tx: Transmitter<H>,
}

impl<H: Hal, T: Transport> Net<H, T> {
    /// Brings the device up. `transport` should have prefetched [`QUEUES`] queues and [`CONFIG_WORDS`] words.
    ///
    /// # Errors
    /// The device is too old or too small, or there is no memory.
    pub fn new(mut transport: T) -> Result<Self, DriverError> {
        let wanted = wishes(transport.read_device_features());
        let features = negotiate(&mut transport, wanted)?;
        let has = |bit: u64| features & bit != 0;
        let info = Info {
            mac: transport
                .read_config_space(0)
                .ok()
                .filter(|_| has(feature::MAC))
                .unwrap_or([2, 0, 0, 0, 0, 1]),
            mtu: transport
                .read_config_space(MTU_AT)
                .ok()
                .filter(|&mtu: &u16| has(feature::MTU) && mtu >= 1280)
                .unwrap_or(DEFAULT_MTU),
            checksum: has(feature::CSUM),
            tso4: has(feature::HOST_TSO4),
        };
        let event_idx = has(F_EVENT_IDX);
        let largest = largest_frame(&info);
        let rx = Receiver::new(&mut transport, event_idx, has(feature::MRG_RXBUF), largest)?;
        let tx = Transmitter::new(&mut transport, event_idx, info)?;
        finish(&mut transport);
        let mut this = Self {
            transport,
            info,
            rx,
            tx,
        };
        this.rx.offer(&mut this.transport);
        Ok(this)
    }

    /// What it is.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Shows the next received frame to `take`, with `true` when its transport checksum needs no look. False when there is none.
    ///
    /// # Errors
    /// The device broke the protocol; nothing comes from it any more.
    pub fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> Result<bool, DriverError> {
        let found = self.rx.receive(take)?;
        if !found || self.rx.owed() {
            self.rx.offer(&mut self.transport);
        }
        Ok(found)
    }

    /// True when a frame of any size can be sent now.
    pub fn ready(&mut self) -> bool {
        self.tx.ready()
    }

    /// Queues a frame of `len` bytes written by `fill`, which says what the card has still to do. When there is no room `fill` is not called.
    pub fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Work) {
        self.tx.send(len, fill);
    }

    /// Shows the device what was queued, and notifies it if it wants that.
    pub fn flush(&mut self) {
        self.tx.queue.submit(&mut self.transport);
    }

    /// Asks for an interrupt at the next received frame. True when there is one already: look instead of sleeping.
    pub fn arm(&mut self) -> bool {
        self.rx.queue.arm(0)
    }

    /// Asks for an interrupt when half of what is being sent has gone. True when there is room already.
    pub fn arm_room(&mut self) -> bool {
        let half = self.tx.queue.in_flight() as u16 / 2;
        self.tx.queue.arm(half) && self.tx.ready()
    }

    /// Asks for no interrupts. One may still come.
    pub fn disarm(&mut self) {
        self.rx.queue.disable_interrupts();
    }

    /// Where the device counts received chains, for whoever looks without asking the driver.
    pub fn watch(&self) -> RingWatch {
        self.rx.queue.watch()
    }

    /// Chains taken so far: what [`Self::watch`] shows while nothing is new.
    pub fn seen(&self) -> u16 {
        self.rx.queue.popped()
    }

    /// Acknowledges the device's interrupt.
    pub fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }
}

impl<H: Hal, T: Transport> Drop for Net<H, T> {
    fn drop(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
    }
}

/// The features to ask for: segmentation stands on checksums (virtio 1.2, 5.1.3.1), and large frames come only into merged buffers.
fn wishes(offered: u64) -> u64 {
    use feature::{CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, MRG_RXBUF};
    let mut wanted = F_EVENT_IDX | feature::MAC | feature::MTU | MRG_RXBUF | CSUM | GUEST_CSUM;
    if offered & CSUM != 0 {
        wanted |= HOST_TSO4;
    }
    if offered & GUEST_CSUM != 0 && offered & MRG_RXBUF != 0 {
        wanted |= GUEST_TSO4 | GUEST_TSO6;
    }
    wanted
}

/// Bytes of the largest frame that is sent.
fn largest_frame(info: &Info) -> usize {
    if info.tso4 {
        LARGE_FRAME
    } else {
        ETHERNET + usize::from(info.mtu)
    }
}
