//! Reading and writing: read(2), write(2) and their vectored and positional forms, sendfile(2), copy_file_range(2).
//!
//! Program memory is looked at in steps, so that a large buffer costs only what is transferred; no slice of it lives while a thread waits.

use crate::errno::{Errno, Result};
use crate::lock;
use crate::mm::{self, user};
use crate::sched;
use crate::signal::{self, Info};
use crate::sys::socket;
use crate::vfs::{blocking, file, wait_for};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_fs::file::{OpenFile, Seek};
use unik_fs::inode::{FileType, Node};
use unik_fs::plain::Plain;
use unik_fs::wait::ready;

/// Most bytes of one call (`MAX_RW_COUNT`).
pub(super) const MAX_COUNT: u64 = 0x7fff_f000;
/// Bytes of program memory looked at in one step.
const STEP: u64 = 256 << 10;
/// Most parts of a vectored call (`UIO_MAXIOV`).
const MAX_PARTS: u64 = 1024;

/// A piece of program memory.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub address: u64,
    pub len: u64,
}

/// Where in the file a transfer happens: `None` at the file's own position.
type At = Option<i64>;

fn advance(at: At, done: u64) -> At {
    at.map(|at| at.saturating_add_unsigned(done))
}

pub(super) fn parts(iov: u64, count: u64) -> Result<Vec<Span>> {
    if count > MAX_PARTS {
        return Err(Errno::EINVAL);
    }
    let mut total = 0;
    let mut spans = Vec::with_capacity(count as usize);
    for index in 0..count {
        let [address, len]: [u64; 2] = user::get(iov + index * 16)?;
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let len = len.min(MAX_COUNT - total);
        total += len;
        spans.push(Span { address, len });
    }
    Ok(spans)
}

/// What a transfer at `at` concerns where an inode holds the bytes: the inode, and the position in it.
fn place(file: &OpenFile, at: At) -> Option<(Node, u64)> {
    let node = file.downcast::<Plain>().and_then(|_| file.node())?;
    Some((node, at.map_or(file.position(), |at| at.max(0) as u64)))
}

/// What a regular file has left from the position on: more of the buffer need not be looked at.
fn useful(file: &OpenFile, len: u64, at: At) -> u64 {
    let Some((node, position)) = place(file, at) else {
        return len;
    };
    if node.kind() != FileType::Regular {
        return len;
    }
    len.min(node.size().saturating_sub(position))
}

/// Moves bytes in steps until a step is short. `step` transfers `len` bytes at `done`.
fn in_steps(len: u64, mut step: impl FnMut(u64, u64) -> Result<usize>) -> Result<u64> {
    let mut done = 0;
    loop {
        let want = (len - done).min(STEP);
        match step(done, want) {
            Ok(moved) => {
                done += moved as u64;
                if (moved as u64) < want || done == len {
                    return Ok(done);
                }
            }
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
}

/// Touches what a packed file holds there without the lock: the host may have to fetch each page of it first.
fn fetch(file: &OpenFile, at: At, len: u64) {
    let bytes = place(file, at).and_then(|(node, at)| node.packed(at, len as usize));
    if let Some(bytes) = bytes {
        lock::unlocked(|| mm::touch(bytes));
    }
}

fn read_span(file: &OpenFile, span: Span, at: At) -> Result<u64> {
    in_steps(useful(file, span.len.min(MAX_COUNT), at), |done, len| {
        fetch(file, advance(at, done), len);
        let out = user::slice_mut(span.address + done, len)?;
        match advance(at, done) {
            None => file.read(out),
            Some(at) => file.read_at(at, out),
        }
    })
}

/// Adds up transfers of several parts until one is short.
fn over_parts(spans: &[Span], mut one: impl FnMut(Span, u64) -> Result<u64>) -> Result<u64> {
    let mut total = 0;
    for span in spans {
        match one(*span, total) {
            Ok(moved) => {
                total += moved;
                if moved < span.len {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn read_spans(file: &OpenFile, spans: &[Span], at: At, wait: bool) -> Result<u64> {
    let attempt = || match spans {
        [] => read_span(file, Span { address: 0, len: 0 }, at),
        spans => over_parts(spans, |span, done| read_span(file, span, advance(at, done))),
    };
    if wait {
        blocking(file, ready::IN, attempt)
    } else {
        attempt()
    }
}

/// A write without a reader: the signal that goes with the error.
pub(super) fn broken_pipe<T>(result: Result<T>) -> Result<T> {
    if matches!(result, Err(Errno::EPIPE))
        && let Some(thread) = sched::current_rc()
    {
        signal::send_to_thread(&thread, Info::kernel(linux::SIGPIPE));
    }
    result
}

/// Writes all of `len` bytes, waiting for room in streams. `part` gives the bytes at an offset; it is asked anew after every wait.
fn write_all<'a>(
    file: &OpenFile,
    len: u64,
    at: At,
    wait: bool,
    part: impl Fn(u64, u64) -> Result<&'a [u8]>,
) -> Result<u64> {
    let stream = file.object().seek_kind() == Seek::No;
    let wait = wait && !file.nonblocking();
    let mut done = 0;
    loop {
        let want = (len - done).min(STEP);
        let result = part(done, want).and_then(|data| match advance(at, done) {
            None => file.write(data),
            Some(at) => file.write_at(at, data),
        });
        match broken_pipe(result) {
            Ok(moved) => {
                done += moved as u64;
                if done == len || (moved as u64) < want && !(stream && wait) {
                    return Ok(done);
                }
            }
            Err(Errno::EAGAIN) if wait => match wait_for(file, ready::OUT, None) {
                Err(_) if done > 0 => return Ok(done),
                other => other?,
            },
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
    }
}

fn write_span(file: &OpenFile, span: Span, at: At, wait: bool) -> Result<u64> {
    write_all(file, span.len.min(MAX_COUNT), at, wait, |done, len| {
        user::slice(span.address + done, len)
    })
}

/// Several parts: of a stream as one piece, so that short writes stay whole; of a file part by part.
fn write_spans(file: &OpenFile, spans: &[Span], at: At, wait: bool) -> Result<u64> {
    let total: u64 = spans.iter().map(|span| span.len).sum();
    match spans {
        [] => write_span(file, Span { address: 0, len: 0 }, at, wait),
        [span] => write_span(file, *span, at, wait),
        spans if file.object().seek_kind() == Seek::No && total <= STEP => {
            let mut bytes = Vec::with_capacity(total as usize);
            for span in spans {
                bytes.extend_from_slice(user::slice(span.address, span.len)?);
            }
            write_all(file, total, at, wait, |done, len| {
                Ok(&bytes[done as usize..(done + len) as usize])
            })
        }
        spans => over_parts(spans, |span, done| {
            write_span(file, span, advance(at, done), wait)
        }),
    }
}

/// Reads at the position.
pub fn read(fd: u64, buf: u64, count: u64) -> Result<u64> {
    let file = file(fd)?;
    let span = Span {
        address: buf,
        len: count,
    };
    socket::read_parts(&file, &[span])
        .unwrap_or_else(|| blocking(&file, ready::IN, || read_span(&file, span, None)))
}

/// Writes at the position.
pub fn write(fd: u64, buf: u64, count: u64) -> Result<u64> {
    let file = file(fd)?;
    let span = Span {
        address: buf,
        len: count,
    };
    socket::write_parts(&file, &[span]).unwrap_or_else(|| write_span(&file, span, None, true))
}

/// Reads elsewhere.
pub fn pread64(fd: u64, buf: u64, count: u64, offset: u64) -> Result<u64> {
    if (offset as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    read_span(
        &*file(fd)?,
        Span {
            address: buf,
            len: count,
        },
        Some(offset as i64),
    )
}

/// Writes elsewhere.
pub fn pwrite64(fd: u64, buf: u64, count: u64, offset: u64) -> Result<u64> {
    if (offset as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    write_span(
        &*file(fd)?,
        Span {
            address: buf,
            len: count,
        },
        Some(offset as i64),
        true,
    )
}

/// Reads into several buffers.
pub fn readv(fd: u64, iov: u64, count: u64) -> Result<u64> {
    let file = file(fd)?;
    let spans = parts(iov, count)?;
    socket::read_parts(&file, &spans).unwrap_or_else(|| read_spans(&file, &spans, None, true))
}

/// Writes from several buffers.
pub fn writev(fd: u64, iov: u64, count: u64) -> Result<u64> {
    let file = file(fd)?;
    let spans = parts(iov, count)?;
    socket::write_parts(&file, &spans).unwrap_or_else(|| write_spans(&file, &spans, None, true))
}

/// Reads into several buffers elsewhere. (On a 64-bit machine the low half of the offset is all of it.)
pub fn preadv(fd: u64, iov: u64, count: u64, offset: u64, _high: u64) -> Result<u64> {
    if (offset as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    read_spans(&*file(fd)?, &parts(iov, count)?, Some(offset as i64), true)
}

/// Writes from several buffers elsewhere.
pub fn pwritev(fd: u64, iov: u64, count: u64, offset: u64, _high: u64) -> Result<u64> {
    if (offset as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    write_spans(&*file(fd)?, &parts(iov, count)?, Some(offset as i64), true)
}

/// Offset and waiting of `preadv2` and `pwritev2`.
fn second(offset: u64, flags: u64, known: u32) -> Result<(At, bool)> {
    let flags = flags as u32;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let at = match offset as i64 {
        -1 => None,
        at if at < 0 => return Err(Errno::EINVAL),
        at => Some(at),
    };
    Ok((at, flags & linux::RWF_NOWAIT == 0))
}

const RWF_HINTS: u32 = linux::RWF_HIPRI | linux::RWF_DSYNC | linux::RWF_SYNC | linux::RWF_NOWAIT;

/// As preadv, with flags; offset -1 is the position.
pub fn preadv2(fd: u64, iov: u64, count: u64, offset: u64, _high: u64, flags: u64) -> Result<u64> {
    let (at, wait) = second(offset, flags, RWF_HINTS)?;
    read_spans(&*file(fd)?, &parts(iov, count)?, at, wait)
}

/// As pwritev, with flags; offset -1 is the position.
pub fn pwritev2(fd: u64, iov: u64, count: u64, offset: u64, _high: u64, flags: u64) -> Result<u64> {
    let (at, wait) = second(offset, flags, RWF_HINTS | linux::RWF_APPEND)?;
    let file = file(fd)?;
    let spans = parts(iov, count)?;
    if flags as u32 & linux::RWF_APPEND == 0 || file.object().seek_kind() != Seek::Bytes {
        return write_spans(&file, &spans, at, wait);
    }
    let end = file.node().map_or(0, |node| node.size());
    let written = write_spans(&file, &spans, Some(end as i64), wait)?;
    if at.is_none() {
        file.seek((end + written) as i64, linux::SEEK_SET)?;
    }
    Ok(written)
}

/// Copies up to `count` bytes from `from` (at a position) to `to`, by way of a buffer.
fn copy(from: &Rc<OpenFile>, at: i64, to: &Rc<OpenFile>, to_at: At, count: u64) -> Result<u64> {
    let mut buffer = alloc::vec![0; count.min(STEP) as usize];
    let mut total = 0u64;
    while total < count {
        let want = (count - total).min(STEP) as usize;
        let moved = from
            .read_at(at.saturating_add_unsigned(total), &mut buffer[..want])
            .and_then(|have| {
                let data = &buffer[..have];
                write_all(to, have as u64, advance(to_at, total), true, |done, len| {
                    Ok(&data[done as usize..(done + len) as usize])
                })
                .map(|moved| (have, moved))
            });
        match moved {
            Ok((have, moved)) => {
                total += moved;
                if have < want || moved < have as u64 {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// A position in program memory, or the file's own.
struct Cursor<'a> {
    file: &'a OpenFile,
    address: u64,
    start: i64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a OpenFile, address: u64) -> Result<Self> {
        if address != 0 && file.object().seek_kind() == Seek::No {
            return Err(Errno::ESPIPE);
        }
        let start = if address == 0 {
            file.position() as i64
        } else {
            user::get::<i64>(address)?
        };
        if start < 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(Self {
                file,
                address,
                start,
            })
        }
    }

    fn moved(&self, by: u64) -> Result<()> {
        let end = self.start.saturating_add_unsigned(by);
        if self.address == 0 {
            self.file.seek(end, linux::SEEK_SET).map(drop)
        } else {
            user::put(self.address, end)
        }
    }
}

/// Copies from a file to any descriptor.
pub fn sendfile(out: u64, input: u64, offset: u64, count: u64) -> Result<u64> {
    let (from, to) = (file(input)?, file(out)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if from.object().seek_kind() == Seek::No {
        return Err(if offset == 0 {
            Errno::EINVAL
        } else {
            Errno::ESPIPE
        });
    }
    if to.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let cursor = Cursor::new(&from, offset)?;
    let count = useful(&from, count.min(MAX_COUNT), Some(cursor.start));
    let moved = copy(&from, cursor.start, &to, None, count)?;
    cursor.moved(moved)?;
    Ok(moved)
}

/// Copies between files.
pub fn copy_file_range(
    input: u64,
    in_offset: u64,
    out: u64,
    out_offset: u64,
    len: u64,
    flags: u64,
) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (file(input)?, file(out)?);
    let regular = |file: &OpenFile| match file.node().map(|node| node.kind()) {
        Some(FileType::Directory) => Err(Errno::EISDIR),
        Some(FileType::Regular) => Ok(()),
        _ => Err(Errno::EINVAL),
    };
    regular(&from)?;
    regular(&to)?;
    if !from.readable() || !to.writable() || to.flags() & linux::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    let (source, target) = (
        Cursor::new(&from, in_offset)?,
        Cursor::new(&to, out_offset)?,
    );
    let len = useful(&from, len.min(MAX_COUNT), Some(source.start));
    let overlap = source.start < target.start.saturating_add_unsigned(len)
        && target.start < source.start.saturating_add_unsigned(len);
    let same = from
        .node()
        .zip(to.node())
        .is_some_and(|(a, b)| unik_fs::inode::same(&*a, &*b));
    if same && overlap && len > 0 {
        return Err(Errno::EINVAL);
    }
    let moved = copy(&from, source.start, &to, Some(target.start), len)?;
    source.moved(moved)?;
    target.moved(moved)?;
    Ok(moved)
}

/// Moving pages between pipes is not done; callers fall back to read and write.
pub fn splice(
    input: u64,
    _in_offset: u64,
    out: u64,
    _out_offset: u64,
    _len: u64,
    _flags: u64,
) -> Result<u64> {
    file(input)?;
    file(out)?;
    Err(Errno::EINVAL)
}

/// As [`splice`].
pub fn tee(input: u64, out: u64, _len: u64, _flags: u64) -> Result<u64> {
    file(input)?;
    file(out)?;
    Err(Errno::EINVAL)
}
