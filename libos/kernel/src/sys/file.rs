//! Files.
use crate::errno::{Errno, Result};
use crate::mm::user;

/// Writes.
pub fn write(fd: u64, buf: u64, len: u64) -> Result<u64> {
    let stream = match fd { 1 => 0, 2 => 1, _ => return Err(Errno::EBADF) };
    Ok(crate::console::write(stream, user::slice(buf, len)?) as u64)
}
/// Writes.
pub fn writev(fd: u64, iov: u64, count: u64) -> Result<u64> {
    let mut n = 0;
    for i in 0..count { let [b, l]: [u64; 2] = user::get(iov + i * 16)?; n += write(fd, b, l)?; }
    Ok(n)
}
