//! The rest: uname(2), sysinfo(2), limits, usage, prctl(2), getrandom(2), membarrier(2), waiting for children that never are.

use crate::arch::vcpu::Vcpu;
use crate::errno::{Errno, Result};
use crate::lock::Locked;
use crate::mm::space::SPACE;
use crate::mm::{frames, tlb, user};
use crate::process::{self, PID};
use crate::{config, random, sched, time};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::{general as linux, prctl as pr};

/// What uname says of the kernel: Linux's interface of this version.
pub const RELEASE: &str = "6.1.0-unik";

static HOSTNAME: Locked<Option<Vec<u8>>> = Locked::new(None);

/// The host name.
pub fn hostname() -> Vec<u8> {
    HOSTNAME
        .get()
        .clone()
        .unwrap_or_else(|| config::get().hostname.clone())
}

/// Name and version.
pub fn uname(out: u64) -> Result<u64> {
    let mut bytes = [0u8; 390];
    let name = hostname();
    let fields: [&[u8]; 6] = [
        b"Linux",
        &name,
        RELEASE.as_bytes(),
        b"#1 SMP Unik",
        b"x86_64",
        b"(none)",
    ];
    for (chunk, field) in bytes.chunks_exact_mut(65).zip(fields) {
        let len = field.len().min(64);
        chunk[..len].copy_from_slice(&field[..len]);
    }
    user::put(out, bytes).map(|()| 0)
}

/// Sets the host name.
pub fn sethostname(name: u64, len: u64) -> Result<u64> {
    if len > 64 {
        return Err(Errno::EINVAL);
    }
    set_hostname(user::slice(name, len)?);
    Ok(0)
}

/// Sets the host name, at most 64 bytes.
pub(crate) fn set_hostname(name: &[u8]) {
    *HOSTNAME.get() = Some(name.to_vec());
}

/// Memory and uptime.
pub fn sysinfo(out: u64) -> Result<u64> {
    let (free, total) = frames::stats();
    let mut words = [0u64; 14];
    words[0] = time::now() / 1_000_000_000;
    words[4] = total as u64 * 4096;
    words[5] = free as u64 * 4096;
    words[10] = sched::thread_count() as u64;
    // mem_unit is the u32 at byte 104.
    words[13] = 1;
    user::put(out, words).map(|()| 0)
}

/// Resource usage: time of process or thread, peak memory.
pub fn getrusage(who: u64, out: u64) -> Result<u64> {
    let ns = match who as i32 {
        0 => process::cpu_time(),
        -1 => 0,
        1 => time::ticks_to_ns(sched::current().cpu_ticks()),
        _ => return Err(Errno::EINVAL),
    };
    let mut words = [0u64; 18];
    (words[0], words[1]) = (ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
    words[4] = SPACE.get().resident() / 1024;
    user::put(out, words).map(|()| 0)
}

fn limit(resource: u64) -> Result<usize> {
    if resource < 16 {
        Ok(resource as usize)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Reads and sets a limit.
pub fn prlimit64(pid: u64, resource: u64, new: u64, old: u64) -> Result<u64> {
    if pid as u32 != 0 && pid as u32 != PID {
        return Err(Errno::ESRCH);
    }
    let process = process::get();
    let cell = &process.limits[limit(resource)?];
    let previous = cell.get();
    if new != 0 {
        let [soft, hard]: [u64; 2] = user::get(new)?;
        if soft > hard {
            return Err(Errno::EINVAL);
        }
        if resource as u32 == linux::RLIMIT_NOFILE {
            if hard > 1 << 20 {
                return Err(Errno::EPERM);
            }
            process::fds().set_limit(soft as u32);
        }
        cell.set((soft, hard));
    }
    user::put_optional(old, [previous.0, previous.1])?;
    Ok(0)
}

/// Reads a limit.
pub fn getrlimit(resource: u64, out: u64) -> Result<u64> {
    prlimit64(0, resource, 0, out)
}

/// Sets a limit.
pub fn setrlimit(resource: u64, new: u64) -> Result<u64> {
    prlimit64(0, resource, new, 0)
}

/// The vCPU, without the lock.
pub fn getcpu_fast(cpu: u64, node: u64) -> Option<u64> {
    (cpu == 0 && node == 0).then_some(0)
}

/// The vCPU and node this thread runs on.
pub fn getcpu(cpu: u64, node: u64, _cache: u64) -> Result<u64> {
    user::put_optional(cpu, Vcpu::index() as u32)?;
    user::put_optional(node, 0u32)?;
    Ok(0)
}

/// Random bytes.
pub fn getrandom(out: u64, len: u64, flags: u64) -> Result<u64> {
    if flags as u32 & !(linux::GRND_NONBLOCK | linux::GRND_RANDOM | linux::GRND_INSECURE) != 0 {
        return Err(Errno::EINVAL);
    }
    let len = len.min(32 << 20);
    random::fill(user::slice_mut(out, len)?);
    Ok(len)
}

static DUMPABLE: Locked<u64> = Locked::new(1);
static NO_NEW_PRIVS: Locked<u64> = Locked::new(0);

/// Operations on a thread.
pub fn prctl(option: u64, a: u64, b: u64, _c: u64, _d: u64) -> Result<u64> {
    let thread = sched::current();
    match option as u32 {
        pr::PR_SET_NAME => {
            let text = user::string(a, 4096).or_else(|_| user::slice(a, 15).map(<[u8]>::to_vec))?;
            let mut name = [0; 16];
            let len = text.len().min(15);
            name[..len].copy_from_slice(&text[..len]);
            thread.name.set(name);
            Ok(0)
        }
        pr::PR_GET_NAME => user::put(a, thread.name.get()).map(|()| 0),
        pr::PR_GET_DUMPABLE => Ok(*DUMPABLE.get()),
        pr::PR_SET_DUMPABLE if a <= 1 => {
            *DUMPABLE.get() = a;
            Ok(0)
        }
        pr::PR_SET_NO_NEW_PRIVS if a == 1 => {
            *NO_NEW_PRIVS.get() = 1;
            Ok(0)
        }
        pr::PR_GET_NO_NEW_PRIVS => Ok(*NO_NEW_PRIVS.get()),
        pr::PR_SET_PDEATHSIG if a <= 64 => Ok(0),
        pr::PR_GET_PDEATHSIG => user::put(a, 0u32).map(|()| 0),
        pr::PR_SET_TIMERSLACK => Ok(0),
        pr::PR_GET_TIMERSLACK => Ok(1),
        pr::PR_SET_VMA => Ok(0),
        pr::PR_SET_KEEPCAPS | pr::PR_SET_THP_DISABLE if a <= 1 => Ok(0),
        pr::PR_GET_KEEPCAPS | pr::PR_GET_THP_DISABLE => Ok(0),
        pr::PR_SET_CHILD_SUBREAPER => Ok(0),
        pr::PR_GET_CHILD_SUBREAPER => user::put(a, 0u32).map(|()| 0),
        pr::PR_CAPBSET_READ => {
            let _ = b;
            Ok(1)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// PER_LINUX.
pub fn personality(persona: u64) -> Result<u64> {
    if matches!(persona as u32, 0 | u32::MAX) {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// The commands that this process registered for.
static REGISTERED: AtomicU64 = AtomicU64::new(0);

/// Makes all threads see memory alike.
pub fn membarrier(command: u64, flags: u64, _cpu: u64) -> Result<u64> {
    const QUERY: u64 = 0;
    const GLOBAL: u64 = 1;
    const GLOBAL_EXPEDITED: u64 = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: u64 = 1 << 2;
    const PRIVATE_EXPEDITED: u64 = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: u64 = 1 << 4;
    const SYNC_CORE: u64 = 1 << 5;
    const REGISTER_SYNC_CORE: u64 = 1 << 6;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let registered = |command| REGISTERED.load(Ordering::Relaxed) & command != 0;
    match command {
        QUERY => return Ok(0x7f),
        REGISTER_GLOBAL_EXPEDITED => {}
        REGISTER_PRIVATE_EXPEDITED | REGISTER_SYNC_CORE => {
            // Each registers for the command before it.
            REGISTERED.fetch_or(command >> 1, Ordering::Relaxed);
        }
        PRIVATE_EXPEDITED | SYNC_CORE if !registered(command) => return Err(Errno::EPERM),
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED => tlb::barrier(),
        // The flush ends with an instruction that serializes, here too.
        SYNC_CORE => tlb::flush_all(),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// There are never children.
pub fn wait4(_pid: u64, _status: u64, _options: u64, _usage: u64) -> Result<u64> {
    Err(Errno::ECHILD)
}

/// There are never children.
pub fn waitid(_which: u64, _id: u64, _info: u64, _options: u64, _usage: u64) -> Result<u64> {
    Err(Errno::ECHILD)
}
