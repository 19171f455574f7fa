//! Disk images: regular files and block devices as plain rows of bytes, locked against a second writer.
//!
//! Reads and writes go straight between the file and guest memory. Nothing here looks at what a disk holds.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Most pieces of guest memory in one system call (the kernel's own limit).
const PIECES: usize = 1024;

/// `f_type` of ramfs, in which an initial RAM disk's files are (linux/magic.h).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open the disk {path}: {source}")]
    Open {
        /// As given.
        path: String,
        /// What the host said.
        source: io::Error,
    },
    /// A directory, pipe or something else that is no disk.
    #[error("{0} is not a disk: give a regular file with the raw contents, or a block device")]
    Kind(String),
    /// Somebody else uses it.
    #[error(
        "the disk {0} is already used by another monitor: stop that one, or let both have it read-only ({0}:ro)"
    )]
    Busy(String),
    /// Less than one sector.
    #[error(
        "the disk {0} is smaller than one sector of 512 bytes: make it larger (truncate -s 1G {0})"
    )]
    Empty(String),
}

/// An open disk.
#[derive(Debug)]
pub struct Disk {
    file: File,
    len: u64,
    device: bool,
    now: Now,
}

/// How to find out whether a read would wait for the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// The kernel says (RWF_NOWAIT).
    Asked,
    /// A file in memory: it would not.
    Memory,
    /// There is no way.
    Unknown,
}

impl Disk {
    /// Opens and locks the disk at `path`: alone for writing, together with other readers for reading only.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let name = path.display().to_string();
        let fail = |source| DiskError::Open {
            path: name.clone(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind(name));
        }
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(fail)?;
        if !lock(&file, read_only).map_err(fail)? {
            return Err(DiskError::Busy(name));
        }
        let len = length(&file).map_err(fail)? / 512 * 512;
        if len == 0 {
            return Err(DiskError::Empty(name));
        }
        Ok(Self {
            now: now(&file).map_err(fail)?,
            file,
            len,
            device: kind.is_block_device(),
        })
    }

    /// Bytes, a multiple of 512.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// A disk is never empty; for completeness.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `pieces` of guest memory from `offset` on.
    pub fn read(
        &self,
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
        offset: u64,
    ) -> io::Result<()> {
        self.transfer(mem, pieces, offset, |file, pieces, at| {
            read_vector(file, pieces, at, 0)
        })
    }

    /// As [`Self::read`], unless that would wait for the medium. `false`: it would, or nobody knows; some pieces may have been filled.
    pub fn read_now(
        &self,
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
        offset: u64,
    ) -> io::Result<bool> {
        let flags = match self.now {
            Now::Unknown => return Ok(false),
            Now::Memory => return self.read(mem, pieces, offset).map(|()| true),
            Now::Asked => libc::RWF_NOWAIT,
        };
        let vector = host_pieces(mem, pieces)?;
        if vector.len() > PIECES {
            return Ok(false);
        }
        let wanted: usize = vector.iter().map(|piece| piece.iov_len).sum();
        // A short read and every error are left to a read that waits.
        Ok(read_vector(&self.file, &vector, offset, flags) == wanted as isize)
    }

    /// Writes `pieces` of guest memory from `offset` on.
    pub fn write(
        &self,
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
        offset: u64,
    ) -> io::Result<()> {
        self.transfer(mem, pieces, offset, |file, pieces, at| {
            let (fd, count) = (file.as_raw_fd(), pieces.len() as libc::c_int);
            // SAFETY: the pieces point into guest RAM, which stays mapped as long as the process lives; the kernel only reads from them.
            unsafe { libc::pwritev(fd, pieces.as_ptr(), count, at as libc::off_t) }
        })
    }

    fn transfer(
        &self,
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
        offset: u64,
        call: impl Fn(&File, &[libc::iovec], u64) -> isize,
    ) -> io::Result<()> {
        let mut vector = host_pieces(mem, pieces)?;
        let (mut at, mut rest) = (offset, &mut vector[..]);
        while !rest.is_empty() {
            let end = rest.len().min(PIECES);
            let moved = call(&self.file, &rest[..end], at);
            match usize::try_from(moved) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(moved) => {
                    at += moved as u64;
                    rest = advance(rest, moved);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts everything that was written onto the medium.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the space of these bytes back. What they read as afterwards is not said.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            offset,
            len,
        )
    }

    /// Makes these bytes zero; `unmap`: their space need not stay reserved.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let ways = [
            libc::FALLOC_FL_PUNCH_HOLE | keep,
            libc::FALLOC_FL_ZERO_RANGE | keep,
        ];
        let first = if unmap && !self.device {
            ways[0]
        } else {
            ways[1]
        };
        match self.allocate(first, offset, len) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.fill_with_zeroes(offset, len)
            }
            other => other,
        }
    }

    fn fill_with_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let zeroes = vec![0; (1 << 16).min(len as usize)];
        let mut done = 0;
        while done < len {
            let now = (len - done).min(zeroes.len() as u64) as usize;
            self.file.write_all_at(&zeroes[..now], offset + done)?;
            done += now as u64;
        }
        Ok(())
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        loop {
            // SAFETY: fallocate takes numbers only.
            let result = unsafe {
                libc::fallocate(
                    self.file.as_raw_fd(),
                    mode,
                    offset as libc::off_t,
                    len as libc::off_t,
                )
            };
            let error = io::Error::last_os_error();
            match result {
                0 => return Ok(()),
                _ if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }
}

/// preadv2(2) into guest RAM: the bytes read, or -1 and `errno`.
fn read_vector(file: &File, pieces: &[libc::iovec], at: u64, flags: i32) -> isize {
    let (fd, count, at) = (file.as_raw_fd(), pieces.len() as i32, at as libc::off_t);
    // SAFETY: the pieces point into guest RAM, which stays mapped as long as the process lives and is only ever
    // accessed as bytes that somebody else may change.
    unsafe { libc::preadv2(fd, pieces.as_ptr(), count, at, flags) }
}

fn now(file: &File) -> io::Result<Now> {
    let mut byte = 0u8;
    let piece = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let fd = file.as_raw_fd();
    // SAFETY: one byte of this frame.
    let read = unsafe { libc::preadv2(fd, &raw const piece, 1, 0, libc::RWF_NOWAIT) };
    if read >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
        return Ok(Now::Asked);
    }
    let mut info = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs fills the structure or fails.
    if unsafe { libc::fstatfs(fd, info.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was filled.
    Ok(match unsafe { info.assume_init() }.f_type {
        libc::TMPFS_MAGIC | RAMFS_MAGIC => Now::Memory,
        _ => Now::Unknown,
    })
}

/// Where pieces of guest memory lie in this process.
pub(crate) fn host_pieces(
    mem: &GuestMemoryMmap,
    pieces: &[(GuestAddress, usize)],
) -> io::Result<Vec<libc::iovec>> {
    let mut vector = Vec::with_capacity(pieces.len());
    for &(addr, len) in pieces.iter().filter(|(_, len)| *len > 0) {
        for slice in mem.get_slices(addr, len) {
            let slice = slice.map_err(io::Error::other)?;
            vector.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
    }
    Ok(vector)
}

/// What is left of `vector` after `moved` bytes.
fn advance(mut vector: &mut [libc::iovec], mut moved: usize) -> &mut [libc::iovec] {
    while let Some(first) = vector.first_mut() {
        if moved < first.iov_len {
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(moved).cast();
            first.iov_len -= moved;
            break;
        }
        moved -= first.iov_len;
        vector = &mut vector[1..];
    }
    vector
}

/// Locks the whole file for this open description; `false`: somebody else has it.
fn lock(file: &File, shared: bool) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: if shared { libc::F_RDLCK } else { libc::F_WRLCK } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: F_OFD_SETLK reads one flock.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

fn length(mut file: &File) -> io::Result<u64> {
    use std::io::Seek;
    file.seek(io::SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("unik-disk-{name}-{}", std::process::id()))
    }

    #[test]
    fn bytes_go_where_they_belong() {
        let path = path("bytes");
        std::fs::write(&path, vec![7; 4096 + 100]).unwrap();
        let disk = Disk::open(&path, false).unwrap();
        assert_eq!(disk.len(), 4096);
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8192)]).unwrap();
        mem.write_slice(&[1; 600], GuestAddress(0)).unwrap();
        disk.write(
            &mem,
            &[
                (GuestAddress(0), 100),
                (GuestAddress(200), 0),
                (GuestAddress(300), 412),
            ],
            512,
        )
        .unwrap();
        disk.flush().unwrap();
        disk.read(
            &mem,
            &[(GuestAddress(4096), 1000), (GuestAddress(6000), 24)],
            512,
        )
        .unwrap();
        let mut bytes = [0; 1000];
        mem.read_slice(&mut bytes, GuestAddress(4096)).unwrap();
        assert!(bytes[..400].iter().all(|&b| b == 1) && bytes[512..].iter().all(|&b| b == 7));
        disk.write_zeroes(0, 512, true).unwrap();
        disk.discard(1024, 512).unwrap();
        assert!(std::fs::read(&path).unwrap()[..512].iter().all(|&b| b == 0));
        assert!(disk.read(&mem, &[(GuestAddress(8000), 400)], 0).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_at_hand_is_read_without_waiting() {
        for path in [path("now"), "/dev/shm/unik-disk-now".into()] {
            let _ = std::fs::remove_file(&path);
            if std::fs::write(&path, vec![9; 8192]).is_err() {
                continue; // no tmpfs there
            }
            let disk = Disk::open(&path, true).unwrap();
            assert_ne!(disk.now, Now::Unknown, "{path:?}");
            let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8192)]).unwrap();
            let pieces = [(GuestAddress(100), 1000), (GuestAddress(4000), 24)];
            // What was just written is in the page cache, unless memory is so short that it is gone.
            if disk.read_now(&mem, &pieces, 512).unwrap() {
                let mut bytes = [0; 1000];
                mem.read_slice(&mut bytes, GuestAddress(100)).unwrap();
                assert_eq!(bytes, [9; 1000]);
            }
            let beyond = disk.read_now(&mem, &pieces, 8000);
            assert!(!beyond.is_ok_and(|done| done), "{path:?}");
            std::fs::remove_file(path).unwrap();
        }
    }

    /// A guest that wrote another format's header into its raw disk got its host's files through it (GHSA-jmr4-g2hv-mjj6).
    #[test]
    fn a_disks_format_is_never_guessed() {
        let path = path("format");
        let mut bytes = vec![0; 4096];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[15] = 112; // a backing file's name, 11 bytes long
        bytes[19] = 11;
        bytes[112..123].copy_from_slice(b"/etc/passwd");
        std::fs::write(&path, &bytes).unwrap();
        let disk = Disk::open(&path, false).unwrap();
        assert_eq!(disk.len(), 4096);
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        disk.read(&mem, &[(GuestAddress(0), 4096)], 0).unwrap();
        let mut seen = vec![0; 4096];
        mem.read_slice(&mut seen, GuestAddress(0)).unwrap();
        assert_eq!(seen, bytes);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn one_writer_or_many_readers() {
        let path = path("lock");
        std::fs::write(&path, [0; 512]).unwrap();
        let writer = Disk::open(&path, false).unwrap();
        assert!(matches!(Disk::open(&path, true), Err(DiskError::Busy(_))));
        drop(writer);
        let readers = [
            Disk::open(&path, true).unwrap(),
            Disk::open(&path, true).unwrap(),
        ];
        assert!(matches!(Disk::open(&path, false), Err(DiskError::Busy(_))));
        drop(readers);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        assert!(matches!(
            Disk::open(Path::new("/nonexistent"), true),
            Err(DiskError::Open { .. })
        ));
        assert!(matches!(
            Disk::open(Path::new("/tmp"), true),
            Err(DiskError::Kind(_))
        ));
        assert!(matches!(
            Disk::open(Path::new("/dev/null"), true),
            Err(DiskError::Kind(_))
        ));
        let path = path("empty");
        std::fs::write(&path, [0; 511]).unwrap();
        assert!(matches!(Disk::open(&path, true), Err(DiskError::Empty(_))));
        std::fs::remove_file(path).unwrap();
    }
}
