//! Streams against a driver: both ways to connect, credit, shutdown, back-pressure, and a guest that breaks the rules.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use vm_memory::{Bytes, GuestAddress};

use super::packet::{HOST_CID, SHUTDOWN_BOTH, SHUTDOWN_SEND, STREAM};
use super::*;
use crate::virtio::testing::{Driver, bring_up, memory, set};

const CID: u32 = 42;

/// What a test sees of a stream.
#[derive(Debug, Default)]
struct Inside {
    to_guest: VecDeque<u8>,
    from_guest: Vec<u8>,
    room: usize,
    ended: bool,
    finished: bool,
    opened: Option<Id>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Rc<RefCell<Inside>>);

impl Read for Fake {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut inside = self.0.borrow_mut();
        if inside.to_guest.is_empty() && !inside.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        inside.to_guest.read(into)
    }
}

impl Write for Fake {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut inside = self.0.borrow_mut();
        let count = inside.room.min(data.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        inside.room -= count;
        inside.from_guest.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Fake {
    fn opened(&mut self, id: Id) -> io::Result<()> {
        self.0.borrow_mut().opened = Some(id);
        Ok(())
    }

    fn finish(&mut self) {
        self.0.borrow_mut().finished = true;
    }
}

/// Listens at port 1000.
struct Listener(Fake);

impl Host for Listener {
    type Stream = Fake;

    fn connect(&mut self, port: u32) -> Option<Fake> {
        (port == 1000).then(|| self.0.clone())
    }
}

struct Guest<'a> {
    mmio: Mmio<Vsock<Listener>>,
    mem: &'a vm_memory::GuestMemoryMmap,
    receive: Driver<'a>,
    transmit: Driver<'a>,
    stream: Fake,
    buffers: u64,
    seen: u64,
}

const SEND_AT: u64 = 0x8_0000;
const BUFFERS_AT: u64 = 0xc_0000;
const BUFFER: u64 = 0x1000;

impl<'a> Guest<'a> {
    fn new(mem: &'a vm_memory::GuestMemoryMmap) -> Self {
        let stream = Fake::default();
        stream.0.borrow_mut().room = usize::MAX;
        let mut mmio = Mmio::new(Vsock::new(Listener(stream.clone()), CID));
        bring_up(&mut mmio, mem, true);
        Self {
            mmio,
            mem,
            receive: Driver::new(mem, RECEIVE),
            transmit: Driver::new(mem, TRANSMIT),
            stream,
            buffers: 0,
            seen: 0,
        }
    }

    fn serve(&mut self) {
        while self.mmio.serve(self.mem) {}
    }

    /// Posts buffers for packets of up to [`BUFFER`] bytes, header included.
    fn post(&mut self, count: u64) {
        for _ in 0..count {
            let at = BUFFERS_AT + self.buffers % 8 * BUFFER;
            self.receive.chain(&[(at, BUFFER as u32, true)]);
            self.buffers += 1;
        }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let mut bytes = header.write(0).to_vec();
        bytes[..8].copy_from_slice(&u64::from(CID).to_le_bytes());
        bytes[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
        // Written for the guest's direction: the ports change places.
        bytes[16..20].copy_from_slice(&header.id.guest.to_le_bytes());
        bytes[20..24].copy_from_slice(&header.id.host.to_le_bytes());
        bytes[24..28].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        self.send_raw(&bytes, payload);
    }

    fn send_raw(&mut self, header: &[u8], payload: &[u8]) {
        self.mem.write_slice(header, GuestAddress(SEND_AT)).unwrap();
        let after = SEND_AT + 0x1000;
        self.mem.write_slice(payload, GuestAddress(after)).unwrap();
        let pieces = [
            (SEND_AT, header.len() as u32, false),
            (after, payload.len() as u32, false),
        ];
        self.transmit
            .chain(&pieces[..1 + usize::from(!payload.is_empty())]);
        self.serve();
    }

    /// The next packet that came.
    fn packet(&mut self) -> Option<(Header, Vec<u8>)> {
        let (_, len) = self.receive.used()?;
        let mut bytes = vec![0; len as usize];
        let at = BUFFERS_AT + self.seen % 8 * BUFFER;
        self.seen += 1;
        self.mem.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(8)), (HOST_CID as u32, CID));
        assert_eq!(bytes[28..30], STREAM.to_le_bytes());
        // Read as if it came from a guest, and the ports changed back.
        let mut turned = bytes[..HEADER_LEN].to_vec();
        turned.swap(0, 8);
        let header = Header::read(&turned.try_into().unwrap(), u64::from(CID)).unwrap();
        let id = Id {
            host: header.id.guest,
            guest: header.id.host,
        };
        let payload = bytes.split_off(HEADER_LEN);
        assert_eq!(header.len as usize, payload.len());
        Some((Header { id, ..header }, payload))
    }

    fn op(&mut self) -> Option<Op> {
        self.packet().and_then(|(header, _)| header.op)
    }

    /// Connects to port 1000 with this much room.
    fn connected(&mut self, room: u32) -> Id {
        let id = Id {
            host: 1000,
            guest: 5,
        };
        self.post(1);
        self.send(with_room(id, Op::Request, room), b"");
        assert_eq!(self.op(), Some(Op::Response));
        id
    }

    fn wake(&mut self, id: Id) {
        let ready = Interest {
            read: true,
            write: true,
            hang_up: false,
        };
        self.mmio.wake(id, ready);
        self.serve();
    }
}

fn with_room(id: Id, op: Op, room: u32) -> Header {
    Header {
        room,
        ..Header::new(id, op)
    }
}

#[test]
fn a_guest_connects_talks_and_leaves() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let id = guest.connected(1 << 16);
    guest.stream.0.borrow_mut().to_guest.extend(b"hello");
    guest.send(with_room(id, Op::Data, 1 << 16), b"hi");
    assert_eq!(guest.stream.0.borrow().from_guest, b"hi");
    guest.post(2);
    guest.wake(id);
    let (header, payload) = guest.packet().unwrap();
    assert_eq!(
        (header.op, payload.as_slice()),
        (Some(Op::Data), &b"hello"[..])
    );
    assert_eq!((header.room, header.forwarded), (ROOM, 2));
    let mut bye = with_room(id, Op::Shutdown, 1 << 16);
    bye.flags = SHUTDOWN_SEND;
    guest.send(bye, b"");
    assert!(guest.stream.0.borrow().finished);
    assert_eq!(guest.op(), None);
    bye.flags = SHUTDOWN_BOTH;
    guest.send(bye, b"");
    assert_eq!(guest.op(), Some(Op::Reset));
    assert_eq!(guest.mmio.interests().count(), 0);
}

#[test]
fn the_host_connects_once_the_guest_answers() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let stream = guest.stream.clone();
    assert!(guest.mmio.connect(7, stream));
    guest.post(3);
    guest.serve();
    let (header, _) = guest.packet().unwrap();
    assert_eq!((header.op, header.id.guest), (Some(Op::Request), 7));
    assert!(guest.mmio.interests().all(|(_, _, i)| i.hang_up && !i.read));
    guest.send(with_room(header.id, Op::Response, 100), b"");
    assert_eq!(guest.stream.0.borrow().opened, Some(header.id));
    // The host's end.
    guest.stream.0.borrow_mut().ended = true;
    guest.wake(header.id);
    let (bye, _) = guest.packet().unwrap();
    assert_eq!((bye.op, bye.flags), (Some(Op::Shutdown), SHUTDOWN_SEND));
    guest.send(Header::new(header.id, Op::Reset), b"");
    assert_eq!((guest.op(), guest.mmio.interests().count()), (None, 0));
}

#[test]
fn a_host_that_hangs_up_before_the_answer_is_forgotten() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let stream = guest.stream.clone();
    guest.mmio.connect(7, stream);
    guest.post(2);
    guest.serve();
    let id = guest.packet().unwrap().0.id;
    let gone = Interest {
        hang_up: true,
        ..Interest::default()
    };
    guest.mmio.wake(id, gone);
    guest.serve();
    assert_eq!(guest.op(), Some(Op::Reset));
}

#[test]
fn never_more_than_the_guest_has_room_for() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let id = guest.connected(10);
    guest.stream.0.borrow_mut().to_guest.extend([b'x'; 25]);
    guest.post(4);
    guest.wake(id);
    let (header, payload) = guest.packet().unwrap();
    assert_eq!((header.op, payload.len()), (Some(Op::Data), 10));
    assert_eq!((guest.op(), guest.op()), (Some(Op::CreditRequest), None));
    let mut update = with_room(id, Op::CreditUpdate, 10);
    update.forwarded = 4;
    guest.send(update, b"");
    assert_eq!(guest.packet().unwrap().1.len(), 4);
    // Nonsense is no credit.
    (update.forwarded, update.room) = (1 << 20, u32::MAX);
    guest.send(update, b"");
    assert!(guest.packet().is_none_or(|(_, payload)| payload.is_empty()));
}

#[test]
fn a_host_that_does_not_read_holds_the_guest_back() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let id = guest.connected(1 << 16);
    guest.stream.0.borrow_mut().room = 0;
    let data = vec![7; 32 << 10];
    for _ in 0..4 {
        guest.send(with_room(id, Op::Data, 1 << 16), &data);
    }
    assert!(
        guest
            .mmio
            .interests()
            .all(|(_, _, interest)| interest.write)
    );
    guest.post(3);
    guest.stream.0.borrow_mut().room = usize::MAX;
    guest.wake(id);
    assert_eq!(guest.stream.0.borrow().from_guest.len(), ROOM as usize);
    let (header, _) = guest.packet().unwrap();
    assert_eq!(
        (header.op, header.forwarded),
        (Some(Op::CreditUpdate), ROOM)
    );
    // One byte too many costs the connection.
    guest.stream.0.borrow_mut().room = 0;
    for _ in 0..4 {
        guest.send(with_room(id, Op::Data, 1 << 16), &data);
    }
    guest.send(with_room(id, Op::Data, 1 << 16), b"!");
    assert_eq!(guest.op(), Some(Op::Reset));
}

#[test]
fn what_makes_no_sense_is_reset_or_dropped() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    guest.post(8);
    let id = Id {
        host: 1001,
        guest: 5,
    };
    guest.send(with_room(id, Op::Request, 10), b"");
    assert_eq!(guest.op(), Some(Op::Reset));
    for op in [Op::Data, Op::Response, Op::CreditRequest] {
        guest.send(with_room(id, op, 10), b"");
        assert_eq!(guest.op(), Some(Op::Reset));
    }
    guest.send(Header::new(id, Op::Reset), b"");
    assert_eq!(guest.op(), None);
    let id = guest.connected(10);
    guest.send(with_room(id, Op::Request, 10), b"");
    assert_eq!(guest.op(), Some(Op::Reset));
    // From somebody else.
    guest.send_raw(&[9; HEADER_LEN], b"");
    assert_eq!(guest.op(), None);
    assert!(guest.mmio.live());
    // Shorter than it says.
    let mut short = with_room(id, Op::Data, 10).write(0);
    short[..8].copy_from_slice(&u64::from(CID).to_le_bytes());
    short[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
    short[24] = 9;
    guest.send_raw(&short, b"12345678");
    assert!(!guest.mmio.live());
}

#[test]
fn resets_wait_for_room_and_then_the_guest_waits() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    let id = Id { host: 1, guest: 1 };
    for _ in 0..RESETS + 3 {
        guest.send(with_room(id, Op::Data, 0), b"");
        guest.transmit.used();
    }
    assert_eq!(guest.mmio.device().state.resets.len(), RESETS);
    guest.post(8);
    guest.serve();
    assert!((0..8).all(|_| guest.op() == Some(Op::Reset)));
}

#[test]
fn connections_are_bounded_and_a_reset_ends_all() {
    let mem = memory();
    let mut guest = Guest::new(&mem);
    for _ in 0..CONNECTIONS {
        let stream = guest.stream.clone();
        assert!(guest.mmio.connect(1, stream));
    }
    let stream = guest.stream.clone();
    assert!(!guest.mmio.connect(1, stream));
    set(&mut guest.mmio, &mem, 0x70, 0);
    assert_eq!(guest.mmio.interests().count(), 0);
}
