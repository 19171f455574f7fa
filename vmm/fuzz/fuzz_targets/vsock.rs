//! virtio-vsock: packets of the guest, streams of the host that take and give a little, connections from both sides.
#![no_main]

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use unik_devices::virtio::hostile::Hostile;
use unik_devices::vsock::connection::Interest;
use unik_devices::vsock::packet::Id;
use unik_devices::vsock::{CONNECTIONS, GUEST_CID, Host, Stream, Vsock};
use unik_vmm_fuzz::bounded;

/// All connections share what the script lets through.
#[derive(Clone)]
struct Pipe(Rc<Cell<u8>>);

impl Pipe {
    fn moved(&self, most: usize) -> io::Result<usize> {
        match self.0.get() {
            0 => Err(ErrorKind::WouldBlock.into()),
            1 => Ok(0),
            2 => Err(ErrorKind::BrokenPipe.into()),
            some => Ok(most.min(usize::from(some) * 16)),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.moved(into.len())
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.moved(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn opened(&mut self, _: Id) -> io::Result<()> {
        self.moved(1).map(drop)
    }

    fn finish(&mut self) {}
}

struct Ports(Pipe);

impl Host for Ports {
    type Stream = Pipe;

    fn connect(&mut self, port: u32) -> Option<Pipe> {
        port.is_multiple_of(2).then(|| self.0.clone())
    }
}

fuzz_target!(|script: &[u8]| {
    let pipe = Pipe(Rc::new(Cell::new(100)));
    let mut driver = Hostile::new(Vsock::new(Ports(pipe.clone()), GUEST_CID));
    bounded(4 << 20, || {
        driver.play(script, |mmio, mem, what| {
            pipe.0.set(what[1]);
            match what[0] % 5 {
                0 => {
                    mmio.connect(what[2].into(), pipe.clone());
                }
                1 => {
                    let ready = Interest {
                        read: what[2] & 1 != 0,
                        write: what[2] & 2 != 0,
                        hang_up: what[2] & 4 != 0,
                    };
                    let all: Vec<Id> = mmio.interests().map(|(id, ..)| id).collect();
                    all.into_iter().for_each(|id| mmio.wake(id, ready));
                }
                _ => {
                    let _ = mmio.serve(mem);
                }
            }
            assert!(mmio.interests().count() <= CONNECTIONS);
        });
    });
});
