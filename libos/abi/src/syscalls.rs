//! The one table of Linux system calls (x86-64 numbers): number, name, arguments, and how far the library OS implements each.
//!
//! The library OS's dispatch, its traces and reports, the pre-boot check of `cargo unik check` and the documentation all come from
//! [`for_each_syscall`]. To add a call: add or change its row here, write the function of that name in `libos/kernel/src/sys`.
//!
//! | state | meaning |
//! |---|---|
//! | `full` | behaves as on Linux, as far as one process can tell |
//! | `partial` | implemented but for what the note says |
//! | `quiet` | answers ENOSYS; callers are known to do without, so nothing is reported |
//! | `refused` | will not come: answers ENOSYS and is reported once with the note |
//! | `absent` | not there (yet): answers ENOSYS and is reported once |
//!
//! Kinds of arguments: `fd` descriptor, `int` number, `hex` flags, `oct` mode, each of 32 bits: whatever a caller leaves in the upper half of the
//! register does not count, as on Linux; `n` number and `long` flags of 64 bits; `path` NUL-terminated string, `in`/`out` buffer that is read/written, `ptr`
//! other address.

/// How far a call is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As on Linux.
    Full,
    /// But for what the note says.
    Partial,
    /// ENOSYS, not worth a report.
    Quiet,
    /// ENOSYS by design.
    Refused,
    /// ENOSYS for now.
    Absent,
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// File descriptor.
    Fd,
    /// Number of 32 bits.
    Int,
    /// Number of 64 bits.
    Number,
    /// Flags of 32 bits, printed in base 16.
    Hex,
    /// Flags of 64 bits, printed in base 16.
    Long,
    /// File mode, printed in base 8.
    Octal,
    /// NUL-terminated string.
    Path,
    /// Buffer that the call reads.
    In,
    /// Buffer that the call writes.
    Out,
    /// Other address.
    Pointer,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Syscall {
    /// Number on x86-64.
    pub number: u32,
    /// Linux's name.
    pub name: &'static str,
    /// Names and kinds of the arguments.
    pub args: &'static [(&'static str, Kind)],
    /// How far it is implemented.
    pub state: State,
    /// What is missing, or why.
    pub note: &'static str,
}

/// Calls `$callback! { number name(arg: kind, ...) state "note"; ... }` with every row, in order of number.
#[macro_export]
macro_rules! for_each_syscall {
    ($callback:ident) => {
        $callback! {
            0 read(fd: fd, buf: out, count: n) full "";
            1 write(fd: fd, buf: in, count: n) full "";
            2 open(path: path, flags: hex, mode: oct) full "";
            3 close(fd: fd) full "";
            4 stat(path: path, buf: out) full "";
            5 fstat(fd: fd, buf: out) full "";
            6 lstat(path: path, buf: out) full "";
            7 poll(fds: ptr, nfds: int, timeout: int) full "";
            8 lseek(fd: fd, offset: n, whence: int) full "";
            9 mmap(addr: ptr, len: n, prot: long, flags: long, fd: fd, offset: n) partial "MAP_HUGETLB is a hint; PROT_WRITE with PROT_EXEC answers EACCES";
            10 mprotect(addr: ptr, len: n, prot: long) partial "PROT_WRITE with PROT_EXEC answers EACCES";
            11 munmap(addr: ptr, len: n) full "";
            12 brk(addr: ptr) full "";
            13 rt_sigaction(sig: int, act: ptr, old: ptr, size: n) full "";
            14 rt_sigprocmask(how: int, set: ptr, old: ptr, size: n) full "";
            15 rt_sigreturn() full "";
            16 ioctl(fd: fd, request: hex, arg: ptr) partial "terminals, pipes, sockets, FIONBIO, FIOCLEX, FIONREAD";
            17 pread64(fd: fd, buf: out, count: n, offset: n) full "";
            18 pwrite64(fd: fd, buf: in, count: n, offset: n) full "";
            19 readv(fd: fd, iov: ptr, count: n) full "";
            20 writev(fd: fd, iov: ptr, count: n) full "";
            21 access(path: path, mode: oct) full "";
            22 pipe(fds: out) full "";
            23 select(nfds: int, read: ptr, write: ptr, except: ptr, timeout: ptr) full "";
            24 sched_yield() full "";
            25 mremap(old: ptr, old_len: n, new_len: n, flags: long, new: ptr) partial "MREMAP_DONTUNMAP answers EINVAL";
            26 msync(addr: ptr, len: n, flags: hex) full "";
            27 mincore(addr: ptr, len: n, vec: out) full "";
            28 madvise(addr: ptr, len: n, advice: int) partial "hints that need no action are accepted";
            32 dup(fd: fd) full "";
            33 dup2(old: fd, new: fd) full "";
            34 pause() full "";
            35 nanosleep(req: ptr, rem: ptr) full "";
            36 getitimer(which: int, value: out) full "";
            37 alarm(seconds: int) full "";
            38 setitimer(which: int, new: ptr, old: ptr) partial "ITIMER_REAL; the other two count wall-clock time";
            39 getpid() full "";
            40 sendfile(out: fd, in: fd, offset: ptr, count: n) full "";
            41 socket(domain: int, kind: hex, protocol: int) partial "AF_UNIX, AF_INET, AF_INET6 (TCP, UDP, ICMP echo), NETLINK_ROUTE";
            42 connect(fd: fd, addr: ptr, len: int) full "";
            43 accept(fd: fd, addr: ptr, len: ptr) full "";
            44 sendto(fd: fd, buf: in, len: n, flags: hex, addr: ptr, addrlen: int) partial "MSG_OOB answers EOPNOTSUPP";
            45 recvfrom(fd: fd, buf: out, len: n, flags: hex, addr: ptr, addrlen: ptr) partial "no urgent data, no error queue";
            46 sendmsg(fd: fd, msg: ptr, flags: hex) partial "MSG_OOB answers EOPNOTSUPP";
            47 recvmsg(fd: fd, msg: ptr, flags: hex) partial "no urgent data, no error queue";
            48 shutdown(fd: fd, how: int) full "";
            49 bind(fd: fd, addr: ptr, len: int) full "";
            50 listen(fd: fd, backlog: int) full "";
            51 getsockname(fd: fd, addr: ptr, len: ptr) full "";
            52 getpeername(fd: fd, addr: ptr, len: ptr) full "";
            53 socketpair(domain: int, kind: hex, protocol: int, fds: out) full "";
            54 setsockopt(fd: fd, level: int, name: int, value: ptr, len: int) full "";
            55 getsockopt(fd: fd, level: int, name: int, value: ptr, len: ptr) full "";
            56 clone(flags: long, stack: ptr, parent_tid: ptr, child_tid: ptr, tls: ptr) partial "threads only: one image, one process";
            57 fork() refused "one image, one process: there is no fork";
            58 vfork() refused "one image, one process: there is no vfork";
            59 execve(path: path, argv: ptr, envp: ptr) refused "one image, one process: there is no exec";
            60 exit(code: int) full "";
            61 wait4(pid: int, status: ptr, options: hex, usage: ptr) partial "there are never children: ECHILD";
            62 kill(pid: int, sig: int) full "";
            63 uname(buf: out) full "";
            72 fcntl(fd: fd, command: int, arg: long) partial "leases and directory notification answer EINVAL";
            73 flock(fd: fd, operation: hex) full "";
            74 fsync(fd: fd) full "";
            75 fdatasync(fd: fd) full "";
            76 truncate(path: path, len: n) full "";
            77 ftruncate(fd: fd, len: n) full "";
            78 getdents(fd: fd, buf: out, count: int) full "";
            79 getcwd(buf: out, size: n) full "";
            80 chdir(path: path) full "";
            81 fchdir(fd: fd) full "";
            82 rename(old: path, new: path) full "";
            83 mkdir(path: path, mode: oct) full "";
            84 rmdir(path: path) full "";
            85 creat(path: path, mode: oct) full "";
            86 link(old: path, new: path) full "";
            87 unlink(path: path) full "";
            88 symlink(target: path, path: path) full "";
            89 readlink(path: path, buf: out, size: int) full "";
            90 chmod(path: path, mode: oct) full "";
            91 fchmod(fd: fd, mode: oct) full "";
            92 chown(path: path, uid: int, gid: int) full "";
            93 fchown(fd: fd, uid: int, gid: int) full "";
            94 lchown(path: path, uid: int, gid: int) full "";
            95 umask(mask: oct) full "";
            96 gettimeofday(tv: out, tz: out) full "";
            97 getrlimit(resource: int, limit: out) full "";
            98 getrusage(who: int, usage: out) full "";
            99 sysinfo(info: out) full "";
            100 times(buf: out) full "";
            101 ptrace(request: int, pid: int, addr: ptr, data: ptr) refused "there is no other process to trace";
            102 getuid() full "";
            103 syslog(kind: int, buf: out, len: int) absent "";
            104 getgid() full "";
            105 setuid(uid: int) partial "root stays root: only 0 succeeds";
            106 setgid(gid: int) partial "root stays root: only 0 succeeds";
            107 geteuid() full "";
            108 getegid() full "";
            109 setpgid(pid: int, pgid: int) partial "one process group";
            110 getppid() full "";
            111 getpgrp() full "";
            112 setsid() partial "the process leads its session: EPERM";
            113 setreuid(ruid: int, euid: int) partial "only 0 succeeds";
            114 setregid(rgid: int, egid: int) partial "only 0 succeeds";
            115 getgroups(size: int, list: out) full "";
            116 setgroups(size: int, list: ptr) partial "accepted, without effect";
            117 setresuid(ruid: int, euid: int, suid: int) partial "only 0 succeeds";
            118 getresuid(ruid: out, euid: out, suid: out) full "";
            119 setresgid(rgid: int, egid: int, sgid: int) partial "only 0 succeeds";
            120 getresgid(rgid: out, egid: out, sgid: out) full "";
            121 getpgid(pid: int) full "";
            122 setfsuid(uid: int) absent "";
            123 setfsgid(gid: int) absent "";
            124 getsid(pid: int) full "";
            125 capget(header: ptr, data: out) absent "";
            126 capset(header: ptr, data: ptr) absent "";
            127 rt_sigpending(set: out, size: n) full "";
            128 rt_sigtimedwait(set: ptr, info: out, timeout: ptr, size: n) full "";
            129 rt_sigqueueinfo(pid: int, sig: int, info: ptr) full "";
            130 rt_sigsuspend(set: ptr, size: n) full "";
            131 sigaltstack(new: ptr, old: out) full "";
            132 utime(path: path, times: ptr) full "";
            133 mknod(path: path, mode: oct, dev: hex) full "";
            135 personality(persona: hex) partial "PER_LINUX only";
            137 statfs(path: path, buf: out) full "";
            138 fstatfs(fd: fd, buf: out) full "";
            140 getpriority(which: int, who: int) full "";
            141 setpriority(which: int, who: int, prio: int) partial "remembered; all threads get equal time";
            142 sched_setparam(pid: int, param: ptr) partial "accepted for priority 0";
            143 sched_getparam(pid: int, param: out) full "";
            144 sched_setscheduler(pid: int, policy: int, param: ptr) partial "SCHED_OTHER, SCHED_BATCH and SCHED_IDLE; real-time answers EPERM";
            145 sched_getscheduler(pid: int) full "";
            146 sched_get_priority_max(policy: int) full "";
            147 sched_get_priority_min(policy: int) full "";
            148 sched_rr_get_interval(pid: int, interval: out) full "";
            149 mlock(addr: ptr, len: n) partial "memory is never paged out; backs it now";
            150 munlock(addr: ptr, len: n) full "";
            151 mlockall(flags: hex) partial "memory is never paged out";
            152 munlockall() full "";
            157 prctl(option: int, a: long, b: long, c: long, d: long) partial "PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, PR_SET_TIMERSLACK, PR_SET_KEEPCAPS, PR_SET_THP_DISABLE, PR_SET_CHILD_SUBREAPER and their readers";
            158 arch_prctl(code: hex, addr: ptr) partial "ARCH_SET_FS, ARCH_GET_FS; gs belongs to the library OS";
            160 setrlimit(resource: int, limit: ptr) partial "RLIMIT_NOFILE has effect";
            161 chroot(path: path) full "";
            162 sync() full "";
            165 mount(source: path, target: path, kind: ptr, flags: long, data: ptr) partial "answers EPERM: the tree of files is made at start";
            166 umount2(target: path, flags: hex) partial "answers EPERM";
            170 sethostname(name: in, len: int) full "";
            186 gettid() full "";
            187 readahead(fd: fd, offset: n, count: n) full "";
            188 setxattr(path: path, name: path, value: in, size: n, flags: hex) full "";
            189 lsetxattr(path: path, name: path, value: in, size: n, flags: hex) full "";
            190 fsetxattr(fd: fd, name: path, value: in, size: n, flags: hex) full "";
            191 getxattr(path: path, name: path, value: out, size: n) full "";
            192 lgetxattr(path: path, name: path, value: out, size: n) full "";
            193 fgetxattr(fd: fd, name: path, value: out, size: n) full "";
            194 listxattr(path: path, list: out, size: n) full "";
            195 llistxattr(path: path, list: out, size: n) full "";
            196 flistxattr(fd: fd, list: out, size: n) full "";
            197 removexattr(path: path, name: path) full "";
            198 lremovexattr(path: path, name: path) full "";
            199 fremovexattr(fd: fd, name: path) full "";
            200 tkill(tid: int, sig: int) full "";
            201 time(out: out) full "";
            202 futex(addr: ptr, op: hex, val: int, timeout: ptr, addr2: ptr, val3: int) partial "private and shared alike; priority inheritance answers ENOSYS";
            203 sched_setaffinity(pid: int, size: int, mask: ptr) full "";
            204 sched_getaffinity(pid: int, size: int, mask: out) full "";
            213 epoll_create(size: int) full "";
            217 getdents64(fd: fd, buf: out, count: int) full "";
            218 set_tid_address(addr: ptr) full "";
            219 restart_syscall() partial "interrupted calls are restarted by repeating them: EINTR";
            221 fadvise64(fd: fd, offset: n, len: n, advice: int) full "";
            222 timer_create(clock: int, event: ptr, id: out) full "";
            223 timer_settime(id: int, flags: hex, new: ptr, old: out) full "";
            224 timer_gettime(id: int, value: out) full "";
            225 timer_getoverrun(id: int) full "";
            226 timer_delete(id: int) full "";
            227 clock_settime(clock: int, time: ptr) partial "CLOCK_REALTIME";
            228 clock_gettime(clock: int, time: out) full "";
            229 clock_getres(clock: int, res: out) full "";
            230 clock_nanosleep(clock: int, flags: hex, req: ptr, rem: ptr) full "";
            231 exit_group(code: int) full "";
            232 epoll_wait(fd: fd, events: out, max: int, timeout: int) full "";
            233 epoll_ctl(fd: fd, op: int, target: fd, event: ptr) full "";
            234 tgkill(tgid: int, tid: int, sig: int) full "";
            235 utimes(path: path, times: ptr) full "";
            237 mbind(addr: ptr, len: n, mode: n, mask: ptr, maxnode: n, flags: hex) quiet "";
            238 set_mempolicy(mode: n, mask: ptr, maxnode: n) quiet "";
            239 get_mempolicy(mode: out, mask: out, maxnode: n, addr: ptr, flags: long) quiet "";
            247 waitid(which: int, id: int, info: ptr, options: hex, usage: ptr) partial "there are never children: ECHILD";
            251 ioprio_set(which: int, who: int, prio: int) quiet "";
            252 ioprio_get(which: int, who: int) quiet "";
            253 inotify_init() full "";
            254 inotify_add_watch(fd: fd, path: path, mask: hex) full "";
            255 inotify_rm_watch(fd: fd, wd: int) full "";
            257 openat(dir: fd, path: path, flags: hex, mode: oct) full "";
            258 mkdirat(dir: fd, path: path, mode: oct) full "";
            259 mknodat(dir: fd, path: path, mode: oct, dev: hex) full "";
            260 fchownat(dir: fd, path: path, uid: int, gid: int, flags: hex) full "";
            261 futimesat(dir: fd, path: path, times: ptr) full "";
            262 newfstatat(dir: fd, path: path, buf: out, flags: hex) full "";
            263 unlinkat(dir: fd, path: path, flags: hex) full "";
            264 renameat(olddir: fd, old: path, newdir: fd, new: path) full "";
            265 linkat(olddir: fd, old: path, newdir: fd, new: path, flags: hex) full "";
            266 symlinkat(target: path, dir: fd, path: path) full "";
            267 readlinkat(dir: fd, path: path, buf: out, size: int) full "";
            268 fchmodat(dir: fd, path: path, mode: oct) full "";
            269 faccessat(dir: fd, path: path, mode: oct) full "";
            270 pselect6(nfds: int, read: ptr, write: ptr, except: ptr, timeout: ptr, sig: ptr) full "";
            271 ppoll(fds: ptr, nfds: int, timeout: ptr, mask: ptr, size: n) full "";
            272 unshare(flags: long) absent "";
            273 set_robust_list(head: ptr, len: n) full "";
            274 get_robust_list(pid: int, head: out, len: out) full "";
            275 splice(in: fd, in_offset: ptr, out: fd, out_offset: ptr, len: n, flags: hex) partial "answers EINVAL: callers fall back to read and write";
            276 tee(in: fd, out: fd, len: n, flags: hex) partial "answers EINVAL";
            277 sync_file_range(fd: fd, offset: n, len: n, flags: hex) full "";
            278 vmsplice(fd: fd, iov: ptr, count: n, flags: hex) absent "";
            280 utimensat(dir: fd, path: path, times: ptr, flags: hex) full "";
            281 epoll_pwait(fd: fd, events: out, max: int, timeout: int, mask: ptr, size: n) full "";
            282 signalfd(fd: fd, mask: ptr, size: n) full "";
            283 timerfd_create(clock: int, flags: hex) full "";
            284 eventfd(count: int) full "";
            285 fallocate(fd: fd, mode: hex, offset: n, len: n) partial "FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE, as on tmpfs";
            286 timerfd_settime(fd: fd, flags: hex, new: ptr, old: out) full "";
            287 timerfd_gettime(fd: fd, value: out) full "";
            288 accept4(fd: fd, addr: ptr, len: ptr, flags: hex) full "";
            289 signalfd4(fd: fd, mask: ptr, size: n, flags: hex) full "";
            290 eventfd2(count: int, flags: hex) full "";
            291 epoll_create1(flags: hex) full "";
            292 dup3(old: fd, new: fd, flags: hex) full "";
            293 pipe2(fds: out, flags: hex) full "";
            294 inotify_init1(flags: hex) full "";
            295 preadv(fd: fd, iov: ptr, count: n, offset: n, high: n) full "";
            296 pwritev(fd: fd, iov: ptr, count: n, offset: n, high: n) full "";
            297 rt_tgsigqueueinfo(tgid: int, tid: int, sig: int, info: ptr) full "";
            299 recvmmsg(fd: fd, msgs: ptr, count: int, flags: hex, timeout: ptr) full "";
            302 prlimit64(pid: int, resource: int, new: ptr, old: out) partial "RLIMIT_NOFILE has effect";
            303 name_to_handle_at(dir: fd, path: path, handle: ptr, mount: out, flags: hex) partial "answers EOPNOTSUPP: there are no file handles";
            306 syncfs(fd: fd) full "";
            307 sendmmsg(fd: fd, msgs: ptr, count: int, flags: hex) full "";
            309 getcpu(cpu: out, node: out, cache: ptr) full "";
            310 process_vm_readv(pid: int, local: ptr, count: n, remote: ptr, rcount: n, flags: long) absent "";
            311 process_vm_writev(pid: int, local: ptr, count: n, remote: ptr, rcount: n, flags: long) absent "";
            314 sched_setattr(pid: int, attr: ptr, flags: hex) absent "";
            315 sched_getattr(pid: int, attr: out, size: n, flags: hex) absent "";
            316 renameat2(olddir: fd, old: path, newdir: fd, new: path, flags: hex) full "";
            317 seccomp(operation: n, flags: hex, args: ptr) absent "";
            318 getrandom(buf: out, len: n, flags: hex) full "";
            319 memfd_create(name: path, flags: hex) full "";
            321 bpf(command: int, attr: ptr, size: n) absent "";
            322 execveat(dir: fd, path: path, argv: ptr, envp: ptr, flags: hex) refused "one image, one process: there is no exec";
            323 userfaultfd(flags: hex) absent "";
            324 membarrier(command: int, flags: hex, cpu: int) partial "the commands that Rust, C and Go run-times use";
            325 mlock2(addr: ptr, len: n, flags: hex) partial "as mlock";
            326 copy_file_range(in: fd, in_offset: ptr, out: fd, out_offset: ptr, len: n, flags: hex) full "";
            327 preadv2(fd: fd, iov: ptr, count: n, offset: n, high: n, flags: hex) full "";
            328 pwritev2(fd: fd, iov: ptr, count: n, offset: n, high: n, flags: hex) full "";
            332 statx(dir: fd, path: path, flags: hex, mask: hex, buf: out) full "";
            334 rseq(area: ptr, len: n, flags: hex, sig: hex) quiet "";
            424 pidfd_send_signal(fd: fd, sig: int, info: ptr, flags: hex) absent "";
            425 io_uring_setup(entries: n, params: ptr) quiet "";
            426 io_uring_enter(fd: fd, submit: n, complete: n, flags: hex, sig: ptr, size: n) quiet "";
            427 io_uring_register(fd: fd, op: int, arg: ptr, count: n) quiet "";
            434 pidfd_open(pid: int, flags: hex) quiet "";
            435 clone3(args: ptr, size: n) quiet "";
            436 close_range(first: fd, last: fd, flags: hex) full "";
            437 openat2(dir: fd, path: path, how: ptr, size: n) full "";
            439 faccessat2(dir: fd, path: path, mode: oct, flags: hex) full "";
            441 epoll_pwait2(fd: fd, events: out, max: int, timeout: ptr, mask: ptr, size: n) full "";
            448 process_mrelease(fd: fd, flags: hex) absent "";
            449 futex_waitv(waiters: ptr, count: n, flags: hex, timeout: ptr, clock: int) quiet "";
            452 fchmodat2(dir: fd, path: path, mode: oct, flags: hex) full "";
        }
    };
}

macro_rules! kind {
    (fd) => {
        Kind::Fd
    };
    (int) => {
        Kind::Int
    };
    (n) => {
        Kind::Number
    };
    (hex) => {
        Kind::Hex
    };
    (long) => {
        Kind::Long
    };
    (oct) => {
        Kind::Octal
    };
    (path) => {
        Kind::Path
    };
    (in) => {
        Kind::In
    };
    (out) => {
        Kind::Out
    };
    (ptr) => {
        Kind::Pointer
    };
}

macro_rules! state {
    (full) => {
        State::Full
    };
    (partial) => {
        State::Partial
    };
    (quiet) => {
        State::Quiet
    };
    (refused) => {
        State::Refused
    };
    (absent) => {
        State::Absent
    };
}

macro_rules! rows {
    ($($number:literal $name:ident($($arg:ident: $kind:tt),*) $state:ident $note:literal;)*) => {
        /// All rows, in order of number.
        pub static TABLE: &[Syscall] = &[$(
            Syscall { number: $number, name: stringify!($name), args: &[$((stringify!($arg), kind!($kind))),*], state: state!($state), note: $note },
        )*];
    };
}

for_each_syscall!(rows);

/// The row of a number.
pub fn find(number: u64) -> Option<&'static Syscall> {
    let number = u32::try_from(number).ok()?;
    TABLE
        .binary_search_by_key(&number, |row| row.number)
        .ok()
        .map(|at| &TABLE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_found() {
        assert!(TABLE.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert_eq!(find(231).map(|row| row.name), Some("exit_group"));
        assert!(find(29).is_none() && find(1 << 40).is_none());
        assert!(TABLE.iter().all(|row| row.args.len() <= 6));
    }
}
