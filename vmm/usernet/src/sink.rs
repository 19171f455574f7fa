//! [`FrameSink`]: where frames for the guest go. Implemented by the monitor's network device.

/// What may be left out of a frame, in the sense of virtio-net's offloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The TCP or UDP checksum is not filled in; the guest must take it as verified.
    pub unchecked: bool,
    /// The frame is a TCP segment over IPv4 that stands for several, each with this many bytes of payload at most.
    pub segment: Option<u16>,
}

/// What the guest's network driver can take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestOffloads {
    /// Frames without a valid transport checksum (VIRTIO_NET_F_GUEST_CSUM).
    pub checksum: bool,
    /// TCP segments over IPv4 of up to 64 KiB (VIRTIO_NET_F_GUEST_TSO4).
    pub tso4: bool,
}

/// The guest's receiving side.
pub trait FrameSink {
    /// True when a frame of the largest size can be taken now. While it is false connections simply wait.
    fn ready(&mut self) -> bool;

    /// Gives the guest a frame of `len` bytes, which `fill` writes; `fill` is called once at most, with a slice of exactly that length.
    /// A sink that is not ready may drop the frame.
    fn send(&mut self, len: usize, offload: Offload, fill: &mut dyn FnMut(&mut [u8]));
}
