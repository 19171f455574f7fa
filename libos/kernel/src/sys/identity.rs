//! Who the process is: root, alone, in a session of its own (credentials(7)).

use crate::errno::{Errno, Result};
use crate::mm::user;
use crate::process::PID;

/// Process id.
pub fn getpid() -> Result<u64> {
    Ok(PID as u64)
}

/// No parent inside this machine.
pub fn getppid() -> Result<u64> {
    Ok(0)
}

/// Root.
pub fn getuid() -> Result<u64> {
    Ok(0)
}

/// Root.
pub fn getgid() -> Result<u64> {
    Ok(0)
}

/// Root.
pub fn geteuid() -> Result<u64> {
    Ok(0)
}

/// Root.
pub fn getegid() -> Result<u64> {
    Ok(0)
}

/// Root stays root.
fn only_root(ids: &[u64]) -> Result<u64> {
    if ids.iter().all(|&id| matches!(id as u32, 0 | u32::MAX)) {
        Ok(0)
    } else {
        Err(Errno::EPERM)
    }
}

/// Only 0.
pub fn setuid(uid: u64) -> Result<u64> {
    only_root(&[uid])
}

/// Only 0.
pub fn setgid(gid: u64) -> Result<u64> {
    only_root(&[gid])
}

/// Only 0.
pub fn setreuid(real: u64, effective: u64) -> Result<u64> {
    only_root(&[real, effective])
}

/// Only 0.
pub fn setregid(real: u64, effective: u64) -> Result<u64> {
    only_root(&[real, effective])
}

/// Only 0.
pub fn setresuid(real: u64, effective: u64, saved: u64) -> Result<u64> {
    only_root(&[real, effective, saved])
}

/// Only 0.
pub fn setresgid(real: u64, effective: u64, saved: u64) -> Result<u64> {
    only_root(&[real, effective, saved])
}

fn put_three(real: u64, effective: u64, saved: u64) -> Result<u64> {
    [real, effective, saved]
        .into_iter()
        .try_for_each(|address| user::put(address, 0u32))
        .map(|()| 0)
}

/// Root, three times.
pub fn getresuid(real: u64, effective: u64, saved: u64) -> Result<u64> {
    put_three(real, effective, saved)
}

/// Root, three times.
pub fn getresgid(real: u64, effective: u64, saved: u64) -> Result<u64> {
    put_three(real, effective, saved)
}

/// No supplementary groups.
pub fn getgroups(_size: u64, _list: u64) -> Result<u64> {
    Ok(0)
}

/// Accepted: groups have no effect for root.
pub fn setgroups(_size: u64, _list: u64) -> Result<u64> {
    Ok(0)
}

fn own(pid: u64) -> Result<u64> {
    if pid as u32 == 0 || pid as u32 == PID {
        Ok(PID as u64)
    } else {
        Err(Errno::ESRCH)
    }
}

/// The process leads its group.
pub fn getpgid(pid: u64) -> Result<u64> {
    own(pid)
}

/// The process leads its group.
pub fn getpgrp() -> Result<u64> {
    Ok(PID as u64)
}

/// The process leads its session.
pub fn getsid(pid: u64) -> Result<u64> {
    own(pid)
}

/// It leads one already.
pub fn setsid() -> Result<u64> {
    Err(Errno::EPERM)
}

/// A session leader's group cannot change.
pub fn setpgid(pid: u64, _group: u64) -> Result<u64> {
    own(pid)?;
    Err(Errno::EPERM)
}
