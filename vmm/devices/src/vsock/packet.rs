//! Packet headers (specification 5.10.6): what lies before each packet's payload, in both directions.

/// Bytes of a header.
pub const HEADER_LEN: usize = 44;

/// The host's context id.
pub const HOST_CID: u64 = 2;

/// Socket type "stream", the only one here.
pub const STREAM: u16 = 1;

/// A peer will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// A peer will send no more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Neither.
pub const SHUTDOWN_BOTH: u32 = 3;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Accepts it.
    Response = 2,
    /// Refuses it, or ends it at once.
    Reset = 3,
    /// Says what the sender will do no more.
    Shutdown = 4,
    /// Carries bytes.
    Data = 5,
    /// Tells the sender's room.
    CreditUpdate = 6,
    /// Asks for the peer's room.
    CreditRequest = 7,
}

impl Op {
    fn from_u16(value: u16) -> Option<Self> {
        use Op::*;
        let all = [
            Request,
            Response,
            Reset,
            Shutdown,
            Data,
            CreditUpdate,
            CreditRequest,
        ];
        all.into_iter().find(|op| *op as u16 == value)
    }
}

/// The two ports of a connection, which are its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The host's port.
    pub host: u32,
    /// The guest's port.
    pub guest: u32,
}

/// A header from or to the guest, without the context ids, which are always the same two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which connection.
    pub id: Id,
    /// Bytes of payload.
    pub len: u32,
    /// What for; `None` is something unknown.
    pub op: Option<Op>,
    /// For [`Op::Shutdown`].
    pub flags: u32,
    /// Bytes that the sender's buffer holds in all.
    pub room: u32,
    /// Bytes that have left the sender's buffer so far.
    pub forwarded: u32,
}

impl Header {
    /// A header without payload and flags.
    pub fn new(id: Id, op: Op) -> Self {
        Self {
            id,
            len: 0,
            op: Some(op),
            flags: 0,
            room: 0,
            forwarded: 0,
        }
    }

    /// Reads what the guest with this context id sends; `None`: it is from or for somebody else. A packet of another socket type has
    /// no [`Op`]: it is answered as every unknown one.
    pub fn read(bytes: &[u8; HEADER_LEN], guest_cid: u64) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if long(0) != guest_cid || long(8) != HOST_CID {
            return None;
        }
        let id = Id {
            host: word(20),
            guest: word(16),
        };
        Some(Self {
            id,
            len: word(24),
            op: Op::from_u16(half(30)).filter(|_| half(28) == STREAM),
            flags: word(32),
            room: word(36),
            forwarded: word(40),
        })
    }

    /// The bytes for a guest with this context id.
    pub fn write(&self, guest_cid: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &HOST_CID.to_le_bytes());
        put(8, &guest_cid.to_le_bytes());
        put(16, &self.id.host.to_le_bytes());
        put(20, &self.id.guest.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &STREAM.to_le_bytes());
        put(30, &self.op.map_or(0, |op| op as u16).to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.room.to_le_bytes());
        put(40, &self.forwarded.to_le_bytes());
        bytes
    }
}
