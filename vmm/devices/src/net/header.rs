//! `struct virtio_net_hdr` (specification 5.1.6): what stands before every frame in a queue.
//!
//! [`Header`] is the checked value. One that a driver wrote is judged by [`Header::acceptable`]; one for a driver is made by
//! [`Header::unchecked`] or comes from a back end that speaks the same language.

use super::Offloads;

/// Bytes of the header as both sides write it (version 1: always with the number of buffers).
pub const HEADER: usize = 12;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// The checksum is to be filled in from `checksum_start` on.
const NEEDS_CHECKSUM: u8 = 1;

const PLAIN: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is left to do for a frame, and how many buffers it fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    flags: u8,
    segments: u8,
    header_len: u16,
    segment_len: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl Header {
    /// Reads a header. Only what this device knows is kept; the number of buffers is not among it.
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0] & NEEDS_CHECKSUM,
            segments: bytes[1],
            header_len: word(2),
            segment_len: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    /// The bytes of this header for a frame in this number of buffers.
    pub fn to_bytes(self, buffers: u16) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        (bytes[0], bytes[1]) = (self.flags, self.segments);
        let words = [
            self.header_len,
            self.segment_len,
            self.checksum_start,
            self.checksum_offset,
            buffers,
        ];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Whether a driver that negotiated `accepted` may say this about a frame of `len` bytes.
    pub(super) fn acceptable(&self, len: usize, accepted: Offloads) -> bool {
        let unchecked = self.flags & NEEDS_CHECKSUM != 0;
        let end = usize::from(self.checksum_start) + usize::from(self.checksum_offset) + 2;
        let checksum = !unchecked || accepted.checksum && end <= len;
        let whole = unchecked && self.segment_len > 0;
        checksum
            && match self.segments {
                PLAIN => true,
                TCP_V4 => whole && accepted.tso4,
                TCP_V6 => whole && accepted.tso6,
                _ => false,
            }
    }

    /// The header of a TCP or UDP frame whose checksum nobody has computed; the checksum field is filled with the sum of the pseudo-header, as
    /// the specification wants. `segment`: the frame stands for several, each with this many bytes of payload at most.
    /// A frame of another kind is left alone and gets a plain header.
    pub fn unchecked(frame: &mut [u8], segment: Option<u16>) -> Self {
        let Some(found) = Transport::find(frame) else {
            return Self::default();
        };
        let field = found.start + found.checksum;
        let sum = found.pseudo_sum(frame).to_be_bytes();
        frame[field..field + 2].copy_from_slice(&sum);
        let segments = match (segment, found.v6) {
            (None, _) => PLAIN,
            (Some(_), false) => TCP_V4,
            (Some(_), true) => TCP_V6,
        };
        Self {
            flags: NEEDS_CHECKSUM,
            segments,
            header_len: (found.start + found.header) as u16,
            segment_len: segment.unwrap_or(0),
            checksum_start: found.start as u16,
            checksum_offset: found.checksum as u16,
        }
    }
}

/// Where the transport header of a frame lies; every offset is inside the frame.
struct Transport {
    v6: bool,
    protocol: u8,
    start: usize,
    header: usize,
    checksum: usize,
}

impl Transport {
    /// Extension headers and fragments are not looked through: nobody makes them without a checksum.
    fn find(frame: &[u8]) -> Option<Self> {
        let kind = frame.get(12..14)?;
        let ip = frame.get(ETHERNET..)?;
        let (v6, protocol, len) = if kind == IPV4 {
            (false, *ip.get(9)?, usize::from(ip.first()? & 15) * 4)
        } else if kind == IPV6 {
            (true, *ip.get(6)?, 40)
        } else {
            return None;
        };
        let start = ETHERNET + len;
        let (checksum, header) = match protocol {
            TCP => (16, usize::from(frame.get(start + 12)? >> 4) * 4),
            UDP => (6, 8),
            _ => return None,
        };
        let least = if protocol == TCP { 20 } else { 8 };
        (frame.len() >= start + least).then_some(Self {
            v6,
            protocol,
            start,
            header,
            checksum,
        })
    }

    /// Addresses, protocol and length, added up (RFC 9293, 3.1).
    fn pseudo_sum(&self, frame: &[u8]) -> u16 {
        let addresses = if self.v6 {
            ETHERNET + 8..ETHERNET + 40
        } else {
            ETHERNET + 12..ETHERNET + 20
        };
        let words = frame[addresses]
            .chunks_exact(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        let mut sum = words.sum::<u64>() + u64::from(self.protocol);
        sum += (frame.len() - self.start) as u64;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads {
        checksum: true,
        tso4: true,
        tso6: true,
    };

    fn header(flags: u8, segments: u8, segment_len: u16, start: u16) -> Header {
        Header {
            flags,
            segments,
            header_len: 54,
            segment_len,
            checksum_start: start,
            checksum_offset: 16,
        }
    }

    #[test]
    fn bytes_and_back() {
        let one = header(1, TCP_V4, 1460, 34);
        let bytes = one.to_bytes(3);
        assert_eq!(bytes, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 3, 0]);
        assert_eq!(Header::from_bytes(&bytes), one);
    }

    #[test]
    fn what_was_not_negotiated_is_refused() {
        let none = Offloads::default();
        assert!(Header::default().acceptable(14, none));
        for (header, len) in [
            (header(1, PLAIN, 0, 34), 60),
            (header(1, TCP_V4, 1460, 34), 60),
            (header(1, TCP_V6, 1460, 54), 80),
        ] {
            assert!(header.acceptable(len, ALL) && !header.acceptable(len, none));
        }
        for bad in [
            header(0, TCP_V4, 1460, 34),
            header(1, TCP_V4, 0, 34),
            header(1, 3, 1460, 34),
            header(1, TCP_V4 | 0x80, 1460, 34),
            header(1, PLAIN, 0, 43),
            header(1, PLAIN, 0, u16::MAX),
        ] {
            assert!(!bad.acceptable(60, ALL), "{bad:?}");
        }
    }

    #[test]
    fn the_pseudo_header_is_summed_up() {
        let mut frame = vec![0; ETHERNET + 20 + 20 + 4];
        frame[12..14].copy_from_slice(&IPV4);
        (frame[14], frame[23]) = (0x45, TCP);
        frame[26..34].copy_from_slice(&[10, 0, 2, 2, 10, 0, 2, 15]);
        frame[46] = 5 << 4;
        let made = Header::unchecked(&mut frame, Some(1460));
        assert_eq!(made, header(1, TCP_V4, 1460, 34));
        let sum = 0x0a00 + 0x0202 + 0x0a00 + 0x020f + 6 + 24;
        assert_eq!(frame[50..52], u16::to_be_bytes(sum));
    }

    #[test]
    fn short_and_foreign_frames_are_left_alone() {
        for len in 0..60 {
            for kind in [IPV4, IPV6, [0x08, 0x06]] {
                for first in [0u8, 0x45, 0x4f, 0x60] {
                    let mut frame = vec![TCP; len];
                    if len > 14 {
                        frame[12..14].copy_from_slice(&kind);
                        frame[14] = first;
                    }
                    let before = frame.clone();
                    if Header::unchecked(&mut frame, None) == Header::default() {
                        assert_eq!(frame, before);
                    }
                }
            }
        }
    }
}
