//! What `sendmsg` and `recvmsg` carry besides bytes.

use crate::addr::Address;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;
use core::net::IpAddr;

/// `struct ucred`: who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Control data in one direction.
#[derive(Clone, Default)]
pub struct Ancillary {
    /// SCM_RIGHTS: open file descriptions, opaque here.
    pub rights: Vec<Rc<dyn Any>>,
    /// SCM_CREDENTIALS.
    pub credentials: Option<Credentials>,
    /// IP_PKTINFO / IPV6_PKTINFO: local address (receiving: where it arrived; sending: where it shall come from) and interface index.
    pub packet_info: Option<(IpAddr, u32)>,
    /// IP_TTL / IPV6_HOPLIMIT.
    pub hop_limit: Option<u8>,
    /// IP_TOS / IPV6_TCLASS.
    pub traffic_class: Option<u8>,
    /// UDP_SEGMENT (sending) or UDP_GRO (receiving): bytes per datagram.
    pub segment_size: Option<u16>,
    /// SO_TIMESTAMP and kin: nanoseconds of CLOCK_REALTIME at arrival.
    pub timestamp: Option<u64>,
}

impl Ancillary {
    /// True when there is nothing that must stay with its own bytes of a stream.
    pub fn is_plain(&self) -> bool {
        self.rights.is_empty() && self.credentials.is_none()
    }
}

/// What a receive call answers.
#[derive(Clone, Default)]
pub struct Received {
    /// Bytes stored.
    pub len: usize,
    /// Bytes the message has (with MSG_TRUNC this is what the call returns); for streams the same as `len`.
    pub full_len: usize,
    /// Where it came from.
    pub from: Option<Address>,
    /// Control data.
    pub ancillary: Ancillary,
}

/// Copies from `from` into the slices of `out`, skipping the first `at` bytes of `out`. Returns how many bytes fitted.
pub(crate) fn scatter(from: &[u8], out: &mut [&mut [u8]], mut at: usize) -> usize {
    let mut done = 0;
    for slice in out {
        if at >= slice.len() {
            at -= slice.len();
            continue;
        }
        let len = (slice.len() - at).min(from.len() - done);
        slice[at..at + len].copy_from_slice(&from[done..done + len]);
        done += len;
        at = 0;
        if done == from.len() {
            break;
        }
    }
    done
}

/// Total length of slices.
pub(crate) fn total(slices: &[&[u8]]) -> usize {
    slices.iter().map(|s| s.len()).sum()
}

/// Appends bytes `at..at + len` of the concatenation of `slices` to `out`.
pub(crate) fn gather(slices: &[&[u8]], mut at: usize, mut len: usize, out: &mut Vec<u8>) {
    for slice in slices {
        if at >= slice.len() {
            at -= slice.len();
            continue;
        }
        let part = &slice[at..(at + len).min(slice.len())];
        out.extend_from_slice(part);
        len -= part.len();
        at = 0;
        if len == 0 {
            return;
        }
    }
}
