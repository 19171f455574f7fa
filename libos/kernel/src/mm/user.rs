//! Checked access to the program's memory. With the big lock held nothing can be unmapped between check and use.

use super::space::{Access, Fault, SPACE};
use super::{PAGE, page_down, pagetable};
use crate::errno::{Errno, Result};
use alloc::vec::Vec;
use unik_abi::layout::USER_TOP;

/// Makes sure that `len` bytes at `address` can be read or written; EFAULT if not.
pub fn check(address: u64, len: u64, access: Access) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let end = address
        .checked_add(len)
        .filter(|&end| end <= USER_TOP)
        .ok_or(Errno::EFAULT)?;
    let mut page = page_down(address);
    while page < end {
        let usable = |entry: u64| {
            entry & pagetable::PRESENT != 0
                && (access != Access::Write || entry & pagetable::WRITE != 0)
        };
        match pagetable::lookup(page) {
            Some(leaf) if usable(leaf.entry) => {
                page = if leaf.large {
                    (page & !(super::LARGE - 1)) + super::LARGE
                } else {
                    page + PAGE
                }
            }
            _ => {
                SPACE
                    .get()
                    .fault(page.max(address), access)
                    .map_err(|fault| match fault {
                        Fault::OutOfMemory => Errno::ENOMEM,
                        _ => Errno::EFAULT,
                    })?;
                page += PAGE;
            }
        }
    }
    Ok(())
}

/// The program's bytes at `address`.
pub fn slice<'a>(address: u64, len: u64) -> Result<&'a [u8]> {
    check(address, len, Access::Read)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: mapped and readable (just checked), stays so while the big lock is held; the program may change the bytes
    // under us, which u8 tolerates as every value is valid and nothing is read twice for safety.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, len as usize) })
}

/// The program's bytes at `address`, to be written.
pub fn slice_mut<'a>(address: u64, len: u64) -> Result<&'a mut [u8]> {
    check(address, len, Access::Write)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: mapped and writable (just checked); see `slice`.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut u8, len as usize) })
}

/// Plain data: any bytes are a valid value and there is no padding that matters.
///
/// # Safety
/// Every bit pattern is a valid value of the type.
pub unsafe trait Plain: Copy {}
// SAFETY: integers.
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for i32 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
// SAFETY: integers.
unsafe impl Plain for i64 {}
// SAFETY: an array of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reads a value (no alignment needed).
pub fn get<T: Plain>(address: u64) -> Result<T> {
    let bytes = slice(address, size_of::<T>() as u64)?;
    // SAFETY: as many bytes as T has, and any bytes are a T.
    Ok(unsafe { (bytes.as_ptr() as *const T).read_unaligned() })
}

/// Writes a value (no alignment needed).
pub fn put<T: Plain>(address: u64, value: T) -> Result<()> {
    let bytes = slice_mut(address, size_of::<T>() as u64)?;
    // SAFETY: as many bytes as T has.
    unsafe { (bytes.as_mut_ptr() as *mut T).write_unaligned(value) };
    Ok(())
}

/// Writes a value unless the address is null.
pub fn put_optional<T: Plain>(address: u64, value: T) -> Result<()> {
    if address == 0 {
        Ok(())
    } else {
        put(address, value)
    }
}

/// A NUL-terminated string of at most `max` bytes (without the NUL); ENAMETOOLONG beyond.
pub fn string(address: u64, max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut at = address;
    loop {
        let chunk = slice(at, PAGE - at % PAGE)?;
        match chunk.iter().position(|&b| b == 0) {
            Some(end) => bytes.extend_from_slice(&chunk[..end]),
            None => bytes.extend_from_slice(chunk),
        }
        if bytes.len() > max {
            return Err(Errno::ENAMETOOLONG);
        }
        if chunk.contains(&0) {
            return Ok(bytes);
        }
        at += chunk.len() as u64;
    }
}

/// A path: at most PATH_MAX - 1 bytes.
pub fn path(address: u64) -> Result<Vec<u8>> {
    string(address, 4095)
}

/// An atomic word of the program (futexes); EINVAL when misaligned.
pub fn atomic<'a>(address: u64) -> Result<&'a core::sync::atomic::AtomicU32> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    check(address, 4, Access::Read)?;
    // SAFETY: mapped, aligned, and shared with the program only through atomics.
    Ok(unsafe { core::sync::atomic::AtomicU32::from_ptr(address as *mut u32) })
}

/// Stores two words at once without the big lock; false when that memory is not (yet) writable.
pub fn store_pair(address: u64, first: u64, second: u64) -> bool {
    unsafe extern "C" {
        fn store_pair(address: u64, first: u64, second: u64) -> u64;
    }
    // SAFETY: a fault inside is answered with 0; addresses of the library OS are refused before.
    address <= USER_TOP - 16 && unsafe { store_pair(address, first, second) } == 1
}
