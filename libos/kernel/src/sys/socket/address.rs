//! `struct sockaddr` in program memory.

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::net::answer;
use unik_net::addr::{Address, STORAGE};

/// Reads an address of `len` bytes.
pub fn read(address: u64, len: u64) -> Result<Address> {
    let len = usize::try_from(len as i32)
        .ok()
        .filter(|&len| len <= STORAGE)
        .ok_or(Errno::EINVAL)?;
    answer(Address::parse(user::slice(address, len as u64)?))
}

/// As [`read`], where there may be none.
pub fn read_optional(address: u64, len: u64) -> Result<Option<Address>> {
    if address == 0 || len as i32 == 0 {
        Ok(None)
    } else {
        read(address, len).map(Some)
    }
}

/// Writes an address where there is room for the number of bytes at `len`, and how long it is.
pub fn write(address: u64, len: u64, bytes: &[u8]) -> Result<()> {
    let room = usize::try_from(user::get::<i32>(len)?).map_err(|_| Errno::EINVAL)?;
    let part = &bytes[..room.min(bytes.len())];
    user::slice_mut(address, part.len() as u64)?.copy_from_slice(part);
    user::put(len, bytes.len() as i32)
}
