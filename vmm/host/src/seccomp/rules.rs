//! Which system calls each kind of thread may make once it serves a guest. The build script compiles these tables to programs for the
//! kernel; nothing of them is in the monitor itself. glibc and musl make different calls for the same wish: both are here.

use libc::*;

/// A permitted call.
pub enum Call {
    /// With any arguments.
    Any(c_long),
    /// With an argument (its number, 32 bits of it) that is one of these.
    OneOf(c_long, u8, &'static [u64]),
    /// With an argument that has this value under a mask.
    Masked(c_long, u8, u64, u64),
    /// Not at all: it gets this error. Libraries make it on the off chance.
    Refused(c_long, c_int),
}

use Call::{Any, Masked, OneOf, Refused};

/// A kind of thread and what it may do.
pub struct Rules {
    /// Name of the compiled program.
    pub name: &'static str,
    /// The tables that together permit.
    pub tables: &'static [&'static [Call]],
}

/// All kinds.
pub const KINDS: [Rules; 5] = [
    Rules {
        name: "VCPU",
        tables: &[ALWAYS, STREAMS, KVM, TERMINAL, NO_FILES],
    },
    Rules {
        name: "EVENT_LOOP",
        tables: &[ALWAYS, STREAMS, KVM, TERMINAL, FILES, THREADS, END],
    },
    Rules {
        name: "WORKER",
        tables: &[ALWAYS, STREAMS, KVM, TERMINAL, FILES],
    },
    Rules {
        name: "NETWORK",
        tables: &[ALWAYS, STREAMS, KVM, TERMINAL, FILES, SOCKETS, END],
    },
    Rules {
        name: "LOADER",
        tables: &[ALWAYS, STREAMS, FILES, GATE],
    },
];

const PROT_EXECUTE: u64 = PROT_EXEC as u64;

/// Memory (never executable), locks, time, signals to itself, ending.
const ALWAYS: &[Call] = &[
    Masked(SYS_mmap, 2, PROT_EXECUTE, 0),
    Masked(SYS_mprotect, 2, PROT_EXECUTE, 0),
    Any(SYS_munmap),
    Any(SYS_mremap),
    Any(SYS_madvise),
    Any(SYS_brk),
    Any(SYS_futex),
    Any(SYS_membarrier),
    Any(SYS_sched_yield),
    Any(SYS_sched_getaffinity),
    Any(SYS_clock_gettime),
    Any(SYS_clock_nanosleep),
    Any(SYS_nanosleep),
    Any(SYS_gettimeofday),
    Any(SYS_getrandom),
    Any(SYS_getpid),
    Any(SYS_gettid),
    Any(SYS_tgkill),
    Any(SYS_tkill),
    Any(SYS_rt_sigreturn),
    Any(SYS_rt_sigprocmask),
    Any(SYS_rt_sigaction),
    Any(SYS_sigaltstack),
    Any(SYS_restart_syscall),
    Any(SYS_set_robust_list),
    Any(SYS_rseq),
    Any(SYS_exit),
    Any(SYS_exit_group),
    // A panic's backtrace looks for its own program.
    Refused(SYS_open, EACCES),
    Refused(SYS_openat, EACCES),
    Refused(SYS_readlink, EACCES),
    Refused(SYS_readlinkat, EACCES),
    Refused(SYS_getcwd, EACCES),
];

/// New threads with a name, no new processes. glibc tries `clone` where there is no `clone3`, whose flags cannot be seen here.
const THREADS: &[Call] = &[
    Masked(SYS_clone, 0, CLONE_THREAD as u64, CLONE_THREAD as u64),
    Refused(SYS_clone3, ENOSYS),
    OneOf(SYS_prctl, 0, &[PR_SET_NAME as u64]),
    Any(SYS_set_tid_address),
    Any(SYS_eventfd2),
];

/// Questions about files that get no answer.
const NO_FILES: &[Call] = &[
    Refused(SYS_stat, EACCES),
    Refused(SYS_fstat, EACCES),
    Refused(SYS_newfstatat, EACCES),
    Refused(SYS_statx, EACCES),
    Refused(SYS_lseek, EACCES),
    Refused(SYS_fcntl, EACCES),
];

/// What is open already: events, pipes, terminals, sockets.
const STREAMS: &[Call] = &[
    Any(SYS_read),
    Any(SYS_write),
    Any(SYS_readv),
    Any(SYS_writev),
    Any(SYS_poll),
    Any(SYS_ppoll),
    Any(SYS_close),
];

/// Requests to KVM: their second byte is its own.
const KVM: &[Call] = &[Masked(SYS_ioctl, 1, 0xff00, 0xae00)];

/// Requests to userfaultfd: their second byte is its own.
const GATE: &[Call] = &[Masked(SYS_ioctl, 1, 0xff00, 0xaa00)];

/// Requests of ioctl_tty(2), by number: their types differ from one C library to the next.
mod tty {
    pub const TCGETS: u64 = 0x5401;
    pub const TCSETS: u64 = 0x5402;
    pub const TCSETSW: u64 = 0x5403;
    pub const TCSETSF: u64 = 0x5404;
    pub const TIOCGPGRP: u64 = 0x540f;
    pub const TIOCGWINSZ: u64 = 0x5413;
    pub const FIONREAD: u64 = 0x541b;
    pub const FIONBIO: u64 = 0x5421;
}

/// A tap device learns what its driver leaves to it (TUNSETOFFLOAD).
const TAP_OFFLOAD: u64 = 0x4004_54d0;

/// Questions to terminals, and their settings; never what puts words into the user's mouth (TIOCSTI).
const TERMINAL: &[Call] = &[
    OneOf(
        SYS_ioctl,
        1,
        &[
            tty::TCGETS,
            tty::TCSETS,
            tty::TCSETSW,
            tty::TCSETSF,
            tty::TIOCGPGRP,
            tty::TIOCGWINSZ,
            tty::FIONBIO,
        ],
    ),
    Any(SYS_getpgrp),
];

/// Files that are open already.
const FILES: &[Call] = &[
    Any(SYS_pread64),
    Any(SYS_pwrite64),
    Any(SYS_preadv),
    Any(SYS_preadv2),
    Any(SYS_pwritev),
    Any(SYS_lseek),
    Any(SYS_fstat),
    Any(SYS_newfstatat),
    Any(SYS_statx),
    Any(SYS_fsync),
    Any(SYS_fdatasync),
    Any(SYS_fallocate),
    Any(SYS_ftruncate),
    OneOf(
        SYS_fcntl,
        1,
        &[
            F_GETFD as u64,
            F_SETFD as u64,
            F_GETFL as u64,
            F_SETFL as u64,
            F_DUPFD_CLOEXEC as u64,
        ],
    ),
];

/// A socket that others found by its name goes away with its owner.
const END: &[Call] = &[Any(SYS_unlink), Any(SYS_unlinkat)];

/// Networks and sockets with names.
const SOCKETS: &[Call] = &[
    Any(SYS_socket),
    Any(SYS_connect),
    Any(SYS_bind),
    Any(SYS_listen),
    Any(SYS_accept),
    Any(SYS_accept4),
    Any(SYS_shutdown),
    Any(SYS_getsockname),
    Any(SYS_getpeername),
    Any(SYS_getsockopt),
    Any(SYS_setsockopt),
    Any(SYS_sendto),
    Any(SYS_recvfrom),
    Any(SYS_sendmsg),
    Any(SYS_recvmsg),
    Any(SYS_sendmmsg),
    Any(SYS_recvmmsg),
    Any(SYS_epoll_create1),
    Any(SYS_epoll_ctl),
    Any(SYS_epoll_wait),
    Any(SYS_epoll_pwait),
    Any(SYS_eventfd2),
    OneOf(SYS_ioctl, 1, &[tty::FIONREAD, TAP_OFFLOAD]),
];
