//! Character devices: the table behind `/dev` ([`open`]).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;

use crate::file::{FileLike, Seek};
use crate::inode::{Metadata, Node};
use crate::system::{System, UserMemory};
use crate::{Errno, Result};

/// Device number in the encoding of `st_rdev` (glibc's `makedev`).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

/// `/dev/null`.
pub const NULL: u64 = makedev(1, 3);
/// `/dev/zero`.
pub const ZERO: u64 = makedev(1, 5);
/// `/dev/full`.
pub const FULL: u64 = makedev(1, 7);
/// `/dev/random`.
pub const RANDOM: u64 = makedev(1, 8);
/// `/dev/urandom`.
pub const URANDOM: u64 = makedev(1, 9);
/// `/dev/tty`.
pub const TTY: u64 = makedev(5, 0);
/// `/dev/console`.
pub const CONSOLE: u64 = makedev(5, 1);

/// Opens the device `rdev` through its inode; `ENXIO` when there is no such device. The console's devices are opened by
/// [`crate::vfs::Vfs`], which knows the console.
pub fn open(
    rdev: u64,
    node: Node,
    system: &Rc<dyn System>,
    _flags: u32,
) -> Result<Rc<dyn FileLike>> {
    let kind = match rdev {
        NULL => Kind::Null,
        ZERO => Kind::Zero,
        FULL => Kind::Full,
        RANDOM | URANDOM => Kind::Random,
        _ => return Err(Errno::ENXIO),
    };
    Ok(Rc::new(Memory {
        kind,
        node,
        system: system.clone(),
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

/// The memory devices of Linux's `drivers/char/mem.c`.
struct Memory {
    kind: Kind,
    node: Node,
    system: Rc<dyn System>,
}

impl FileLike for Memory {
    fn metadata(&self) -> Metadata {
        self.node.metadata()
    }

    fn label(&self) -> Vec<u8> {
        Vec::new()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn node(&self) -> Option<Node> {
        Some(self.node.clone())
    }

    fn seek_kind(&self) -> Seek {
        Seek::Ignored
    }

    fn read(&self, _at: u64, out: &mut [u8]) -> Result<usize> {
        match self.kind {
            Kind::Null => return Ok(0),
            Kind::Zero | Kind::Full => out.fill(0),
            Kind::Random => self.system.fill_random(out),
        }
        Ok(out.len())
    }

    fn write(&self, _at: u64, data: &[u8]) -> Result<usize> {
        if self.kind == Kind::Full {
            Err(Errno::ENOSPC)
        } else {
            Ok(data.len())
        }
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        /// `RNDGETENTCNT` of `linux/random.h`: bits of entropy, an `int`.
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self.kind, command) {
            (Kind::Random, RNDGETENTCNT) => {
                memory.write(argument, &256i32.to_ne_bytes()).map(|()| 0)
            }
            (Kind::Random, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTTY),
        }
    }
}
