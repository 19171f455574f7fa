//! Memory: mmap(2), mprotect(2), mremap(2), madvise(2), brk(2), mlock(2), mincore(2).

use crate::errno::{Errno, Result};
use crate::mm::mapping::{Backing, FileMapping, Vma};
use crate::mm::space::{MIN_ADDRESS, SPACE};
use crate::mm::{PAGE, frames, page_up, pagetable, user};
use crate::process;
use alloc::rc::Rc;
use linux_raw_sys::general as linux;
use unik_abi::layout::USER_TOP;
use unik_fs::inode::Mapping;

const PROT_KNOWN: u32 = linux::PROT_READ
    | linux::PROT_WRITE
    | linux::PROT_EXEC
    | linux::PROT_SEM
    | linux::PROT_GROWSDOWN
    | linux::PROT_GROWSUP;

fn range(address: u64, len: u64) -> Result<(u64, u64)> {
    if !address.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let end = page_up(len)
        .and_then(|len| address.checked_add(len))
        .ok_or(Errno::ENOMEM)?;
    Ok((address, end))
}

fn check_protection(prot: u64) -> Result<u32> {
    let prot = prot as u32;
    if prot & !PROT_KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if prot & (linux::PROT_WRITE | linux::PROT_EXEC) == linux::PROT_WRITE | linux::PROT_EXEC {
        return Err(Errno::EACCES); // writable or executable, never both
    }
    Ok(prot & (linux::PROT_READ | linux::PROT_WRITE | linux::PROT_EXEC))
}

fn file_area(fd: u64, prot: u32, shared: bool, offset: u64) -> Result<Backing> {
    if !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let file = process::fds().get(fd as i32)?;
    if !file.readable() || (shared && prot & linux::PROT_WRITE != 0 && !file.writable()) {
        return Err(Errno::EACCES);
    }
    let node = file.node().ok_or(Errno::ENODEV)?;
    match node.mapping() {
        Mapping::None => Err(Errno::ENODEV),
        Mapping::Anonymous => Ok(Backing::Anonymous),
        Mapping::Pages => {
            let path = process::path_of(&node);
            Ok(Backing::File(Rc::new(FileMapping {
                node,
                path,
                writable: file.writable(),
            })))
        }
    }
}

/// Maps memory or a file.
pub fn mmap(address: u64, len: u64, prot: u64, flags: u64, fd: u64, offset: u64) -> Result<u64> {
    let flags = flags as u32;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(Errno::ENOMEM)?;
    let prot = check_protection(prot)?;
    let shared = match flags & linux::MAP_TYPE {
        linux::MAP_SHARED | linux::MAP_SHARED_VALIDATE => true,
        linux::MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    let backing = if flags & linux::MAP_ANONYMOUS != 0 {
        Backing::Anonymous
    } else {
        file_area(fd, prot, shared, offset)?
    };
    let vma = Vma {
        backing,
        offset,
        shared,
        stack: flags & (linux::MAP_STACK | linux::MAP_GROWSDOWN) != 0,
        noreserve: flags & linux::MAP_NORESERVE != 0 && len > 1 << 30,
        ..Vma::anonymous(prot)
    };
    let fixed = flags & (linux::MAP_FIXED | linux::MAP_FIXED_NOREPLACE) != 0;
    let mut space = SPACE.get();
    let start = if fixed {
        let (start, end) = range(address, len)?;
        if start < MIN_ADDRESS {
            return Err(Errno::EPERM);
        }
        if end > USER_TOP {
            return Err(Errno::ENOMEM);
        }
        if flags & linux::MAP_FIXED_NOREPLACE != 0 && !space.is_free(start, end) {
            return Err(Errno::EEXIST);
        }
        space.unmap(start, end);
        start
    } else {
        space.find_room(address & !(PAGE - 1), len, flags & linux::MAP_32BIT != 0)?
    };
    space.map(
        start,
        start + len,
        vma,
        flags & (linux::MAP_POPULATE | linux::MAP_LOCKED) != 0,
    )?;
    Ok(start)
}

/// Unmaps memory.
pub fn munmap(address: u64, len: u64) -> Result<u64> {
    let (start, end) = range(address, len)?;
    if len == 0 || end > USER_TOP {
        return Err(Errno::EINVAL);
    }
    SPACE.get().unmap(start, end);
    Ok(0)
}

/// Changes protection.
pub fn mprotect(address: u64, len: u64, prot: u64) -> Result<u64> {
    let (start, end) = range(address, len)?;
    let prot = check_protection(prot)?;
    if end > USER_TOP {
        return Err(Errno::ENOMEM);
    }
    SPACE.get().protect(start, end, prot).map(|()| 0)
}

/// Moves the end of the heap.
pub fn brk(address: u64) -> Result<u64> {
    Ok(SPACE.get().set_brk(address))
}

/// Resizes or moves a mapping.
pub fn mremap(old: u64, old_len: u64, new_len: u64, flags: u64, target: u64) -> Result<u64> {
    let flags = flags as u32;
    let (may_move, fixed) = (
        flags & linux::MREMAP_MAYMOVE != 0,
        flags & linux::MREMAP_FIXED != 0,
    );
    if !old.is_multiple_of(PAGE)
        || new_len == 0
        || flags & !(linux::MREMAP_MAYMOVE | linux::MREMAP_FIXED) != 0
        || (fixed && !may_move)
    {
        return Err(Errno::EINVAL);
    }
    let (old_len, new_len) = (
        page_up(old_len).ok_or(Errno::EINVAL)?,
        page_up(new_len).ok_or(Errno::ENOMEM)?,
    );
    if old_len == 0 || old.checked_add(old_len).is_none_or(|end| end > USER_TOP) {
        return Err(Errno::EINVAL);
    }
    let target = match fixed {
        false => None,
        true => {
            let end = target
                .checked_add(new_len)
                .filter(|&end| end <= USER_TOP)
                .ok_or(Errno::EINVAL)?;
            if !target.is_multiple_of(PAGE)
                || target < MIN_ADDRESS
                || (target < old + old_len && old < end)
            {
                return Err(Errno::EINVAL);
            }
            Some(target)
        }
    };
    SPACE.get().remap(old, old_len, new_len, may_move, target)
}

/// Advice about memory.
pub fn madvise(address: u64, len: u64, advice: u64) -> Result<u64> {
    let (start, end) = range(address, len).map_err(|_| Errno::EINVAL)?;
    match advice as u32 {
        linux::MADV_DONTNEED | linux::MADV_DONTNEED_LOCKED => SPACE.get().discard(start, end)?,
        // "Free when memory is short": only then.
        linux::MADV_FREE if !frames::are_short() => {}
        linux::MADV_FREE => SPACE.get().discard(start, end)?,
        linux::MADV_POPULATE_READ | linux::MADV_POPULATE_WRITE => SPACE
            .get()
            .populate(start, end)
            .map_err(|_| Errno::ENOMEM)?,
        linux::MADV_NORMAL
        | linux::MADV_RANDOM
        | linux::MADV_SEQUENTIAL
        | linux::MADV_WILLNEED
        | linux::MADV_DONTFORK
        | linux::MADV_DOFORK
        | linux::MADV_MERGEABLE
        | linux::MADV_UNMERGEABLE
        | linux::MADV_HUGEPAGE
        | linux::MADV_NOHUGEPAGE
        | linux::MADV_DONTDUMP
        | linux::MADV_DODUMP
        | linux::MADV_COLD
        | linux::MADV_PAGEOUT
        | linux::MADV_COLLAPSE => {
            if !SPACE.get().covers(start, end) {
                return Err(Errno::ENOMEM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Writes a shared mapping back: it is the file already.
pub fn msync(address: u64, len: u64, flags: u64) -> Result<u64> {
    let (start, end) = range(address, len)?;
    let flags = flags as u32;
    let both = linux::MS_ASYNC | linux::MS_SYNC;
    if flags & !(both | linux::MS_INVALIDATE) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    if SPACE.get().covers(start, end) {
        Ok(0)
    } else {
        Err(Errno::ENOMEM)
    }
}

/// Which pages are resident.
pub fn mincore(address: u64, len: u64, vector: u64) -> Result<u64> {
    let (start, end) = range(address, len)?;
    if !SPACE.get().covers(start, end) {
        return Err(Errno::ENOMEM);
    }
    let out = user::slice_mut(vector, (end - start) / PAGE)?;
    for (byte, page) in out.iter_mut().zip((start..end).step_by(PAGE as usize)) {
        *byte = pagetable::lookup(page).is_some() as u8;
    }
    Ok(0)
}

/// Memory is never paged out; locking backs it now.
pub fn mlock(address: u64, len: u64) -> Result<u64> {
    let start = address & !(PAGE - 1);
    let (start, end) = range(
        start,
        len.checked_add(address - start).ok_or(Errno::EINVAL)?,
    )?;
    SPACE
        .get()
        .populate(start, end)
        .map_err(|_| Errno::ENOMEM)?;
    Ok(0)
}

/// As [`mlock`], with flags.
pub fn mlock2(address: u64, len: u64, flags: u64) -> Result<u64> {
    if flags > 1 {
        return Err(Errno::EINVAL);
    }
    mlock(address, len)
}

/// Undoes mlock.
pub fn munlock(_address: u64, _len: u64) -> Result<u64> {
    Ok(0)
}

/// All memory is locked anyway.
pub fn mlockall(flags: u64) -> Result<u64> {
    if flags == 0 || flags > 7 {
        Err(Errno::EINVAL)
    } else {
        Ok(0)
    }
}

/// Undoes mlockall.
pub fn munlockall() -> Result<u64> {
    Ok(0)
}
