//! The vsock device in its place, and the thread that watches the host's ends of its connections.
//!
//! Host sockets, as Firecracker has them: whoever connects to the Unix socket PATH and sends `CONNECT port\n` gets `OK hostport\n` and
//! then the guest's port; a guest that connects to a port of the host gets the Unix socket `PATH_port`.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unik_devices::virtio::mmio::Effect;
use unik_devices::vsock::connection::Interest;
use unik_devices::vsock::packet::Id;
use unik_devices::vsock::{Host, RECEIVE, Stream, TRANSMIT, Vsock};
use unik_host::poll::{self, Watch};
use unik_host::seccomp::{self, Kind};

use super::Machine;
use super::slot::{Bell, Slot, Window};
use super::socket::Socket;
use crate::error::Error;

/// Most clients that have connected but not said yet to which port.
const CALLERS: usize = 32;

/// The longest line that a client may send.
const LINE: usize = 32;

/// The host's end of a connection.
pub struct End(UnixStream);

impl Read for End {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for End {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for End {
    fn opened(&mut self, id: Id) -> io::Result<()> {
        // A fresh socket has room for a line.
        self.0.write_all(format!("OK {}\n", id.host).as_bytes())
    }

    fn finish(&mut self) {
        // One that is closed already needs nothing.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// The Unix sockets beside PATH.
pub struct Ports(PathBuf);

impl Host for Ports {
    type Stream = End;

    fn connect(&mut self, port: u32) -> Option<End> {
        let mut path = OsString::from(&self.0);
        path.push(format!("_{port}"));
        let stream = UnixStream::connect(path).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(End(stream))
    }
}

/// The device, its place and its bells.
pub struct VsockWindow {
    slot: Slot<Vsock<Ports>>,
    receive: Bell,
    transmit: Bell,
}

impl Window for VsockWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.slot.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self.slot.write(offset, data) {
            Effect::Doorbell(queue) if usize::from(queue) == RECEIVE => self.receive.ring(),
            Effect::Doorbell(queue) if usize::from(queue) == TRANSMIT => self.transmit.ring(),
            // After a reset there are no connections to watch.
            Effect::Ready | Effect::Reset => self.transmit.ring(),
            _ => {}
        }
    }
}

/// Attaches a vsock for the guest `cid` to `machine`, whose host side is at `socket`, and starts its thread.
pub fn attach(machine: &mut Machine, socket: &Socket, cid: u32) -> Result<(), Error> {
    let place = machine.next_place();
    let bell = |queue| {
        Bell::new(Arc::clone(&machine.vm), place.window, queue)
            .map_err(Error::host("create an event"))
    };
    let (receive, transmit) = (bell(RECEIVE)?, bell(TRANSMIT)?);
    let device = Vsock::new(Ports(socket.path().to_owned()), cid);
    let slot = Slot::new(device, machine.ram.view().clone(), place.line);
    let window = Arc::new(VsockWindow {
        slot,
        receive,
        transmit,
    });
    machine.attach(window.clone());
    let listener = socket.listener().map_err(Error::host("use a socket"))?;
    let name = std::thread::Builder::new().name("unik-vsock".into());
    name.stack_size(64 << 10)
        // What cannot be confined does not serve; the event loop says why.
        .spawn(move || {
            if seccomp::enter(Kind::Network).is_ok() {
                Switchboard::new(window, listener).run();
            }
        })
        .map_err(Error::host("start a thread"))?;
    Ok(())
}

/// The thread's own: clients that have not said yet what they want.
struct Switchboard {
    window: Arc<VsockWindow>,
    listener: UnixListener,
    callers: Vec<Caller>,
}

struct Caller {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Switchboard {
    fn new(window: Arc<VsockWindow>, listener: UnixListener) -> Self {
        Self {
            window,
            listener,
            callers: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            self.window.receive.clear();
            self.window.transmit.clear();
            while self.window.slot.with(|device, mem| device.serve(mem)) {}
            if self.wait().is_err() {
                return;
            }
        }
    }

    /// Waits until something is ready and takes note of it.
    fn wait(&mut self) -> io::Result<()> {
        let room = self.callers.len() < CALLERS;
        let mut watches = vec![
            Watch::readable(self.window.receive.event()),
            Watch::readable(self.window.transmit.event()),
            Watch::readable(&self.listener).only_if(room),
        ];
        watches.extend(self.callers.iter().map(|c| Watch::readable(&c.stream)));
        let first = watches.len();
        let mut wanted = Vec::new();
        self.window.slot.with(|device, _| {
            for (id, end, interest) in device.interests() {
                if interest != Interest::default() {
                    wanted.push((id, interest));
                    watches.push(Watch::new(&end.0, interest.read, interest.write));
                }
            }
        });
        poll::wait(&mut watches, None)?;
        for ((id, interest), watch) in wanted.into_iter().zip(&watches[first..]) {
            if watch.ready {
                self.window.slot.with(|device, _| device.wake(id, interest));
            }
        }
        let ready: Vec<bool> = watches[3..first].iter().map(|watch| watch.ready).collect();
        self.hear(&ready);
        if watches[2].ready {
            self.answer();
        }
        Ok(())
    }

    fn answer(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            // Too many open files, for example: it is still there when some are closed.
            std::thread::sleep(Duration::from_millis(20));
            return;
        };
        if stream.set_nonblocking(true).is_ok() {
            let line = Vec::new();
            self.callers.push(Caller { stream, line });
        }
    }

    /// Reads from the callers that are ready, and connects those that have said where to.
    fn hear(&mut self, ready: &[bool]) {
        let callers = std::mem::take(&mut self.callers);
        for (mut caller, ready) in callers.into_iter().zip(ready) {
            match if *ready {
                caller.read()
            } else {
                Heard::Nothing
            } {
                Heard::Nothing => self.callers.push(caller),
                Heard::Port(port) => {
                    let end = End(caller.stream);
                    self.window.slot.with(|device, _| device.connect(port, end));
                }
                Heard::Nonsense => {}
            }
        }
    }
}

/// What a caller said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Port(u32),
    Nonsense,
}

impl Caller {
    /// Reads up to the end of the line and no further: what follows is for the guest.
    fn read(&mut self) -> Heard {
        let mut byte = [0];
        while self.line.len() < LINE {
            match self.stream.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => return parse(&self.line),
                Ok(1) => self.line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                _ => return Heard::Nonsense,
            }
        }
        Heard::Nonsense
    }
}

fn parse(line: &[u8]) -> Heard {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let port = text
        .strip_prefix("CONNECT ")
        .or_else(|| text.strip_prefix("connect "));
    match port.and_then(|port| port.trim().parse().ok()) {
        Some(port) => Heard::Port(port),
        None => Heard::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_nothing_behind_it() {
        let (mut client, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let line = Vec::new();
        let mut caller = Caller { stream, line };
        client.write_all(b"CONN").unwrap();
        assert_eq!(caller.read(), Heard::Nothing);
        client.write_all(b"ECT 52\nhello").unwrap();
        assert_eq!(caller.read(), Heard::Port(52));
        let mut rest = [0; 5];
        caller.stream.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
        client.write_all(&[b'x'; 100]).unwrap();
        assert_eq!(caller.read(), Heard::Nonsense);
        assert_eq!(parse(b"CONNECT -1"), Heard::Nonsense);
    }
}
