//! One connection: who may still send, how much room each side has, and what waits to be told to the guest.
//!
//! Credit (specification 5.10.6.3): each side says in every packet how large its buffer is and how many bytes have left it so far;
//! the other never has more bytes under way than fit. Bytes for the host wait in [`Connection`] while the host's stream takes none.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::num::Wrapping;

use super::Stream;
use super::packet::{Header, Id, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes for the host that wait at most, in one connection.
pub const ROOM: u32 = 128 << 10;

/// The connection is over; the guest is to be told by a reset, unless it said so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Tell it.
    pub tell: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest is to be asked, or has been asked, for a connection.
    Asking,
    /// Open.
    Open,
}

/// What waits to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    request: bool,
    response: bool,
    credit: bool,
}

/// A connection and the host's end of it.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    phase: Phase,
    news: News,
    /// Bytes for the host.
    waiting: VecDeque<u8>,
    /// Bytes that the host's stream took.
    forwarded: Wrapping<u32>,
    /// What of it the guest knows.
    told: Wrapping<u32>,
    /// Bytes that came from the guest.
    received: Wrapping<u32>,
    /// Bytes that went to the guest.
    sent: Wrapping<u32>,
    guest_room: u32,
    guest_forwarded: Wrapping<u32>,
    /// The guest was asked for its room since it last told.
    asked: bool,
    /// What the guest will do no more.
    guest_done: u32,
    /// The host's stream has ended.
    ended: bool,
    /// The host's stream was told that the guest sends no more.
    finished: bool,
    /// The stream may have bytes, or room.
    readable: bool,
    writable: bool,
}

/// What a connection waits for on the host's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bytes.
    pub read: bool,
    /// Room.
    pub write: bool,
    /// Only its end: the guest has not answered yet.
    pub hang_up: bool,
}

impl<S: Stream> Connection<S> {
    /// A connection that the guest asked for.
    pub fn accepted(stream: S, header: &Header) -> Self {
        let mut connection = Self::new(stream, Phase::Open);
        connection.news.response = true;
        connection.learn(header);
        connection
    }

    /// A connection that the host wants.
    pub fn wanted(stream: S) -> Self {
        let mut connection = Self::new(stream, Phase::Asking);
        connection.news.request = true;
        connection
    }

    fn new(stream: S, phase: Phase) -> Self {
        let zero = Wrapping(0);
        Self {
            stream,
            phase,
            news: News::default(),
            waiting: VecDeque::new(),
            forwarded: zero,
            told: zero,
            received: zero,
            sent: zero,
            guest_room: 0,
            guest_forwarded: zero,
            asked: false,
            guest_done: 0,
            ended: false,
            finished: false,
            readable: true,
            writable: true,
        }
    }

    /// The host's end.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// What the host's end is to be watched for.
    pub fn interest(&self) -> Interest {
        Interest {
            read: self.may_read() && !self.readable && self.credit() > 0,
            write: !self.waiting.is_empty() && !self.writable,
            hang_up: self.phase == Phase::Asking,
        }
    }

    /// The host's end has bytes or room, or has ended.
    pub fn wake(&mut self, interest: Interest) {
        self.readable |= interest.read;
        self.writable |= interest.write;
    }

    /// The guest sent this, with `payload` of as many bytes as the header says (at most [`ROOM`]).
    pub fn receive(&mut self, header: &Header, payload: &[u8]) -> Result<(), Over> {
        self.learn(header);
        let refuse = Err(Over { tell: true });
        match (header.op, self.phase) {
            (Some(Op::Reset), _) => return Err(Over { tell: false }),
            (Some(Op::Response), Phase::Asking) if !self.news.request => {
                self.phase = Phase::Open;
                let opened = self.stream.opened(header.id);
                opened.map_err(|_| Over { tell: true })?;
            }
            (Some(Op::Shutdown), Phase::Open) => self.guest_done |= header.flags & SHUTDOWN_BOTH,
            (Some(Op::Data), Phase::Open) if self.guest_done & SHUTDOWN_SEND == 0 => {
                if payload.len() > (ROOM - self.under_way()) as usize {
                    return refuse;
                }
                self.received += payload.len() as u32;
                self.waiting.extend(payload);
            }
            (Some(Op::CreditUpdate), Phase::Open) => {}
            (Some(Op::CreditRequest), Phase::Open) => self.news.credit = true,
            _ => return refuse,
        }
        self.deliver()
    }

    /// Bytes of the guest that have not left our buffer.
    fn under_way(&self) -> u32 {
        (self.received - self.forwarded).0
    }

    fn learn(&mut self, header: &Header) {
        let before = self.credit();
        (self.guest_room, self.guest_forwarded) = (header.room, Wrapping(header.forwarded));
        self.asked &= self.credit() <= before;
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        self.guest_room
            .saturating_sub((self.sent - self.guest_forwarded).0)
    }

    /// Gives the host's stream what waits for it.
    pub fn deliver(&mut self) -> Result<(), Over> {
        while self.writable && !self.waiting.is_empty() {
            let written = self.stream.write(self.waiting.as_slices().0);
            match written {
                Ok(0) => return Err(Over { tell: true }),
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded += count as u32;
                }
                Err(error) if later(&error) => self.writable = false,
                Err(_) => return Err(Over { tell: true }),
            }
        }
        // A guest that does not know of half of our room is told.
        self.news.credit |= (self.forwarded - self.told).0 > ROOM / 2;
        if !self.waiting.is_empty() {
            return Ok(());
        }
        if self.guest_done & SHUTDOWN_SEND != 0 && !self.finished {
            self.finished = true;
            self.stream.finish();
        }
        match self.guest_done {
            SHUTDOWN_BOTH => Err(Over { tell: true }),
            _ => Ok(()),
        }
    }

    fn may_read(&self) -> bool {
        self.phase == Phase::Open && !self.ended && self.guest_done & SHUTDOWN_RECEIVE == 0
    }

    /// Whether [`Self::tell`] may have something.
    pub fn has_news(&self) -> bool {
        self.news != News::default()
            || (self.may_read() && self.readable && (self.credit() > 0 || !self.asked))
    }

    /// The next packet for the guest, whose payload is put into `payload` and has at most `room` bytes.
    pub fn tell(
        &mut self,
        id: Id,
        payload: &mut Vec<u8>,
        room: usize,
    ) -> Result<Option<Header>, Over> {
        payload.clear();
        let mut flags = 0;
        let op = if std::mem::take(&mut self.news.request) {
            Op::Request
        } else if std::mem::take(&mut self.news.response) {
            Op::Response
        } else if self.may_read() && self.readable && self.credit() > 0 {
            match self.fetch(payload, room)? {
                Some(op) => op,
                None if std::mem::take(&mut self.news.credit) => Op::CreditUpdate,
                None => return Ok(None),
            }
        } else if std::mem::take(&mut self.news.credit) {
            Op::CreditUpdate
        } else if self.may_read() && self.readable && !self.asked {
            self.asked = true;
            Op::CreditRequest
        } else {
            return Ok(None);
        };
        if op == Op::Shutdown {
            flags = SHUTDOWN_SEND;
        }
        // Every packet tells of our room.
        self.told = self.forwarded;
        if op != Op::Request {
            self.news.credit = false;
        }
        Ok(Some(Header {
            len: payload.len() as u32,
            flags,
            room: ROOM,
            forwarded: self.forwarded.0,
            ..Header::new(id, op)
        }))
    }

    /// Reads from the host's stream.
    fn fetch(&mut self, payload: &mut Vec<u8>, room: usize) -> Result<Option<Op>, Over> {
        payload.resize(room.min(self.credit() as usize), 0);
        match self.stream.read(payload) {
            Ok(0) => {
                payload.clear();
                self.ended = true;
                Ok(Some(Op::Shutdown))
            }
            Ok(count) => {
                payload.truncate(count);
                self.sent += count as u32;
                Ok(Some(Op::Data))
            }
            Err(error) if later(&error) => {
                payload.clear();
                self.readable = false;
                Ok(None)
            }
            Err(_) => Err(Over { tell: true }),
        }
    }
}

fn later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
