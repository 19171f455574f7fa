//! Guest RAM that is filled while the guest runs: a [`Gate`] holds whoever touches a part that is not there yet, guest or monitor, until
//! somebody has put it there.
//!
//! Source: Linux `Documentation/admin-guide/mm/userfaultfd.rst`, userfaultfd(2), ioctl_userfaultfd(2). Each part is prepared in memory of its
//! own and moved into place whole, so that it stays a huge page; UFFDIO_COPY knows only small ones.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::memory::{GuestRam, HUGE_PAGE, MemoryError, advise_huge, reserve_aligned};

/// Requests of `linux/userfaultfd.h`.
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_WAKE: u64 = 0x8010_aa02;

/// The only version of the interface.
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;

/// `struct uffd_msg`.
const MESSAGE: usize = 32;

/// Holds whoever touches memory behind it. When it is dropped all get through; what was not filled reads as zero.
#[derive(Debug)]
pub struct Gate {
    file: File,
    /// First guest physical address and where it lies here.
    gpa: u64,
    host: u64,
    len: u64,
}

/// Bytes of a file and their place in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Guest physical address.
    pub at: u64,
}

impl Gate {
    /// Puts a gate before the huge pages that hold `len` bytes from `gpa` on, which nobody has touched. `None` where the host does not let
    /// this user do that for a virtual machine's faults (`vm.unprivileged_userfaultfd`, or access to `/dev/userfaultfd`).
    pub fn new(ram: &GuestRam, gpa: u64, len: u64) -> Option<Self> {
        let first = gpa / HUGE_PAGE * HUGE_PAGE;
        let len = (gpa + len).next_multiple_of(HUGE_PAGE) - first;
        let host = ram.host_range(first, len).ok()?;
        let file = open()?;
        let mut api = [UFFD_API, 0, 0];
        request(&file, UFFDIO_API, &mut api).ok()?;
        let gate = Self {
            file,
            gpa: first,
            host,
            len,
        };
        let mut register = [host, len, UFFDIO_REGISTER_MODE_MISSING, 0];
        request(&gate.file, UFFDIO_REGISTER, &mut register).ok()?;
        Some(gate)
    }

    /// Guest physical addresses of the huge pages somebody has begun to wait for since the last question. Does not wait.
    pub fn wanted(&self) -> Vec<u64> {
        let mut messages = [0; 16 * MESSAGE];
        let read = (&self.file).read(&mut messages).unwrap_or(0);
        let address = |message: &[u8]| {
            let bytes = message.get(16..24)?.try_into().ok()?;
            let inside = u64::from_ne_bytes(bytes).checked_sub(self.host)?;
            (message[0] == UFFD_EVENT_PAGEFAULT)
                .then_some(self.gpa + inside / HUGE_PAGE * HUGE_PAGE)
        };
        let whole = messages[..read].chunks_exact(MESSAGE);
        whole.filter_map(address).collect()
    }

    /// Fills the huge page at `gpa` with `parts` of `file`, zeroes elsewhere, and lets those through that wait for it. Once for each page;
    /// an error ends the work, because the desk may hold a piece.
    pub fn fill(
        &self,
        file: &File,
        gpa: u64,
        parts: &[Part],
        desk: &mut Desk,
    ) -> Result<(), MemoryError> {
        let inside = gpa
            .checked_sub(self.gpa)
            .filter(|offset| offset.is_multiple_of(HUGE_PAGE) && offset + HUGE_PAGE <= self.len);
        let host = self.host
            + inside.ok_or(MemoryError::Outside {
                gpa,
                len: HUGE_PAGE,
            })?;
        for part in parts {
            desk.read(file, gpa, part)?;
        }
        desk.move_to(host)
            .and_then(|()| request(&self.file, UFFDIO_WAKE, &mut [host, HUGE_PAGE]))
            .map_err(|source| MemoryError::MapFile {
                gpa,
                len: HUGE_PAGE,
                source,
            })
    }
}

/// A huge page of memory in which a part is prepared.
#[derive(Debug)]
pub struct Desk(u64);

impl Desk {
    /// Needs address space only.
    pub fn new() -> Result<Self, MemoryError> {
        let at = reserve_aligned(HUGE_PAGE)?;
        advise_huge(at, HUGE_PAGE);
        Ok(Self(at))
    }

    /// Reads `part` to where it lies in the page at `gpa`.
    fn read(&mut self, file: &File, gpa: u64, part: &Part) -> Result<(), MemoryError> {
        let &Part { offset, len, at } = part;
        let start = at.checked_sub(gpa);
        let start = start.filter(|start| len <= HUGE_PAGE && start + len <= HUGE_PAGE);
        let start = start.ok_or(MemoryError::Outside { gpa: at, len })?;
        // SAFETY: inside this type's own page (checked above), which nobody else knows; bytes may hold anything.
        let target =
            unsafe { std::slice::from_raw_parts_mut((self.0 + start) as *mut u8, len as usize) };
        let failed = |source| MemoryError::MapFile {
            gpa: at,
            len,
            source,
        };
        file.read_exact_at(target, offset).map_err(failed)
    }

    /// Moves what lies here to `host`; the desk is empty again.
    fn move_to(&mut self, host: u64) -> io::Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let (page, len) = (self.0 as *mut libc::c_void, HUGE_PAGE as usize);
        // SAFETY: moves pages of this type's own to a part of guest RAM that a gate covers (the caller checked it); nobody has got past the
        // gate, so nothing is lost there, and all access to guest RAM is volatile.
        let moved = unsafe { libc::mremap(page, len, len, flags, host as *mut libc::c_void) };
        match moved == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(()),
        }
    }
}

/// A new userfaultfd that also sees faults inside the kernel, as those of a guest are.
fn open() -> Option<File> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes a number, returns a descriptor or an error.
    let direct = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = if direct >= 0 {
        direct as RawFd
    } else {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open("/dev/userfaultfd")
            .ok()?;
        // SAFETY: takes a number, returns a descriptor or an error.
        unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) }
    };
    // SAFETY: a descriptor that was made just now and belongs to nobody else.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
}

/// An ioctl whose argument is a row of 64-bit words.
fn request<const N: usize>(file: &File, request: u64, words: &mut [u64; N]) -> io::Result<()> {
    // SAFETY: each request of this module reads and writes as many words as its caller passes (its number holds the size).
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, words.as_mut_ptr()) };
    match result < 0 {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const PAGE: u64 = HUGE_PAGE;

    /// A gate before the second and third of four huge pages; `None` where this user may have none.
    fn gated() -> Option<(GuestRam, Gate)> {
        let ram = GuestRam::reserve(4 * PAGE, 0xc000_0000, 0x1_0000_0000).unwrap();
        let gate = Gate::new(&ram, PAGE + 5, PAGE);
        if gate.is_none() {
            eprintln!("SKIPPED: this user may have no userfaultfd for faults of the kernel");
        }
        Some((ram, gate?))
    }

    #[test]
    fn who_comes_early_waits_and_finds_the_file() {
        let Some((ram, gate)) = gated() else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let view = ram.view().clone();
        let early = std::thread::spawn(move || {
            let mut bytes = [1; 3];
            view.read_slice(&mut bytes, GuestAddress(2 * PAGE + 4095))
                .unwrap();
            bytes
        });
        let wanted = loop {
            match gate.wanted() {
                none if none.is_empty() => std::thread::sleep(Duration::from_millis(1)),
                some => break some,
            }
        };
        assert_eq!(wanted, [2 * PAGE]);
        assert!(!early.is_finished());
        let part = |at| Part {
            offset: 100,
            len: 9000,
            at,
        };
        let mut desk = Desk::new().unwrap();
        gate.fill(&file, 2 * PAGE, &[part(2 * PAGE + 4096)], &mut desk)
            .unwrap();
        assert_eq!(early.join().unwrap(), [0, 7, 7]);
        gate.fill(&file, PAGE, &[part(PAGE)], &mut desk).unwrap();
        let read = |at| ram.view().read_obj::<u8>(GuestAddress(at)).unwrap();
        let places = [PAGE, PAGE + 8999, PAGE + 9000, 2 * PAGE - 1, 0, 3 * PAGE];
        assert_eq!(places.map(read), [7, 7, 0, 0, 0, 0]);
        // The page is the guest's own like any other.
        ram.view().write_obj(9u8, GuestAddress(PAGE)).unwrap();
        assert_eq!(read(PAGE), 9);
    }

    #[test]
    fn a_gate_that_goes_away_lets_everybody_through() {
        let Some((ram, gate)) = gated() else { return };
        let view = ram.view().clone();
        let early =
            std::thread::spawn(move || view.read_obj::<u8>(GuestAddress(PAGE + 1)).unwrap());
        while gate.wanted().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(gate);
        assert_eq!(early.join().unwrap(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let Some((ram, gate)) = gated() else { return };
        let file = File::open("/dev/zero").unwrap();
        let mut desk = Desk::new().unwrap();
        let part = |at, len| Part { offset: 0, len, at };
        for (page, part) in [
            (0, part(0, 1)),
            (3 * PAGE, part(3 * PAGE, 1)),
            (PAGE + 4096, part(PAGE + 4096, 1)),
            (PAGE, part(PAGE - 1, 2)),
            (PAGE, part(PAGE + 1, PAGE)),
        ] {
            let refused = gate.fill(&file, page, &[part], &mut desk);
            assert!(
                matches!(refused, Err(MemoryError::Outside { .. })),
                "{part:?}"
            );
        }
        assert!(Gate::new(&ram, 4 * PAGE, 1).is_none());
        let short = File::open("/dev/null").unwrap();
        let refused = gate.fill(&short, PAGE, &[part(PAGE, 1)], &mut desk);
        assert!(matches!(refused, Err(MemoryError::MapFile { .. })));
    }
}
