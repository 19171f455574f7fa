//! What the network needs from the kernel: [`Host`] (time and randomness) and [`PacketDevice`] (a network card).

/// Time and randomness.
pub trait Host {
    /// CLOCK_MONOTONIC, nanoseconds.
    fn now(&self) -> u64;
    /// CLOCK_REALTIME, nanoseconds.
    fn realtime(&self) -> u64;
    /// 64 unpredictable bits.
    fn random(&self) -> u64;
}

/// What a network card is and can do.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: usize,
    /// The card finishes TCP and UDP checksums ([`TxOffload::checksum`]).
    pub checksum: bool,
    /// The card cuts TCP segments over IPv4 of up to 64 KiB ([`TxOffload::segment`]). Needs `checksum`.
    pub tso4: bool,
    /// Packets may be lost or delayed on the way: TCP must watch for congestion. False where the other end is in the same machine.
    pub lossy: bool,
}

/// What the card has still to do with a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// Sum the bytes from `start` to the end and put the result at `start + offset`, where the sum of the pseudo header stands.
    pub checksum: Option<ChecksumField>,
    /// Cut into segments with so many bytes of payload each.
    pub segment: Option<u16>,
    /// Bytes of all headers, Ethernet to TCP, where `segment` is set.
    pub header_len: u16,
}

/// Where a checksum belongs (virtio-net's `csum_start` and `csum_offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumField {
    /// First byte of the transport header, counted from the Ethernet header.
    pub start: u16,
    /// Position of the field in the transport header.
    pub offset: u16,
}

/// A network card. The kernel wraps a driver in it.
pub trait PacketDevice {
    /// What it is. Asked once.
    fn info(&self) -> DeviceInfo;

    /// Takes the next received frame, if any, and shows it to `take`; `true` as second argument when its transport checksum is known to be good.
    /// False when there was none.
    fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) -> bool;

    /// True when a frame of the largest size can be sent now.
    fn ready(&mut self) -> bool;

    /// Queues a frame of `len` bytes that `fill` writes; `fill` may be called with a buffer to be sent, or not at all when there is no room.
    /// `fill` answers what is left to be done with the frame.
    fn send(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> TxOffload);

    /// Tells the card about queued frames. Called once after each batch.
    fn flush(&mut self);
}
