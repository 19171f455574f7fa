//! smoltcp's view of a link: [`Port`], which passes frames on and leaves checksums and segmentation to cards that do them.

use super::link::ETHERNET;
use crate::host::{ChecksumField, DeviceInfo, PacketDevice, TxOffload};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroUsize;
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, checksum};

/// What a link has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub frames: u64,
    pub bytes: u64,
    /// TCP packets to cards.
    pub tcp_frames: u64,
}

/// Where frames go.
pub(crate) enum Outlet<'a> {
    Device(&'a mut dyn PacketDevice),
    Queue(&'a mut VecDeque<Vec<u8>>),
}

/// smoltcp's device: one frame in, any number out.
pub(crate) struct Port<'a> {
    pub inbound: Option<&'a [u8]>,
    pub medium: Medium,
    pub info: DeviceInfo,
    pub out: Outlet<'a>,
    pub sent: &'a mut Sent,
}

pub(crate) struct Inbound<'a>(&'a [u8]);

pub(crate) struct Outbound<'x, 'a> {
    out: &'x mut Outlet<'a>,
    sent: &'x mut Sent,
    info: DeviceInfo,
    segment: Option<u16>,
}

impl Port<'_> {
    /// True when a packet can be sent.
    pub fn ready(&mut self) -> bool {
        match &mut self.out {
            Outlet::Device(device) => device.ready(),
            Outlet::Queue(_) => true,
        }
    }
}

impl<'a> Device for Port<'a> {
    type RxToken<'x>
        = Inbound<'x>
    where
        Self: 'x;
    type TxToken<'x>
        = Outbound<'x, 'a>
    where
        Self: 'x;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Inbound<'_>, Outbound<'_, 'a>)> {
        let frame = self.inbound.take()?;
        Some((
            Inbound(frame),
            Outbound {
                out: &mut self.out,
                sent: self.sent,
                info: self.info,
                segment: None,
            },
        ))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outbound<'_, 'a>> {
        self.ready().then_some(Outbound {
            out: &mut self.out,
            sent: self.sent,
            info: self.info,
            segment: None,
        })
    }

    /// Transport checksums of received packets were checked before smoltcp sees them.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = self.medium;
        caps.max_transmission_unit = self.info.mtu
            + if self.medium == Medium::Ethernet {
                ETHERNET
            } else {
                0
            };
        let transport = if self.info.checksum {
            Checksum::None
        } else {
            Checksum::Tx
        };
        (caps.checksum.tcp, caps.checksum.udp) = (transport, transport);
        if self.medium == Medium::Ip {
            (
                caps.checksum.ipv4,
                caps.checksum.icmpv4,
                caps.checksum.icmpv6,
            ) = (Checksum::None, Checksum::None, Checksum::None);
        }
        // smoltcp 0.14 drops large packets over IPv6.
        if self.info.tso4 && self.info.checksum {
            caps.segmentation.tcpv4 = NonZeroUsize::new(65_535);
        }
        caps
    }
}

impl RxToken for Inbound<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outbound<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.sent.frames += 1;
        self.sent.bytes += len as u64;
        let device = match self.out {
            Outlet::Queue(queue) => {
                let mut packet = vec![0; len];
                let result = f(&mut packet);
                let start = if self.info.mac == [0; 6] { 0 } else { ETHERNET };
                shave_window(&mut packet[start..], !self.info.checksum);
                queue.push_back(packet);
                return result;
            }
            Outlet::Device(device) => device,
        };
        let (mut f, mut result) = (Some(f), None);
        let (info, segment, sent) = (self.info, self.segment, self.sent);
        device.send(len, &mut |bytes| {
            let Some(f) = f.take() else {
                return TxOffload::default();
            };
            result = Some(f(bytes));
            sent.tcp_frames += u64::from(is_tcp(bytes));
            shave_window(&mut bytes[ETHERNET..], !info.checksum);
            if info.checksum {
                offload(bytes, segment)
            } else {
                TxOffload::default()
            }
        });
        match (result, f) {
            (Some(result), _) => result,
            // No room: the frame is lost, as on a wire.
            (None, Some(f)) => f(&mut vec![0; len]),
            (None, None) => unreachable!("the closure ran and left no result"),
        }
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta
            .segmentation_offload_size
            .map(core::num::NonZeroU16::get);
    }
}

/// Prepares the checksum of a TCP or UDP frame for the card: the sum of the pseudo header goes into the field.
pub(crate) fn offload(frame: &mut [u8], segment: Option<u16>) -> TxOffload {
    let Some((start, protocol, sum)) = transport(frame) else {
        return TxOffload::default();
    };
    let offset = if protocol == IpProtocol::Tcp { 16 } else { 6 };
    let Some(field) = frame.get_mut(start + offset..start + offset + 2) else {
        return TxOffload::default();
    };
    field.copy_from_slice(&sum.to_be_bytes());
    let tcp_len = frame.get(start + 12).map_or(0, |b| usize::from(b >> 4) * 4);
    TxOffload {
        checksum: Some(ChecksumField {
            start: start as u16,
            offset: offset as u16,
        }),
        segment,
        header_len: if segment.is_some() {
            (start + tcp_len) as u16
        } else {
            0
        },
    }
}

/// Announces one unit of window less than smoltcp believes.
///
/// With window scaling smoltcp 0.14 rounds the window down each time it announces one and then takes the last announced right edge for
/// the truth: the edge can move left by less than a unit, and bytes that were on their way are cut off and cost a retransmission timeout. A peer
/// that was promised one unit less never sends what a later edge would cut off. `checksummed`: the TCP checksum is filled in and must follow.
pub(crate) fn shave_window(packet: &mut [u8], checksummed: bool) {
    let header = match packet.first().map(|b| b >> 4) {
        Some(4) if packet.get(9) == Some(&6) => usize::from(packet[0] & 15) * 4,
        Some(6) if packet.get(6) == Some(&6) => 40,
        _ => return,
    };
    let Some(tcp) = packet.get_mut(header..).filter(|tcp| tcp.len() >= 20) else {
        return;
    };
    let window = u16::from_be_bytes([tcp[14], tcp[15]]);
    const SYN: u8 = 2;
    if tcp[13] & SYN != 0 || window == 0 {
        return;
    }
    tcp[14..16].copy_from_slice(&(window - 1).to_be_bytes());
    if checksummed {
        // RFC 1624: the sum of the changed word's complement and its new value; here that is 0xfffe plus carries.
        let sum = u32::from(!u16::from_be_bytes([tcp[16], tcp[17]]))
            + u32::from(!window)
            + u32::from(window - 1);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        tcp[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}

fn is_tcp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(ETHERNET + 9) == Some(&6),
        Some([0x86, 0xdd]) => frame.get(ETHERNET + 6) == Some(&6),
        _ => false,
    }
}

/// Start of the transport header of a frame, its protocol, and the sum of its pseudo header.
fn transport(frame: &[u8]) -> Option<(usize, IpProtocol, u16)> {
    let body = frame.get(ETHERNET..)?;
    let (header, protocol, src, dst, len): (usize, IpProtocol, IpAddr, IpAddr, usize) =
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let p = Ipv4Packet::new_checked(body).ok()?;
                if p.more_frags() || p.frag_offset() != 0 {
                    return None;
                }
                let header = usize::from(p.header_len());
                (
                    header,
                    p.next_header(),
                    p.src_addr().into(),
                    p.dst_addr().into(),
                    usize::from(p.total_len()) - header,
                )
            }
            [0x86, 0xdd] => {
                let p = Ipv6Packet::new_checked(body).ok()?;
                (
                    p.header_len(),
                    p.next_header(),
                    p.src_addr().into(),
                    p.dst_addr().into(),
                    usize::from(p.payload_len()),
                )
            }
            _ => return None,
        };
    if !matches!(protocol, IpProtocol::Tcp | IpProtocol::Udp) {
        return None;
    }
    let sum = checksum::pseudo_header(&src.into(), &dst.into(), protocol, len as u32);
    Some((ETHERNET + header, protocol, sum))
}
