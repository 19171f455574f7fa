//! Signals: the ones a user sends, as a file descriptor, and the one that takes a vCPU thread out of the guest.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// Signals that the monitor takes for its guest.
pub const FORWARDED: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The signal that interrupts `KVM_RUN`.
fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn do_nothing(_: i32) {}

/// Lets the kick signal interrupt system calls without doing anything else. Call once before the first vCPU runs.
pub fn install_kick() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler is an async-signal-safe function that does nothing.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = do_nothing as *const () as usize;
        libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends the kick signal to thread `tid` of this process. A thread that has ended is no error.
pub fn kick(tid: i32) {
    // SAFETY: tgkill only sends a signal, whose handler does nothing, to a thread of this process.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, kick_signal()) };
}

/// The id of the calling thread.
pub fn thread_id() -> i32 {
    // By number, for the reason given in `entropy::fill`.
    // SAFETY: gettid has no precondition.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// The signals of [`FORWARDED`] as something to read.
pub struct SignalFd(File);

impl SignalFd {
    /// Blocks the forwarded signals in this thread and in those it will start, and returns their descriptor (non-blocking).
    /// Signals that the parent set to "ignore" (nohup) stay ignored.
    pub fn block_forwarded() -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before use; the calls read and write only local memory.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in FORWARDED {
                let mut old: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut old);
                if old.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&raw mut set, signal);
                }
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The next pending signal's number.
    pub fn take(&mut self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match self.0.read(&mut info) {
            Ok(n) if n == info.len() => {
                Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
            }
            _ => None,
        }
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
