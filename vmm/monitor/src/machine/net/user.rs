//! The user network as a carrier: frames are copied out of the guest and into it.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use unik_devices::net::{Header, Incoming, LONGEST, Offloads, Traffic};
use unik_usernet::{Config, FrameSink, GuestOffloads, Offload, UserNet};
use vm_memory::GuestMemoryMmap;

use super::pcap::Pcap;
use super::{ALL, Abilities, Carrier};
use crate::error::Error;
use crate::net::NetError;

/// The guest's address where nobody says otherwise: it is alone in its network.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x15];

/// A user network.
pub struct UserCarrier {
    net: UserNet,
    session: u64,
    failed: bool,
    frame: Vec<u8>,
    to_guest: Vec<u8>,
    pcap: Option<Arc<Pcap>>,
}

impl UserCarrier {
    /// Starts the network: its published ports are open from here on.
    pub(super) fn open(
        config: &Config,
        pcap: Option<Arc<Pcap>>,
    ) -> Result<(Box<dyn Carrier>, Abilities), Error> {
        // Every connection is a descriptor.
        unik_host::limits::raise_open_files();
        let abilities = Abilities {
            mac: MAC,
            mtu: config.mtu,
            from_driver: ALL,
            to_driver: Offloads { tso6: false, ..ALL },
        };
        let net = UserNet::new(config.clone(), GuestOffloads::default()).map_err(NetError::User)?;
        let carrier = Self {
            net,
            session: 0,
            failed: false,
            frame: Vec::new(),
            to_guest: Vec::new(),
            pcap,
        };
        Ok((Box::new(carrier), abilities))
    }

    /// Another driver: what the last one had is gone.
    fn meet(&mut self, traffic: &Traffic<'_>) {
        if traffic.session != self.session {
            self.session = traffic.session;
            self.net.reset(GuestOffloads {
                checksum: traffic.to_driver.checksum,
                tso4: traffic.to_driver.tso4,
            });
        }
    }
}

impl Carrier for UserCarrier {
    fn exchange(&mut self, traffic: &mut Traffic<'_>, _: &GuestMemoryMmap) -> bool {
        self.meet(traffic);
        let mut sink = Sink {
            incoming: &mut traffic.incoming,
            frame: &mut self.to_guest,
            pcap: self.pcap.as_deref(),
            sent: 0,
        };
        let mut moved = false;
        while let Some(frame) = traffic.outgoing.take() {
            self.frame.clear();
            traffic.outgoing.copy(&frame, &mut self.frame);
            traffic.outgoing.done(&frame);
            if let Some(pcap) = &self.pcap {
                pcap.add(&self.frame);
            }
            self.net.receive(&self.frame, &mut sink);
            moved = true;
        }
        if let Err(error) = self.net.poll(&mut sink)
            && !std::mem::replace(&mut self.failed, true)
        {
            crate::errors::say(&format!("unik: the user network has stopped: {error}\n"));
        }
        let moved = moved || sink.sent > 0;
        if let Some(pcap) = self.pcap.as_ref().filter(|_| moved) {
            pcap.flush();
        }
        moved
    }

    fn wants_room(&self) -> bool {
        self.net.wants_room()
    }

    fn event(&self) -> Option<RawFd> {
        (!self.failed).then(|| self.net.event_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        self.net.deadline()
    }
}

/// The guest's buffers as the user network sees them.
struct Sink<'a, 'b> {
    incoming: &'a mut Incoming<'b>,
    frame: &'a mut Vec<u8>,
    pcap: Option<&'a Pcap>,
    sent: usize,
}

impl FrameSink for Sink<'_, '_> {
    fn ready(&mut self) -> bool {
        self.incoming.ready()
    }

    fn send(&mut self, len: usize, offload: Offload, fill: &mut dyn FnMut(&mut [u8])) {
        if len > LONGEST {
            return;
        }
        self.frame.resize(len, 0);
        fill(self.frame);
        let header = if offload.unchecked {
            Header::unchecked(self.frame, offload.segment)
        } else {
            Header::default()
        };
        if self.incoming.put(header, self.frame) {
            self.sent += 1;
            if let Some(pcap) = self.pcap {
                pcap.add(self.frame);
            }
        }
    }
}
