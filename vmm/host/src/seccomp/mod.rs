//! Which system calls a thread may make once it serves a guest ([`enter`]): a monitor that a guest has taken over cannot open files,
//! start programs, or reach the network where it has none.
//!
//! The tables stand in `rules.rs`; the programs for the kernel are made from them when this crate is built. A refused call ends the
//! process with a line that names it, but for a few that libraries make on the off chance: those get an error.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

include!(concat!(env!("OUT_DIR"), "/seccomp.rs"));

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs a vCPU and the devices that answer at once.
    Vcpu,
    /// Watches everything and ends it.
    EventLoop,
    /// Carries bytes between a device and files or streams that are open already.
    Worker,
    /// Carries them to sockets that it opens itself.
    Network,
    /// Fills guest memory from a file that is open already.
    Loader,
}

/// How a refused call is reported.
#[derive(Clone, Copy)]
pub struct Report {
    /// The call's name by its number.
    pub name: fn(u64) -> &'static str,
    /// The process's exit code.
    pub code: i32,
}

static REPORT: OnceLock<Report> = OnceLock::new();
static OFF: AtomicBool = AtomicBool::new(false);

/// From now on [`enter`] does nothing.
pub fn switch_off() {
    OFF.store(true, Ordering::Relaxed);
}

/// Says how refused calls are reported. Before the first [`enter`].
pub fn set_report(report: Report) -> io::Result<()> {
    let _ = REPORT.set(report);
    // SAFETY: an all-zero sigaction is valid; the handler makes async-signal-safe calls only.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Confines the calling thread, for good, to what this kind of thread needs.
pub fn enter(kind: Kind) -> io::Result<()> {
    if OFF.load(Ordering::Relaxed) {
        return Ok(());
    }
    let program: &[libc::sock_filter] = match kind {
        Kind::Vcpu => &VCPU,
        Kind::EventLoop => &EVENT_LOOP,
        Kind::Worker => &WORKER,
        Kind::Network => &NETWORK,
        Kind::Loader => &LOADER,
    };
    let wanted = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: prctl takes numbers; seccomp copies the program, which lives for ever, and changes nothing in this process's memory.
    // SPEC_ALLOW: guests are kept apart by KVM, and what it costs falls on every guest instruction.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const wanted,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the kernel says about a refused call (`siginfo_t`, `_sigsys`).
#[repr(C)]
struct Refused {
    signal: [i32; 4],
    address: u64,
    number: i32,
}

extern "C" fn refused(_: i32, info: *const Refused, _: *const libc::c_void) {
    // SAFETY: the kernel passes it to a handler with SA_SIGINFO, valid until that returns.
    let number = unsafe { (*info).number };
    let report = REPORT.get();
    let name = report.map_or("?", |report| {
        (report.name)(u64::from(number.unsigned_abs()))
    });
    for text in [
        "unik: the monitor tried the system call ",
        name,
        ", which no guest needs, and was stopped: report this; --no-seccomp runs without this check\r\n",
    ] {
        // SAFETY: the text lives across the call.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: ends the process at once, whatever its other threads do.
    unsafe { libc::_exit(report.map_or(1, |report| report.code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = [
        Kind::Vcpu,
        Kind::EventLoop,
        Kind::Worker,
        Kind::Network,
        Kind::Loader,
    ];

    /// Runs `work` in a thread of its own that has entered `kind`.
    fn confined<R: Send + 'static>(kind: Kind, work: impl FnOnce() -> R + Send + 'static) -> R {
        let name = |_| "a call";
        set_report(Report { name, code: 71 }).unwrap();
        let thread = std::thread::spawn(move || {
            enter(kind).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn every_kind_can_do_its_ordinary_work() {
        for kind in KINDS {
            let sum: usize = confined(kind, || (0..200).map(|i| vec![1u8; i * 4096].len()).sum());
            assert_eq!(sum, 199 * 100 * 4096);
        }
    }

    #[test]
    fn files_cannot_be_opened() {
        for kind in KINDS {
            let error = confined(kind, || std::fs::File::open("/etc/passwd").err());
            assert_eq!(error.unwrap().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    /// What the next test watches: it ends this process.
    #[test]
    #[ignore = "ends the process that runs it"]
    fn opens_a_socket() {
        let socket = confined(Kind::Worker, || std::net::UdpSocket::bind("127.0.0.1:0"));
        drop(socket);
    }

    #[test]
    fn a_refused_call_ends_the_process_and_is_named() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "seccomp::tests::opens_a_socket"])
            .args(["--test-threads=1"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{errors}");
        assert!(errors.contains("tried the system call a call"), "{errors}");
    }
}
