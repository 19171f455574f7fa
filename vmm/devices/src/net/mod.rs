//! virtio-net (specification 5.1): frames out, frames in. Where they go and come from is a back end's business.
//!
//! [`Mmio::exchange`] gives a back end both directions at once: [`Outgoing`] hands out what the driver sends, [`Incoming`] takes what it is to
//! receive. All interrupts of one exchange are one. Frames stay in guest memory: a back end can copy them or hand the pieces to the host's
//! vectored calls. A driver's claims about a frame (missing checksum, several segments in one) are believed only where they were
//! negotiated and fit into the frame; others make the frame vanish, as on a wire that loses it.
//!
//! - [`header`]: what stands before every frame. - [`traffic`]: the two directions.

pub mod header;
pub mod traffic;

use vm_memory::GuestMemoryMmap;

use crate::virtio::mmio::Mmio;
use crate::virtio::{Broken, Device};
pub use header::{ETHERNET, HEADER, Header};
pub use traffic::{Frame, Incoming, Outgoing, Traffic};

/// Queue of buffers for frames to the driver.
pub const RECEIVE: usize = 0;
/// Queue of frames from the driver.
pub const TRANSMIT: usize = 1;

/// Bytes of the longest frame: an IP packet of 64 KiB behind an Ethernet header with a VLAN tag.
pub const LONGEST: usize = ETHERNET + 4 + 65_535;

mod feature {
    pub const CSUM: u64 = 1;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
}

/// Work that one side leaves to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP and UDP checksums.
    pub checksum: bool,
    /// Cutting a large TCP segment over IPv4 into small ones.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
}

impl Offloads {
    /// The feature bits of these offloads, each where `bits` says.
    fn bits(self, bits: [u64; 3]) -> u64 {
        [self.checksum, self.tso4, self.tso6]
            .iter()
            .zip(bits)
            .map(|(&is, bit)| if is { bit } else { 0 })
            .sum()
    }

    /// The offloads in a driver's features. Without checksums there is no segmentation (specification 5.1.3.1).
    fn accepted(features: u64, [checksum, tso4, tso6]: [u64; 3]) -> Self {
        let checksum = features & checksum != 0;
        Self {
            checksum,
            tso4: checksum && features & tso4 != 0,
            tso6: checksum && features & tso6 != 0,
        }
    }
}

/// Feature bits of what the driver leaves to us.
const FROM_DRIVER: [u64; 3] = [feature::CSUM, feature::HOST_TSO4, feature::HOST_TSO6];
/// Feature bits of what we leave to the driver.
const TO_DRIVER: [u64; 3] = [
    feature::GUEST_CSUM,
    feature::GUEST_TSO4,
    feature::GUEST_TSO6,
];

/// What a card says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its address.
    pub mac: [u8; 6],
    /// Bytes of the longest IP packet, segments that stand for several apart.
    pub mtu: u16,
    /// What the back end can do for the driver.
    pub from_driver: Offloads,
    /// What the back end would like to leave to the driver.
    pub to_driver: Offloads,
}

/// What has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of the driver.
    pub sent: u64,
    /// Frames for the driver.
    pub received: u64,
    /// Frames of either direction that were malformed or found no room.
    pub dropped: u64,
    /// Interrupts for all these.
    pub interrupts: u64,
}

/// Plain data of a card.
#[derive(Clone, Debug)]
pub struct State {
    settings: Settings,
    /// What the driver accepted.
    features: u64,
    /// How many drivers have come up.
    session: u64,
    counts: Counts,
    posted: traffic::Posted,
}

/// A network card.
#[derive(Debug)]
pub struct Net {
    state: State,
}

impl Net {
    /// A card.
    pub fn new(settings: Settings) -> Self {
        Self {
            state: State {
                settings,
                features: 0,
                session: 0,
                counts: Counts::default(),
                posted: traffic::Posted::default(),
            },
        }
    }

    /// What has passed so far.
    pub fn counts(&self) -> Counts {
        self.state.counts
    }
}

impl Device for Net {
    const KIND: u32 = 1;
    const FEATURES: u64 = feature::MTU | feature::MAC | feature::MRG_RXBUF | feature::STATUS;
    const QUEUES: &'static [u16] = &[256, 256];

    fn features(&self) -> u64 {
        let settings = &self.state.settings;
        Self::FEATURES | settings.from_driver.bits(FROM_DRIVER) | settings.to_driver.bits(TO_DRIVER)
    }

    /// `struct virtio_net_config`: address, status (the link is up), number of queue pairs, MTU.
    fn config(&self) -> Vec<u8> {
        let settings = &self.state.settings;
        let mut bytes = settings.mac.to_vec();
        for word in [1, 1, settings.mtu] {
            bytes.extend(u16::to_le_bytes(word));
        }
        bytes
    }

    fn accept(&mut self, features: u64) {
        self.state.features = features;
        self.state.session += 1;
    }

    fn reset(&mut self) {
        self.state.features = 0;
        self.state.posted = traffic::Posted::default();
    }
}

impl Mmio<Net> {
    /// Lets a back end take frames of the driver and give it others; `None`: no driver is ready.
    pub fn exchange<R>(
        &mut self,
        mem: &GuestMemoryMmap,
        work: impl FnOnce(&mut Traffic<'_>) -> R,
    ) -> Option<R> {
        self.work(|net, rings| {
            let [receive, transmit] = rings else {
                return Err(Broken);
            };
            let state = &mut net.state;
            let mut traffic = Traffic::new(state, receive, transmit, mem);
            let result = work(&mut traffic);
            let interrupt = traffic.finish()?;
            state.counts.interrupts += u64::from(interrupt);
            Ok((result, interrupt))
        })
    }
}

#[cfg(test)]
mod tests;
