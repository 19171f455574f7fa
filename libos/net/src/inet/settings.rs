//! What an internet socket was told ([`Options`]) and the numbers of the options ([`number`]).

use crate::errno::{Errno, Result};
use alloc::collections::BTreeMap;
use linux_raw_sys::net as linux;
use number::*;

/// Option numbers that `linux-raw-sys` has as enumerators or not at all.
pub(super) mod number {
    pub const IP_TOS: u32 = 1;
    pub const IP_TTL: u32 = 2;
    pub const IP_RECVOPTS: u32 = 6;
    pub const IP_RETOPTS: u32 = 7;
    pub const IP_PKTINFO: u32 = 8;
    pub const IP_MTU_DISCOVER: u32 = 10;
    pub const IP_RECVERR: u32 = 11;
    pub const IP_RECVTTL: u32 = 12;
    pub const IP_RECVTOS: u32 = 13;
    pub const IP_MTU: u32 = 14;
    pub const IP_FREEBIND: u32 = 15;
    pub const IP_BIND_ADDRESS_NO_PORT: u32 = 24;
    pub const IP_MULTICAST_IF: u32 = 32;
    pub const IP_MULTICAST_TTL: u32 = 33;
    pub const IP_MULTICAST_LOOP: u32 = 34;
    pub const IP_ADD_MEMBERSHIP: u32 = 35;
    pub const IP_DROP_MEMBERSHIP: u32 = 36;
    pub const IP_MULTICAST_ALL: u32 = 49;
    pub const IPV6_UNICAST_HOPS: u32 = 16;
    pub const IPV6_MULTICAST_IF: u32 = 17;
    pub const IPV6_MULTICAST_HOPS: u32 = 18;
    pub const IPV6_MULTICAST_LOOP: u32 = 19;
    pub const IPV6_ADD_MEMBERSHIP: u32 = 20;
    pub const IPV6_DROP_MEMBERSHIP: u32 = 21;
    pub const IPV6_MTU_DISCOVER: u32 = 23;
    pub const IPV6_MTU: u32 = 24;
    pub const IPV6_RECVERR: u32 = 25;
    pub const IPV6_V6ONLY: u32 = 26;
    pub const IPV6_RECVPKTINFO: u32 = 49;
    pub const IPV6_RECVHOPLIMIT: u32 = 51;
    pub const IPV6_DONTFRAG: u32 = 62;
    pub const IPV6_RECVTCLASS: u32 = 66;
    pub const IPV6_TCLASS: u32 = 67;
    pub const UDP_SEGMENT: u32 = 103;
    pub const SOL_IP: u32 = 0;
    pub const SOL_TCP: u32 = 6;
    pub const SOL_UDP: u32 = 17;
    pub const SOL_IPV6: u32 = 41;
}

/// What a socket was told.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the fields are the options of the manual pages by name"
)]
pub struct Options {
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub keep_alive: bool,
    pub broadcast: bool,
    /// Seconds.
    pub linger: Option<u32>,
    pub receive_buffer: Option<usize>,
    pub send_buffer: Option<usize>,
    pub no_delay: bool,
    pub cork: bool,
    pub quick_ack: bool,
    /// Seconds.
    pub keep_idle: u32,
    pub keep_interval: u32,
    pub keep_count: u32,
    /// Milliseconds.
    pub user_timeout: u32,
    pub v6_only: bool,
    pub hop_limit: Option<u8>,
    pub multicast_hops: u8,
    pub multicast_loop: bool,
    /// Index of a link.
    pub multicast_link: Option<usize>,
    pub bound_link: Option<usize>,
    pub packet_info: bool,
    pub receive_hop_limit: bool,
    pub receive_traffic_class: bool,
    pub timestamps: bool,
    pub traffic_class: u8,
    pub free_bind: bool,
    pub priority: u32,
    pub mark: u32,
    pub receive_error: bool,
    pub mtu_discover: u32,
    pub segment: u16,
    pub receive_low: u32,
    pub defer_accept: u32,
    /// Those of [`KEPT`] that were set, by level and number.
    pub(crate) kept: BTreeMap<(u32, u32), u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reuse_addr: false,
            reuse_port: false,
            keep_alive: false,
            broadcast: false,
            linger: None,
            receive_buffer: None,
            send_buffer: None,
            no_delay: false,
            cork: false,
            quick_ack: true,
            keep_idle: 7200,
            keep_interval: 75,
            keep_count: 9,
            user_timeout: 0,
            v6_only: false,
            hop_limit: None,
            multicast_hops: 1,
            multicast_loop: true,
            multicast_link: None,
            bound_link: None,
            packet_info: false,
            receive_hop_limit: false,
            receive_traffic_class: false,
            timestamps: false,
            traffic_class: 0,
            free_bind: false,
            priority: 0,
            mark: 0,
            receive_error: false,
            mtu_discover: 1,
            segment: 0,
            receive_low: 1,
            defer_accept: 0,
            kept: BTreeMap::new(),
        }
    }
}

/// What a kept option's value may be.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Anything; all but zero means one.
    Flag,
    /// Not less than this and not more than that, else `EINVAL`.
    Range(i32, i32),
}

/// Options that are kept and shown but change nothing one could see here, by level and number, with what they are at first.
const KEPT: [(u32, u32, i32, Rule); 18] = [
    (linux::SOL_SOCKET, linux::SO_DEBUG, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_DONTROUTE, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_OOBINLINE, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_NO_CHECK, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_RXQ_OVFL, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_SELECT_ERR_QUEUE, 0, Rule::Flag),
    (linux::SOL_SOCKET, linux::SO_BUSY_POLL, 0, NOT_NEGATIVE),
    (linux::SOL_SOCKET, linux::SO_INCOMING_CPU, -1, ANY),
    (SOL_TCP, linux::TCP_MAXSEG, 536, Rule::Range(88, 32_767)),
    (SOL_TCP, linux::TCP_SYNCNT, 6, Rule::Range(1, 127)),
    (SOL_TCP, linux::TCP_LINGER2, 60, ANY),
    (SOL_TCP, linux::TCP_FASTOPEN, 0, NOT_NEGATIVE),
    (SOL_TCP, linux::TCP_NOTSENT_LOWAT, 0, ANY),
    (SOL_IP, IP_RECVOPTS, 0, Rule::Flag),
    (SOL_IP, IP_RETOPTS, 0, Rule::Flag),
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0, Rule::Flag),
    (SOL_IP, IP_MULTICAST_ALL, 1, Rule::Range(0, 1)),
    (SOL_IPV6, IPV6_DONTFRAG, 0, Rule::Flag),
];
const ANY: Rule = Rule::Range(i32::MIN, i32::MAX);
const NOT_NEGATIVE: Rule = Rule::Range(0, i32::MAX);

fn known(level: u32, name: u32) -> Result<(i32, Rule)> {
    let mut known = KEPT.iter();
    known
        .find(|option| (option.0, option.1) == (level, name))
        .map(|&(_, _, first, rule)| (first, rule))
        .ok_or(Errno::ENOPROTOOPT)
}

impl Options {
    /// Keeps the value of an option that is only kept.
    ///
    /// # Errors
    /// `ENOPROTOOPT`: no such option. `EINVAL`.
    pub(super) fn keep(&mut self, level: u32, name: u32, value: u32) -> Result<()> {
        let value = match known(level, name)?.1 {
            Rule::Flag => u32::from(value != 0),
            Rule::Range(least, most) if (least..=most).contains(&(value as i32)) => value,
            Rule::Range(..) => return Err(Errno::EINVAL),
        };
        self.kept.insert((level, name), value);
        Ok(())
    }

    /// What an option that is only kept is now.
    ///
    /// # Errors
    /// `ENOPROTOOPT`: no such option.
    pub(super) fn kept(&self, level: u32, name: u32) -> Result<u32> {
        let (first, _) = known(level, name)?;
        Ok(*self.kept.get(&(level, name)).unwrap_or(&(first as u32)))
    }
}
