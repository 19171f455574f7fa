//! Pipes, eventfd, timerfd, signalfd, epoll, poll, select: all that needs no second thread.

use crate::show::{c, close, close_all, open, outcome, show};
use std::mem::zeroed;
use std::ptr::{null, null_mut};

fn state(what: &str, fd: i32, events: i16) {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one entry.
    let count = unsafe { libc::poll(&raw mut entry, 1, 0) };
    println!("poll {what}: {count} {:x}", entry.revents);
}

const ALL: i16 = libc::POLLIN
    | libc::POLLOUT
    | libc::POLLPRI
    | libc::POLLRDNORM
    | libc::POLLWRNORM
    | libc::POLLRDHUP;

fn pipes() {
    let mut pipe = [0; 2];
    let data = vec![7u8; 70_000];
    let mut buffer = vec![0u8; 70_000];
    // SAFETY: buffers are as long as said.
    unsafe {
        show("pipe2", libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK));
        show("pipe2 flags", libc::pipe2(pipe.as_mut_ptr(), 1));
        show(
            "read empty",
            libc::read(pipe[0], buffer.as_mut_ptr().cast(), 10) as i64,
        );
        state("empty reader", pipe[0], ALL);
        state("empty writer", pipe[1], ALL);
        show(
            "fill",
            libc::write(pipe[1], data.as_ptr().cast(), 70_000) as i64,
        );
        show(
            "write full",
            libc::write(pipe[1], data.as_ptr().cast(), 1) as i64,
        );
        state("full reader", pipe[0], ALL);
        state("full writer", pipe[1], ALL);
        show(
            "read",
            libc::read(pipe[0], buffer.as_mut_ptr().cast(), 4096) as i64,
        );
        state("writer with a page", pipe[1], ALL);
        show(
            "small write",
            libc::write(pipe[1], data.as_ptr().cast(), 4096) as i64,
        );
        show(
            "drain",
            libc::read(pipe[0], buffer.as_mut_ptr().cast(), 70_000) as i64,
        );
        show(
            "read write end",
            libc::read(pipe[1], buffer.as_mut_ptr().cast(), 1) as i64,
        );
        show(
            "pread",
            libc::pread(pipe[0], buffer.as_mut_ptr().cast(), 1, 0) as i64,
        );
        show("lseek", libc::lseek(pipe[0], 0, libc::SEEK_SET));
        close(pipe[1]);
        state("reader without writer", pipe[0], ALL);
        show(
            "read the end",
            libc::read(pipe[0], buffer.as_mut_ptr().cast(), 1) as i64,
        );
        close(pipe[0]);
        libc::pipe(pipe.as_mut_ptr());
        close(pipe[0]);
        state("writer without reader", pipe[1], ALL);
        show(
            "write without reader",
            libc::write(pipe[1], data.as_ptr().cast(), 1) as i64,
        );
        close(pipe[1]);
        show(
            "FIFO without reader",
            open("fifo", libc::O_WRONLY | libc::O_NONBLOCK),
        );
        let reader = outcome(
            "FIFO reader",
            open("fifo", libc::O_RDONLY | libc::O_NONBLOCK),
        );
        state("FIFO before a writer", reader, ALL);
        show(
            "FIFO read",
            libc::read(reader, buffer.as_mut_ptr().cast(), 1) as i64,
        );
        let writer = outcome(
            "FIFO writer",
            open("fifo", libc::O_WRONLY | libc::O_NONBLOCK),
        );
        show(
            "FIFO read empty",
            libc::read(reader, buffer.as_mut_ptr().cast(), 1) as i64,
        );
        show(
            "FIFO write",
            libc::write(writer, data.as_ptr().cast(), 5) as i64,
        );
        close(writer);
        show(
            "FIFO read rest",
            libc::read(reader, buffer.as_mut_ptr().cast(), 10) as i64,
        );
        state("FIFO after a writer", reader, ALL);
        close(reader);
    }
}

fn counters() {
    let mut value = 0u64;
    // SAFETY: eight bytes each.
    unsafe {
        let fd = libc::eventfd(5, libc::EFD_NONBLOCK);
        state("eventfd", fd, ALL);
        let add = 10u64;
        show("write", libc::write(fd, (&raw const add).cast(), 8) as i64);
        show("read", libc::read(fd, (&raw mut value).cast(), 8) as i64);
        println!("{value}");
        show(
            "read zero",
            libc::read(fd, (&raw mut value).cast(), 8) as i64,
        );
        show(
            "read short",
            libc::read(fd, (&raw mut value).cast(), 4) as i64,
        );
        let all = u64::MAX;
        show(
            "write all ones",
            libc::write(fd, (&raw const all).cast(), 8) as i64,
        );
        let most = u64::MAX - 1;
        show(
            "write most",
            libc::write(fd, (&raw const most).cast(), 8) as i64,
        );
        state("full eventfd", fd, ALL);
        show(
            "write more",
            libc::write(fd, (&raw const add).cast(), 8) as i64,
        );
        let semaphore = libc::eventfd(2, libc::EFD_SEMAPHORE);
        show(
            "semaphore",
            libc::read(semaphore, (&raw mut value).cast(), 8) as i64,
        );
        println!("{value}");
        show("eventfd flags", libc::eventfd(0, 7));
        close(fd);
        close(semaphore);
    }
}

fn timers() {
    let at = |ns: i64| libc::timespec {
        tv_sec: ns / 1_000_000_000,
        tv_nsec: ns % 1_000_000_000,
    };
    // SAFETY: structures that live as long as the calls.
    unsafe {
        let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK);
        let mut value = 0u64;
        show("unarmed", libc::read(fd, (&raw mut value).cast(), 8) as i64);
        let setting = libc::itimerspec {
            it_interval: at(0),
            // Long enough that a busy machine is too early too.
            it_value: at(400_000_000),
        };
        show(
            "settime",
            libc::timerfd_settime(fd, 0, &setting, null_mut()),
        );
        show(
            "too early",
            libc::read(fd, (&raw mut value).cast(), 8) as i64,
        );
        let mut entry = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        show("poll", libc::poll(&raw mut entry, 1, 5000));
        show("read", libc::read(fd, (&raw mut value).cast(), 8) as i64);
        println!("{value}");
        let periodic = libc::itimerspec {
            it_interval: at(5_000_000),
            it_value: at(1_000_000),
        };
        show(
            "periodic",
            libc::timerfd_settime(fd, 0, &periodic, null_mut()),
        );
        std::thread::sleep(std::time::Duration::from_millis(40));
        show("read", libc::read(fd, (&raw mut value).cast(), 8) as i64);
        println!("several {}", value >= 7);
        let mut left: libc::itimerspec = zeroed();
        show("gettime", libc::timerfd_gettime(fd, &mut left));
        println!(
            "interval {} left {}",
            left.it_interval.tv_nsec,
            left.it_value.tv_nsec <= 5_000_000
        );
        let past = libc::itimerspec {
            it_interval: at(0),
            it_value: at(1),
        };
        show(
            "absolute past",
            libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &past, null_mut()),
        );
        show("read", libc::read(fd, (&raw mut value).cast(), 8) as i64);
        show(
            "settime of a file",
            libc::timerfd_settime(0, 0, &past, null_mut()),
        );
        show("clock", libc::timerfd_create(77, 0));
        show("flags", libc::timerfd_create(0, 1));
        close(fd);
    }
}

fn signals() {
    // SAFETY: structures that live as long as the calls; the signal is blocked, so it only becomes pending.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, null_mut());
        let fd = outcome("signalfd", libc::signalfd(-1, &set, libc::SFD_NONBLOCK));
        let mut info: libc::signalfd_siginfo = zeroed();
        show("none", libc::read(fd, (&raw mut info).cast(), 128) as i64);
        libc::kill(libc::getpid(), libc::SIGUSR1);
        state("signalfd", fd, ALL);
        show("short", libc::read(fd, (&raw mut info).cast(), 100) as i64);
        show("read", libc::read(fd, (&raw mut info).cast(), 128) as i64);
        println!(
            "signal {} code {} own pid {}",
            info.ssi_signo,
            info.ssi_code,
            info.ssi_pid == libc::getpid() as u32
        );
        show("again", libc::read(fd, (&raw mut info).cast(), 128) as i64);
        show("bad descriptor", libc::signalfd(0, &set, 0));
        close(fd);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut());
    }
}

fn collected(epoll: i32, what: &str) {
    // SAFETY: room for eight events.
    unsafe {
        let mut events: [libc::epoll_event; 8] = zeroed();
        let count = libc::epoll_wait(epoll, events.as_mut_ptr(), 8, 0);
        let seen: Vec<(u32, u64)> = events
            .iter()
            .take(count.max(0) as usize)
            .map(|event| (event.events, event.u64))
            .collect();
        println!("epoll {what}: {count} {seen:x?}");
    }
}

fn epolls() {
    let control = |what: &str, epoll, operation, fd, events: u32, data| {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: the event lives as long as the call.
        show(what, unsafe {
            libc::epoll_ctl(epoll, operation, fd, &raw mut event)
        });
    };
    let (add, change, remove) = (
        libc::EPOLL_CTL_ADD,
        libc::EPOLL_CTL_MOD,
        libc::EPOLL_CTL_DEL,
    );
    let (input, edge, once) = (
        libc::EPOLLIN as u32,
        libc::EPOLLET as u32,
        libc::EPOLLONESHOT as u32,
    );
    // SAFETY: buffers are as long as said.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut pipe = [0; 2];
        libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK);
        let mut buffer = [0u8; 16];
        control("add", epoll, add, pipe[0], input, 1);
        control("add again", epoll, add, pipe[0], input, 1);
        control(
            "add file",
            epoll,
            add,
            open("file", libc::O_RDONLY),
            input,
            1,
        );
        control("add itself", epoll, add, epoll, input, 1);
        control("add bad", epoll, add, 99, input, 1);
        control("modify missing", epoll, change, pipe[1], input, 1);
        control("operation", epoll, 9, pipe[0], input, 1);
        control("not an epoll", pipe[0], add, pipe[1], input, 1);
        collected(epoll, "idle");
        libc::write(pipe[1], b"ab".as_ptr().cast(), 2);
        collected(epoll, "level");
        collected(epoll, "level again");
        control("edge", epoll, change, pipe[0], input | edge, 2);
        collected(epoll, "edge");
        collected(epoll, "edge again");
        libc::write(pipe[1], b"c".as_ptr().cast(), 1);
        collected(epoll, "new edge");
        control("one shot", epoll, change, pipe[0], input | once, 3);
        collected(epoll, "one shot");
        libc::write(pipe[1], b"d".as_ptr().cast(), 1);
        collected(epoll, "spent");
        control("rearm", epoll, change, pipe[0], input, 4);
        collected(epoll, "rearmed");
        libc::read(pipe[0], buffer.as_mut_ptr().cast(), 16);
        collected(epoll, "drained");
        control("both ends", epoll, add, pipe[1], libc::EPOLLOUT as u32, 5);
        collected(epoll, "writer");
        state("epoll itself", epoll, ALL);
        let outer = libc::epoll_create1(0);
        control("nest", outer, add, epoll, input, 6);
        collected(outer, "outer");
        control("circle", epoll, add, outer, input, 7);
        close(pipe[1]);
        collected(epoll, "hung up");
        control("remove", epoll, remove, pipe[0], 0, 0);
        control("remove again", epoll, remove, pipe[0], 0, 0);
        collected(epoll, "empty");
        let mut event: libc::epoll_event = zeroed();
        show("no room", libc::epoll_wait(epoll, &raw mut event, 0, 0));
        show("timeout", libc::epoll_wait(epoll, &raw mut event, 1, 10));
        show("flags", libc::epoll_create1(1));
        show("size", libc::epoll_create(0));
        let exclusive = libc::EPOLLEXCLUSIVE as u32;
        control("exclusive", epoll, add, pipe[0], input | exclusive, 8);
        control("exclusive modify", epoll, change, pipe[0], input, 8);
        control(
            "exclusive one shot",
            outer,
            add,
            pipe[0],
            input | exclusive | once,
            8,
        );
        close_all(&[epoll, outer, pipe[0]]);
    }
}

fn selects() {
    // SAFETY: structures that live as long as the calls.
    unsafe {
        let mut pipe = [0; 2];
        libc::pipe(pipe.as_mut_ptr());
        let (mut read, mut write): (libc::fd_set, libc::fd_set) = (zeroed(), zeroed());
        libc::FD_SET(pipe[0], &mut read);
        libc::FD_SET(pipe[1], &mut write);
        let mut zero: libc::timeval = zeroed();
        show(
            "select",
            libc::select(pipe[1] + 1, &mut read, &mut write, null_mut(), &mut zero),
        );
        println!(
            "{} {}",
            libc::FD_ISSET(pipe[0], &read),
            libc::FD_ISSET(pipe[1], &write)
        );
        libc::FD_SET(pipe[0], &mut read);
        let mut short = libc::timeval {
            tv_sec: 0,
            tv_usec: 10_000,
        };
        show(
            "select timeout",
            libc::select(pipe[1] + 1, &mut read, null_mut(), null_mut(), &mut short),
        );
        println!("left {} {}", short.tv_sec, short.tv_usec);
        // Linux overlooks numbers beyond its table, which has 64 places at least.
        libc::FD_SET(63, &mut read);
        show(
            "select bad",
            libc::select(64, &mut read, null_mut(), null_mut(), &mut zero),
        );
        show(
            "select negative",
            libc::select(-1, null_mut(), null_mut(), null_mut(), &mut zero),
        );
        let nothing = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        show(
            "pselect",
            libc::pselect(0, null_mut(), null_mut(), null_mut(), &nothing, null()),
        );
        let mut entries = [
            libc::pollfd {
                fd: -1,
                events: ALL,
                revents: 9,
            },
            libc::pollfd {
                fd: 99,
                events: 0,
                revents: 0,
            },
        ];
        show("poll", libc::poll(entries.as_mut_ptr(), 2, 0));
        println!("{:x} {:x}", entries[0].revents, entries[1].revents);
        show("poll nothing", libc::poll(null_mut(), 0, 1));
        show(
            "poll too many",
            libc::poll(entries.as_mut_ptr(), 1 << 22, 0),
        );
        show(
            "ppoll",
            libc::ppoll(entries.as_mut_ptr(), 1, &nothing, null()),
        );
        let file = open("file", libc::O_RDONLY);
        state("file", file, ALL);
        state("/dev/null", open("/dev/null", libc::O_RDWR), ALL);
        state("directory", open(".", libc::O_RDONLY), ALL);
        show("open path", libc::access(c("file").as_ptr(), 0));
        close_all(&pipe);
    }
}

/// All of it.
pub fn run() {
    pipes();
    counters();
    timers();
    signals();
    epolls();
    selects();
}
