//! A tap device as carrier: the host's kernel reads and writes the guest's buffers itself.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use unik_devices::net::{HEADER, Header, Incoming, Outgoing, Traffic};
use unik_devices::virtio::ring::Segment;
use unik_host::tap::Tap;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::pcap::Pcap;
use super::{ALL, Abilities, Carrier};
use crate::error::Error;
use crate::net::NetError;

/// Most frames taken from the host before the guest's get their turn.
const BURST: usize = 128;

/// A tap device.
pub struct TapCarrier {
    tap: Tap,
    session: u64,
    /// Frames of the host wait for buffers.
    starved: bool,
    /// The device is gone.
    failed: bool,
    buffers: Vec<Segment>,
    frame: Vec<u8>,
    pcap: Option<Arc<Pcap>>,
}

impl TapCarrier {
    /// Opens the host's device.
    pub(super) fn open(
        name: &str,
        pcap: Option<Arc<Pcap>>,
    ) -> Result<(Box<dyn Carrier>, Abilities), Error> {
        let tap = Tap::open(name).map_err(NetError::Tap)?;
        let abilities = Abilities {
            mac: tap.peer_mac(),
            mtu: tap.mtu(),
            from_driver: ALL,
            to_driver: ALL,
        };
        let carrier = Self {
            tap,
            session: 0,
            starved: false,
            failed: false,
            buffers: Vec::new(),
            frame: Vec::new(),
            pcap,
        };
        Ok((Box::new(carrier), abilities))
    }

    fn meet(&mut self, traffic: &Traffic<'_>) {
        if traffic.session != self.session {
            self.session = traffic.session;
            let to = traffic.to_driver;
            // An old kernel that knows a kind of segments not: then it cuts them.
            let _ = self.tap.set_offloads(to.checksum, to.tso4, to.tso6);
        }
    }

    /// Frames to the host. One that it does not take is lost, as on a wire.
    fn send(&mut self, outgoing: &mut Outgoing<'_>, mem: &GuestMemoryMmap) -> bool {
        let mut moved = false;
        while let Some(frame) = outgoing.take() {
            let _ = self
                .tap
                .write(&frame.header.to_bytes(0), mem, &pieces(&frame.segments));
            if let Some(pcap) = &self.pcap {
                self.frame.clear();
                outgoing.copy(&frame, &mut self.frame);
                pcap.add(&self.frame);
            }
            outgoing.done(&frame);
            moved = true;
        }
        moved
    }

    /// Frames of the host.
    fn receive(&mut self, incoming: &mut Incoming<'_>, mem: &GuestMemoryMmap) -> bool {
        for taken in 0..BURST {
            self.starved = !incoming.buffers(&mut self.buffers);
            if self.starved || self.failed {
                return taken > 0;
            }
            let mut header = [0; HEADER];
            match self.tap.read(&mut header, mem, &pieces(&self.buffers)) {
                Ok(len) => {
                    incoming.filled(Header::from_bytes(&header), len);
                    self.copy(len, mem);
                }
                Err(error) => {
                    self.failed = error.kind() != ErrorKind::WouldBlock;
                    return taken > 0;
                }
            }
        }
        true
    }

    /// Copies the frame that is in the buffers for Wireshark.
    fn copy(&mut self, len: usize, mem: &GuestMemoryMmap) {
        let Some(pcap) = &self.pcap else { return };
        self.frame.clear();
        for segment in &mut self.buffers {
            let left = len - self.frame.len();
            if left == 0 || segment.read_front(mem, &mut self.frame, left).is_err() {
                break;
            }
        }
        pcap.add(&self.frame);
    }
}

impl Carrier for TapCarrier {
    fn exchange(&mut self, traffic: &mut Traffic<'_>, mem: &GuestMemoryMmap) -> bool {
        self.meet(traffic);
        let sent = self.send(&mut traffic.outgoing, mem);
        let moved = self.receive(&mut traffic.incoming, mem) || sent;
        if let Some(pcap) = self.pcap.as_ref().filter(|_| moved) {
            pcap.flush();
        }
        moved
    }

    fn wants_room(&self) -> bool {
        self.starved
    }

    fn event(&self) -> Option<RawFd> {
        (self.session > 0 && !self.starved && !self.failed).then(|| self.tap.as_raw_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn pieces(segments: &[Segment]) -> Vec<(GuestAddress, usize)> {
    segments
        .iter()
        .map(|s| (s.addr(), s.len() as usize))
        .collect()
}
