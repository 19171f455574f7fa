//! AF_UNIX against what unix(7) and Linux 6 do.

use super::connection::Target;
use super::*;
use crate::addr::Address;
use crate::message::Ancillary;
use alloc::boxed::Box;
use alloc::vec;

const ME: Credentials = Credentials {
    pid: 1,
    uid: 0,
    gid: 0,
};

struct Seen(Cell<u32>);

impl Hook for Seen {
    fn wake(&self, mask: u32) {
        self.0.set(self.0.get() | mask);
    }
}

fn watch(socket: &UnixSocket) -> (Rc<Seen>, Rc<dyn Hook>) {
    let seen = Rc::new(Seen(Cell::new(0)));
    let hook: Rc<dyn Hook> = seen.clone();
    socket.set_hook(&hook);
    (seen, hook)
}

fn send(socket: &Rc<UnixSocket>, bytes: &[u8]) -> Result<usize> {
    socket.send(&[bytes], None, Ancillary::default())
}

fn receive(socket: &Rc<UnixSocket>, room: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0; room];
    let received = socket.receive(&mut [&mut buf], false)?;
    buf.truncate(received.len);
    Ok(buf)
}

fn target(name: &str) -> Target {
    Target {
        name: UnixName::Abstract(name.into()),
        inode: None,
    }
}

#[test]
fn a_stream_pair_carries_megabytes_and_ends() {
    let (a, b) = UnixSocket::pair(&Namespace::new(), Kind::Stream, ME);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        while sent < data.len() {
            match a.send(
                &[&data[sent..][..1.min(data.len() - sent)], &data[sent + 1..]],
                None,
                Ancillary::default(),
            ) {
                Ok(n) => sent += n,
                Err(e) => {
                    assert_eq!(e, Errno::EAGAIN);
                    break;
                }
            }
        }
        assert_eq!(
            a.poll() & ready::OUT == 0,
            sent < data.len() || b.bytes_available() * 4 > DEFAULT_BUFFER
        );
        let room = 10_000 + got.len() % 977;
        got.extend(receive(&b, room).unwrap());
    }
    assert!(got == data);
    assert_eq!(receive(&b, 1), Err(Errno::EAGAIN));
    a.close();
    assert_eq!(b.poll(), ready::IN | ready::OUT | ready::HUP | ready::RDHUP);
    assert_eq!(receive(&b, 1), Ok(vec![]));
    assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn unread_bytes_reset_the_other_side_once() {
    let (a, b) = UnixSocket::pair(&Namespace::new(), Kind::Stream, ME);
    send(&a, b"never read").unwrap();
    b.close();
    assert_ne!(a.poll() & ready::ERR, 0);
    assert_eq!(receive(&a, 1), Err(Errno::ECONNRESET));
    assert_eq!(receive(&a, 1), Ok(vec![]));
}

#[test]
fn hooks_hear_of_every_change() {
    let (a, b) = UnixSocket::pair(&Namespace::new(), Kind::Stream, ME);
    let ((seen_a, _keep_a), (seen_b, _keep_b)) = (watch(&a), watch(&b));
    send(&a, b"1").unwrap();
    assert_eq!(seen_b.0.take() & ready::IN, ready::IN);
    receive(&b, 1).unwrap();
    assert_eq!(seen_a.0.take() & ready::OUT, ready::OUT);
    a.shutdown(false, true).unwrap();
    assert_ne!(seen_b.0.take() & ready::RDHUP, 0);
    assert_eq!(receive(&b, 1), Ok(vec![]));
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert_eq!(send(&b, b"still"), Ok(5));
    assert_eq!(receive(&a, 9).unwrap(), b"still");
}

#[test]
fn connections_through_a_listener() {
    let space = Namespace::new();
    let listener = UnixSocket::new(&space, Kind::Stream, ME);
    assert_eq!(listener.listen(1), Err(Errno::EINVAL));
    listener.bind(UnixName::Abstract(b"srv".to_vec())).unwrap();
    listener.listen(1).unwrap();
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    let clients: Vec<_> = (0..3)
        .map(|_| UnixSocket::new(&space, Kind::Stream, ME))
        .collect();
    assert_eq!(clients[0].poll(), ready::OUT | ready::HUP);
    assert_eq!(
        clients[0].connect(Some(&target("nobody"))),
        Err(Errno::ECONNREFUSED)
    );
    clients[0].connect(Some(&target("srv"))).unwrap();
    clients[1].connect(Some(&target("srv"))).unwrap();
    let (seen, _keep) = watch(&clients[2]);
    assert_eq!(clients[2].connect(Some(&target("srv"))), Err(Errno::EAGAIN));
    assert_eq!(
        clients[0].connect(Some(&target("srv"))),
        Err(Errno::EISCONN)
    );
    assert_eq!(listener.poll(), ready::IN);
    send(&clients[0], b"early").unwrap();
    let (server, name) = listener.accept().unwrap();
    assert_eq!(name, UnixName::Unnamed);
    assert_ne!(seen.0.take() & ready::OUT, 0);
    assert_eq!(receive(&server, 10).unwrap(), b"early");
    assert_eq!(server.local_name(), UnixName::Abstract(b"srv".to_vec()));
    assert_eq!(
        clients[0].peer_name().unwrap(),
        UnixName::Abstract(b"srv".to_vec())
    );
    assert_eq!(clients[0].peer_credentials(), Ok(ME));
    listener.close();
    assert_eq!(send(&clients[1], b"x"), Err(Errno::ECONNRESET));
    assert_eq!(
        clients[2].connect(Some(&target("srv"))),
        Err(Errno::ECONNREFUSED)
    );
}

#[test]
fn datagrams_keep_boundaries_and_senders() {
    let space = Namespace::new();
    let server = UnixSocket::new(&space, Kind::Datagram, ME);
    server.bind_path(b"/run/log".to_vec(), (1, 42)).unwrap();
    assert_eq!(server.bind(UnixName::Unnamed), Ok(()));
    let client = UnixSocket::new(&space, Kind::Datagram, ME);
    client.bind(UnixName::Unnamed).unwrap();
    let to = Target {
        name: UnixName::Path(b"/run/log".to_vec()),
        inode: Some((1, 42)),
    };
    assert_eq!(send(&client, b"x"), Err(Errno::ENOTCONN));
    client
        .send(&[b"one"], Some(&to), Ancillary::default())
        .unwrap();
    client.connect(Some(&to)).unwrap();
    send(&client, b"").unwrap();
    send(&client, b"three").unwrap();
    assert_eq!(
        send(&client, &vec![0; DEFAULT_BUFFER]),
        Err(Errno::EMSGSIZE)
    );
    let mut buf = [0; 2];
    let first = server.receive(&mut [&mut buf], true).unwrap();
    assert_eq!((first.len, first.full_len, buf), (2, 3, *b"on"));
    assert_eq!(
        first.from,
        Some(Address::Unix(UnixName::Abstract(b"00000".to_vec())))
    );
    assert_eq!(receive(&server, 9).unwrap(), b"one");
    assert_eq!(receive(&server, 9).unwrap(), b"");
    assert_eq!(receive(&server, 9).unwrap(), b"three");
    server.close();
    assert_eq!(send(&client, b"x"), Err(Errno::ECONNREFUSED));
}

#[test]
fn a_full_datagram_queue_blocks_and_wakes() {
    let (a, b) = UnixSocket::pair(&Namespace::new(), Kind::Datagram, ME);
    let (seen, _keep) = watch(&a);
    let mut count = 0;
    while send(&a, &[7; 100]).is_ok() {
        count += 1;
    }
    assert_eq!(count, 512);
    assert_eq!(a.poll() & ready::OUT, 0);
    receive(&b, 100).unwrap();
    assert_ne!(seen.0.take() & ready::OUT, 0);
    assert_ne!(a.poll() & ready::OUT, 0);
}

#[test]
fn descriptors_travel_with_their_bytes() {
    for kind in [Kind::Stream, Kind::SeqPacket, Kind::Datagram] {
        let (a, b) = UnixSocket::pair(&Namespace::new(), kind, ME);
        b.pass_credentials.set(true);
        send(&a, b"plain").unwrap();
        let file: Rc<dyn core::any::Any> = Rc::new(Box::new(77u32));
        let rights = Ancillary {
            rights: vec![file],
            ..Ancillary::default()
        };
        a.send(&[b"with"], None, rights).unwrap();
        send(&a, b"after").unwrap();
        let mut buf = [0; 64];
        assert_eq!(
            b.receive(&mut [&mut buf], false)
                .unwrap()
                .ancillary
                .rights
                .len(),
            0
        );
        let with = b.receive(&mut [&mut buf], false).unwrap();
        assert_eq!((with.len, with.ancillary.rights.len()), (4, 1));
        assert_eq!(with.ancillary.credentials, Some(ME));
        assert_eq!(
            **with.ancillary.rights[0].downcast_ref::<Box<u32>>().unwrap(),
            77
        );
        assert_eq!(b.receive(&mut [&mut buf], false).unwrap().len, 5);
    }
}
