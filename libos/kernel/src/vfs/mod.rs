//! The file systems joined to the kernel: the one [`Vfs`], the descriptor table with the standard streams, waiting on files.
//!
//! The descriptor table is made at its first use, the tree of files when a path is first used: a program that only prints pays for neither.
//!
//! - [`streams`]: the standard streams on the consoles. [`proc`]: what `/proc` asks of us. [`events`]: clocks for timerfd, signals for signalfd.
//! - `crate::file`: pages, time and randomness for the file systems. `crate::sys`: the system calls.

pub mod events;
pub mod proc;
pub mod streams;

use crate::errno::{Errno, Result};
use crate::file::Kernel;
use crate::lock::Locked;
use crate::mm::{frames, user};
use crate::sched::{Wake, wait};
use crate::{boot, config, process};
use alloc::rc::Rc;
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_fs::console::Console;
use unik_fs::fdtable::FdTable;
use unik_fs::file::OpenFile;
use unik_fs::packed::Packed;
use unik_fs::procfs::{self, ProcSource};
use unik_fs::system::{System, UserMemory};
use unik_fs::tree::{self, Plan};
use unik_fs::vfs::Vfs;

static FDS: Locked<Option<Rc<FdTable>>> = Locked::new(None);
static VFS: Locked<Option<Rc<Vfs>>> = Locked::new(None);

/// What `/dev/tty` opens.
static TERMINAL: Locked<Option<Rc<Console>>> = Locked::new(None);

/// RLIMIT_NOFILE at start.
const FD_LIMIT: u32 = 1024;

/// The kernel as file systems see it.
pub fn system() -> Rc<dyn System> {
    Rc::new(Kernel)
}

/// The table of open files.
pub fn fds() -> Rc<FdTable> {
    if let Some(fds) = FDS.get().as_ref() {
        return fds.clone();
    }
    let fds = Rc::new(FdTable::new(FD_LIMIT));
    *TERMINAL.get() = streams::open(&fds);
    FDS.get().insert(fds).clone()
}

/// All file systems.
pub fn vfs() -> Rc<Vfs> {
    if let Some(vfs) = VFS.get().as_ref() {
        return vfs.clone();
    }
    let vfs = build();
    *VFS.get() = Some(vfs.clone());
    vfs
}

/// Builds the tree: packed files, `/dev`, `/proc`, `/sys`. File data may take half of the memory, as with Linux's tmpfs.
fn build() -> Rc<Vfs> {
    let config = config::get();
    let info = boot::image_info();
    let packed = Packed::new(
        boot::physical(info.index_paddr, info.index_len),
        boot::physical(info.files_paddr, info.files_len),
    );
    let plan = Plan {
        packed,
        pages: frames::stats().1 as u64 / 2,
        hostname: config.hostname.clone(),
        zone: config.tz.clone(),
    };
    let vfs = tree::build(system(), fds(), plan);
    if let Some(terminal) = TERMINAL.get().clone() {
        vfs.set_console(terminal);
    }
    let source: Rc<dyn ProcSource> = Rc::new(proc::Source);
    if procfs::mount(&vfs, &source).is_err() || vfs.chdir(&config.cwd).is_err() {
        crate::console::warn(&alloc::format!(
            "working directory {} is not there; starting in /",
            alloc::string::String::from_utf8_lossy(&config.cwd)
        ));
    }
    vfs
}

/// The file of a descriptor argument.
pub fn file(fd: u64) -> Result<Rc<OpenFile>> {
    fds().get(fd as i32)
}

/// As [`file`], but not one opened with `O_PATH`.
pub fn usable(fd: u64) -> Result<Rc<OpenFile>> {
    file(fd).and_then(|file| {
        if file.path_only() {
            Err(Errno::EBADF)
        } else {
            Ok(file)
        }
    })
}

/// Enters a new file; `flags` may hold `O_CLOEXEC`.
pub fn install(file: Rc<OpenFile>, flags: u32) -> Result<u64> {
    fds()
        .insert(file, flags & linux::O_CLOEXEC != 0)
        .map(|fd| fd as u64)
}

/// The path of an open file, for `/proc/self/maps`.
pub fn path_of(node: &unik_fs::Node) -> Vec<u8> {
    vfs()
        .path_of(node)
        .unwrap_or_else(|| b"/memfd (deleted)".to_vec())
}

/// Waits until the file's queue speaks of `mask` or `deadline` (nanoseconds since boot) passes.
/// `EAGAIN` when the file has no queue, `EINTR` on a signal, `ETIMEDOUT` at the deadline.
pub fn wait_for(file: &OpenFile, mask: u32, deadline: Option<u64>) -> Result<()> {
    let queue = file.object().wait_queue().ok_or(Errno::EAGAIN)?;
    match wait::on_queues(&[(queue, mask)], deadline) {
        Wake::Event => Ok(()),
        Wake::Signal => Err(Errno::EINTR),
        Wake::Timeout => Err(Errno::ETIMEDOUT),
    }
}

/// Repeats `attempt` until it has something, waiting in between unless the file is non-blocking. No slice of program memory may
/// live across attempts.
pub fn blocking<T>(
    file: &OpenFile,
    mask: u32,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        match attempt() {
            Err(Errno::EAGAIN) if !file.nonblocking() => wait_for(file, mask, None)?,
            result => return result,
        }
    }
}

/// The program's memory, for ioctls.
pub struct Memory;

impl UserMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(user::slice(address, out.len() as u64)?);
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        user::slice_mut(address, data.len() as u64)?.copy_from_slice(data);
        Ok(())
    }
}

/// Resource limits as `/proc` shows them: `None` for unlimited.
pub fn limits() -> Vec<procfs::source::Limit> {
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    process::get()
        .limits
        .iter()
        .map(|limit| limit.get())
        .map(|(soft, hard)| (finite(soft), finite(hard)))
        .collect()
}
