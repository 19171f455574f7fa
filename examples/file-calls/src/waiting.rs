//! Calls that wait for another thread: pipes, FIFOs, locks, poll and epoll, and signals that interrupt them.

use crate::show::{close, close_all, open, put, show};
use std::mem::zeroed;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::null_mut;
use std::thread;
use std::time::Duration;

fn soon() {
    thread::sleep(Duration::from_millis(20));
}

fn new_pipe() -> [i32; 2] {
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(pipe.as_mut_ptr()) };
    pipe
}

fn pipes() {
    let pipe = new_pipe();
    let writer = thread::spawn(move || {
        soon();
        let data: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        // SAFETY: the buffer is as long as said.
        show(
            "large write",
            unsafe { libc::write(pipe[1], data.as_ptr().cast(), data.len()) } as i64,
        );
        close(pipe[1]);
    });
    let (mut total, mut sum, mut buffer) = (0, 0u64, vec![0u8; 10_000]);
    loop {
        // SAFETY: the buffer is as long as said.
        let n = unsafe { libc::read(pipe[0], buffer.as_mut_ptr().cast(), buffer.len()) };
        if n <= 0 {
            break;
        }
        total += n;
        sum += buffer[..n as usize]
            .iter()
            .map(|&b| u64::from(b))
            .sum::<u64>();
    }
    writer.join().expect("no panic");
    println!("read {total} sum {sum}");
    close(pipe[0]);
    let pipe = new_pipe();
    let closer = thread::spawn(move || {
        soon();
        close(pipe[0]);
    });
    let data = vec![0u8; 100_000];
    // SAFETY: the buffer is as long as said.
    let n = unsafe { libc::write(pipe[1], data.as_ptr().cast(), data.len()) };
    println!("reader left while writing: {}", n == 65536 || n == -1);
    closer.join().expect("no panic");
    close(pipe[1]);
}

fn fifos() {
    let reader = thread::spawn(|| open("fifo", libc::O_RDONLY));
    soon();
    let writer = open("fifo", libc::O_WRONLY);
    let reader = reader.join().expect("no panic");
    println!("both opened: {}", writer >= 0 && reader >= 0);
    close_all(&[writer, reader]);
}

fn locks() {
    put("waitlock", b"");
    let (a, b) = (
        open("waitlock", libc::O_RDWR),
        open("waitlock", libc::O_RDWR),
    );
    // SAFETY: plain calls on descriptors.
    unsafe { libc::flock(a, libc::LOCK_EX) };
    let waiter = thread::spawn(move || {
        // SAFETY: as above.
        show("flock after waiting", unsafe {
            libc::flock(b, libc::LOCK_EX)
        });
    });
    soon();
    println!("unlocking");
    // SAFETY: as above.
    unsafe { libc::flock(a, libc::LOCK_UN) };
    waiter.join().expect("no panic");
    close_all(&[a, b]);
}

fn polls() {
    let pipe = new_pipe();
    let poker = thread::spawn(move || {
        soon();
        // SAFETY: one byte.
        unsafe { libc::write(pipe[1], b"x".as_ptr().cast(), 1) };
    });
    let mut entry = libc::pollfd {
        fd: pipe[0],
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry.
    show("poll woken", unsafe {
        libc::poll(&raw mut entry, 1, 10_000)
    });
    poker.join().expect("no panic");
    // SAFETY: structures that live as long as the calls.
    unsafe {
        let epoll = libc::epoll_create1(0);
        let event = libc::eventfd(0, 0);
        let mut interest = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: 42,
        };
        libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, event, &raw mut interest);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn(move || {
                    let mut found: libc::epoll_event = zeroed();
                    let count = libc::epoll_wait(epoll, &raw mut found, 1, 300);
                    (count, if count == 1 { found.u64 } else { 0 })
                })
            })
            .collect();
        soon();
        let one = 1u64;
        libc::write(event, (&raw const one).cast(), 8);
        let mut results: Vec<_> = waiters
            .into_iter()
            .map(|waiter| waiter.join().expect("no panic"))
            .collect();
        results.sort_unstable();
        println!("one edge, three waiters: {results:?}");
        let mut value = 0u64;
        libc::read(event, (&raw mut value).cast(), 8);
        let reader = thread::spawn(move || {
            let n = libc::read(event, (&raw mut value).cast(), 8);
            (n, value)
        });
        soon();
        libc::write(event, (&raw const one).cast(), 8);
        println!("eventfd waited: {:?}", reader.join().expect("no panic"));
        close_all(&[epoll, event]);
    }
    close_all(&pipe);
}

extern "C" fn nothing(_signal: i32) {}

fn interruptions() {
    // SAFETY: a handler that does nothing, installed without SA_RESTART; structures that live as long as the calls.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &action, null_mut());
        let pipe = new_pipe();
        for (what, kind) in [
            ("read", 0),
            ("poll", 1),
            ("epoll_wait", 2),
            ("select", 3),
            ("restarted read", 4),
        ] {
            if kind == 4 {
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGUSR2, &action, null_mut());
            }
            let sleeper = thread::spawn(move || {
                let mut byte = 0u8;
                let mut entry = libc::pollfd {
                    fd: pipe[0],
                    events: libc::POLLIN,
                    revents: 0,
                };
                match kind {
                    0 | 4 => show(what, libc::read(pipe[0], (&raw mut byte).cast(), 1) as i64),
                    1 => show(what, libc::poll(&raw mut entry, 1, 10_000)),
                    2 => {
                        let mut event: libc::epoll_event = zeroed();
                        show(
                            what,
                            libc::epoll_wait(libc::epoll_create1(0), &raw mut event, 1, 10_000),
                        )
                    }
                    _ => {
                        let mut long = libc::timeval {
                            tv_sec: 10,
                            tv_usec: 0,
                        };
                        show(
                            what,
                            libc::select(0, null_mut(), null_mut(), null_mut(), &mut long),
                        )
                    }
                };
            });
            // Again and again: on a busy machine the first signal may come before the call.
            for turn in 0.. {
                soon();
                if sleeper.is_finished() {
                    break;
                }
                libc::pthread_kill(sleeper.as_pthread_t(), libc::SIGUSR2);
                if kind == 4 && turn == 5 {
                    libc::write(pipe[1], b"x".as_ptr().cast(), 1);
                }
            }
            sleeper.join().expect("no panic");
        }
        let mut blocked: libc::sigset_t = zeroed();
        libc::sigaddset(&mut blocked, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, null_mut());
        libc::raise(libc::SIGUSR2);
        let (open_mask, wait): (libc::sigset_t, libc::timespec) = (
            zeroed(),
            libc::timespec {
                tv_sec: 5,
                tv_nsec: 0,
            },
        );
        show(
            "ppoll opens the mask",
            libc::ppoll(null_mut(), 0, &wait, &open_mask),
        );
        let mut now: libc::sigset_t = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, null_mut(), &mut now);
        println!("blocked again: {}", libc::sigismember(&now, libc::SIGUSR2));
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &blocked, null_mut());
        close_all(&pipe);
    }
}

/// All of it.
pub fn run() {
    pipes();
    fifos();
    locks();
    polls();
    interruptions();
}
