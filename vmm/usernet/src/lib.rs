//! A network for a virtual machine that needs no privileges: Ethernet frames of one guest on one side, ordinary nonblocking host
//! sockets on the other.
//!
//! The guest sees a small network of its own: a router (which also answers DHCP, ARP, neighbour discovery and pings), a DNS
//! forwarder, and behind the router whatever the host's sockets reach. TCP is terminated here by smoltcp and carried on by host
//! connections, UDP and ICMP echo are translated. The host's loopback is out of reach unless the configuration says otherwise.
//!
//! [`UserNet`] is the whole back end: [`UserNet::receive`] takes a frame of the guest, [`UserNet::poll`] moves what the host has; both
//! emit frames through a [`FrameSink`]. It owns no thread and never blocks; [`UserNet::event_fd`] becomes readable when `poll` has work.
//!
//! - [`config`]: addresses, forwards, limits. - [`sink`]: the guest's side. - `wire`: reading and writing frames.
//! - `policy`: which host address a guest address stands for. - `link`: ARP, neighbour discovery, router advertisements. - `dhcp`: leases.
//! - `tcp`, `udp`, `ping`: the flows. - `forward`: listening host sockets.
#![forbid(unsafe_code)]

pub mod config;
mod dhcp;
mod flows;
mod forward;
mod link;
mod ping;
mod policy;
pub mod sink;
mod tcp;
mod udp;
mod usernet;
mod wire;

pub use config::{Config, Forward, Limits, Protocol, UserNetError};
pub use sink::{FrameSink, GuestOffloads, Offload};
pub use usernet::{Stats, UserNet};
