//! Pipes, FIFOs, event files, epoll, the console and the descriptor table.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use common::*;
use unik_fs::console::{Console, ConsoleDevice};
use unik_fs::epoll::{self, Epoll, Event};
use unik_fs::eventfd::EventFd;
use unik_fs::file::{FileLike, OpenFile};
use unik_fs::linux_raw_sys::{general as linux, ioctl};
use unik_fs::pipe::{PipeEnd, pipe};
use unik_fs::signalfd::{RECORD, SignalFd, SignalSource};
use unik_fs::system::UserMemory;
use unik_fs::timerfd::{Alarm, Setting, TimerFd};
use unik_fs::vfs::AT_FDCWD;
use unik_fs::wait::{Listener, WaitQueue, ready};
use unik_fs::{Errno, Result};

fn machine() -> Rc<dyn unik_fs::system::System> {
    Rc::new(Machine::default())
}

#[derive(Default)]
struct Count(Cell<u32>);

impl Listener for Count {
    fn notify(&self, mask: u32) {
        let _ = mask;
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_pipe_carries_bytes_in_order_and_knows_its_ends() {
    let (read, write) = pipe(&machine(), 0);
    assert_eq!(read.read(&mut [0; 4]), Err(Errno::EAGAIN));
    assert_eq!(
        (read.object().poll(), write.object().poll()),
        (0, ready::OUT | ready::WRNORM)
    );
    let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    assert_eq!(write.write(&data), Ok(65536));
    assert_eq!(write.write(b"x"), Err(Errno::EAGAIN));
    assert_eq!(write.object().poll(), 0);
    let mut out = vec![0; 60_000];
    assert_eq!(read.read(&mut out), Ok(60_000));
    assert_eq!(write.write(&data[65536..]), Ok(100_000 - 65536));
    let mut rest = vec![0; 100_000];
    let n = read.read(&mut rest).unwrap();
    out.extend_from_slice(&rest[..n]);
    assert_eq!(out, data);
    drop(write);
    assert_eq!(
        (read.read(&mut rest), read.object().poll()),
        (Ok(0), ready::HUP)
    );
    let (read, write) = pipe(&machine(), 0);
    drop(read);
    assert_eq!(
        (write.write(b"x"), write.object().poll()),
        (Err(Errno::EPIPE), ready::OUT | ready::WRNORM | ready::ERR)
    );
}

#[test]
fn small_pipe_writes_are_never_torn() {
    let (read, write) = pipe(&machine(), 0);
    assert_eq!(write.write(&vec![1; 65536 - 100]), Ok(65436));
    assert_eq!(write.write(&[2; 200]), Err(Errno::EAGAIN));
    assert_eq!(write.write(&[2; 5000]), Ok(100));
    let end = write.downcast::<PipeEnd>().unwrap();
    assert_eq!(end.set_capacity(4096), Err(Errno::EBUSY));
    assert_eq!(end.set_capacity(100_000), Ok(131_072));
    assert_eq!(write.write(&[2; 200]), Ok(200));
    assert_eq!(read.downcast::<PipeEnd>().unwrap().available(), 65736);
    assert_eq!(read.write(b"x"), Err(Errno::EBADF));
    assert_eq!(write.read(&mut [0]), Err(Errno::EBADF));
    assert_eq!(read.read_at(0, &mut [0]), Err(Errno::ESPIPE));
    assert_eq!(read.seek(0, 0), Err(Errno::ESPIPE));
}

#[test]
fn a_fifo_waits_for_its_other_side() {
    let vfs = vfs();
    vfs.mknod(AT_FDCWD, b"/tmp/fifo", linux::S_IFIFO | 0o600, 0)
        .unwrap();
    assert_eq!(
        open(&vfs, "/tmp/fifo", linux::O_WRONLY | linux::O_NONBLOCK),
        Err(Errno::ENXIO)
    );
    let reader = open(&vfs, "/tmp/fifo", linux::O_RDONLY).unwrap();
    let reader = vfs.fds.get(reader).unwrap();
    assert!(reader.object().open_pending());
    let writer = open(&vfs, "/tmp/fifo", linux::O_WRONLY).unwrap();
    assert!(!reader.object().open_pending());
    assert!(!vfs.fds.get(writer).unwrap().object().open_pending());
    vfs.fds.get(writer).unwrap().write(b"through").unwrap();
    vfs.fds.close(writer).unwrap();
    let mut out = [0; 10];
    assert_eq!(reader.read(&mut out), Ok(7));
    assert_eq!(reader.read(&mut out), Ok(0));
    assert_eq!(
        reader.metadata().ino,
        vfs.stat(AT_FDCWD, b"/tmp/fifo", 0).unwrap().ino
    );
}

#[test]
fn eventfd_counts() {
    let event = EventFd::new(3, false);
    let mut out = [0; 8];
    assert_eq!(event.read(0, &mut [0; 4]), Err(Errno::EINVAL));
    event.write(0, &5u64.to_ne_bytes()).unwrap();
    assert_eq!(event.read(0, &mut out), Ok(8));
    assert_eq!(u64::from_ne_bytes(out), 8);
    assert_eq!(
        (event.read(0, &mut out), event.poll()),
        (Err(Errno::EAGAIN), ready::OUT)
    );
    assert_eq!(event.write(0, &u64::MAX.to_ne_bytes()), Err(Errno::EINVAL));
    event.write(0, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert_eq!(
        (event.write(0, &1u64.to_ne_bytes()), event.poll()),
        (Err(Errno::EAGAIN), ready::IN)
    );
    let semaphore = EventFd::new(2, true);
    semaphore.read(0, &mut out).unwrap();
    assert_eq!(
        (u64::from_ne_bytes(out), semaphore.poll() & ready::IN),
        (1, ready::IN)
    );
}

#[derive(Default)]
struct Clock {
    now: Cell<u64>,
    armed: Cell<Option<u64>>,
}

impl Alarm for Clock {
    fn now(&self, _clock: u32) -> u64 {
        self.now.get()
    }

    fn arm(&self, _timer: &Weak<TimerFd>, _clock: u32, at: Option<u64>) {
        self.armed.set(at);
    }
}

#[test]
fn timerfd_counts_expirations() {
    let clock = Rc::new(Clock::default());
    clock.now.set(1000);
    let timer = TimerFd::new(1, clock.clone());
    let mut out = [0; 8];
    assert_eq!(
        timer.set(
            Setting {
                interval: 10,
                value: 100
            },
            false
        ),
        Setting::default()
    );
    assert_eq!(
        (clock.armed.get(), timer.poll(), timer.read(0, &mut out)),
        (Some(1100), 0, Err(Errno::EAGAIN))
    );
    clock.now.set(1135);
    timer.tick();
    assert_eq!(
        (clock.armed.get(), timer.poll() & ready::IN),
        (Some(1140), ready::IN)
    );
    assert_eq!(timer.read(0, &mut out), Ok(8));
    assert_eq!(u64::from_ne_bytes(out), 4);
    assert_eq!(
        timer.get(),
        Setting {
            interval: 10,
            value: 5
        }
    );
    assert_eq!(
        timer.set(
            Setting {
                interval: 0,
                value: 500
            },
            true
        ),
        Setting {
            interval: 10,
            value: 5
        }
    );
    assert_eq!(
        timer.read(0, &mut out),
        Ok(8),
        "an absolute time in the past expires at once"
    );
    assert_eq!(
        (u64::from_ne_bytes(out), timer.get()),
        (1, Setting::default())
    );
    timer.set(
        Setting {
            interval: 0,
            value: 50,
        },
        false,
    );
    drop(timer);
    assert_eq!(clock.armed.get(), None);
}

#[derive(Default)]
struct Signals {
    pending: Cell<u64>,
    queue: WaitQueue,
}

impl SignalSource for Signals {
    fn take(&self, mask: u64) -> Option<[u8; RECORD]> {
        let bit = (self.pending.get() & mask).trailing_zeros();
        (bit < 64).then(|| {
            self.pending.set(self.pending.get() & !(1 << bit));
            let mut record = [0; RECORD];
            record[0] = bit as u8 + 1;
            record
        })
    }

    fn pending(&self) -> u64 {
        self.pending.get()
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

#[test]
fn signalfd_takes_only_its_signals() {
    let signals = Rc::new(Signals::default());
    let fd = SignalFd::new(0b110, signals.clone());
    signals.pending.set(0b1111);
    assert_eq!(fd.poll() & ready::IN, ready::IN);
    let mut out = [0; 3 * RECORD];
    assert_eq!(fd.read(0, &mut out), Ok(2 * RECORD));
    assert_eq!((out[0], out[RECORD], signals.pending.get()), (2, 3, 0b1001));
    assert_eq!(fd.read(0, &mut out), Err(Errno::EAGAIN));
    fd.set_mask(0b1000);
    assert_eq!(fd.read(0, &mut out), Ok(RECORD));
}

fn event(events: u32, data: u64) -> Event {
    Event { events, data }
}

#[test]
fn epoll_reports_levels_edges_and_single_shots() {
    let (read, write) = pipe(&machine(), 0);
    let epoll = Epoll::new();
    epoll
        .control(linux::EPOLL_CTL_ADD, 3, &read, event(ready::IN, 7))
        .unwrap();
    assert_eq!(
        epoll.control(linux::EPOLL_CTL_ADD, 3, &read, event(ready::IN, 7)),
        Err(Errno::EEXIST)
    );
    assert!(epoll.collect(8).is_empty());
    write.write(b"ab").unwrap();
    assert_eq!(epoll.poll() & ready::IN, ready::IN);
    for _ in 0..3 {
        assert_eq!(epoll.collect(8), [event(ready::IN, 7)]);
    }
    read.read(&mut [0; 8]).unwrap();
    assert!(epoll.collect(8).is_empty());
    epoll
        .control(
            linux::EPOLL_CTL_MOD,
            3,
            &read,
            event(ready::IN | epoll::ET, 8),
        )
        .unwrap();
    write.write(b"a").unwrap();
    assert_eq!(epoll.collect(8), [event(ready::IN, 8)]);
    assert!(epoll.collect(8).is_empty());
    write.write(b"a").unwrap();
    assert_eq!(epoll.collect(8), [event(ready::IN, 8)]);
    epoll
        .control(
            linux::EPOLL_CTL_MOD,
            3,
            &read,
            event(ready::IN | epoll::ONESHOT, 9),
        )
        .unwrap();
    assert_eq!(epoll.collect(8), [event(ready::IN, 9)]);
    write.write(b"a").unwrap();
    assert!(epoll.collect(8).is_empty());
    epoll
        .control(linux::EPOLL_CTL_MOD, 3, &read, event(ready::IN, 10))
        .unwrap();
    drop(write);
    assert_eq!(epoll.collect(8), [event(ready::IN | ready::HUP, 10)]);
    epoll
        .control(linux::EPOLL_CTL_DEL, 3, &read, event(0, 0))
        .unwrap();
    assert_eq!(
        epoll.control(linux::EPOLL_CTL_DEL, 3, &read, event(0, 0)),
        Err(Errno::ENOENT)
    );
    assert!(epoll.collect(8).is_empty());
}

#[test]
fn epoll_takes_turns_and_forgets_closed_files() {
    let epoll = Epoll::new();
    let files: Vec<_> = (0..4)
        .map(|_| OpenFile::new(EventFd::new(1, false), linux::O_RDWR))
        .collect();
    for (n, file) in files.iter().enumerate() {
        epoll
            .control(
                linux::EPOLL_CTL_ADD,
                n as i32,
                file,
                event(ready::IN, n as u64),
            )
            .unwrap();
    }
    let order: Vec<u64> = (0..4)
        .flat_map(|_| epoll.collect(2))
        .map(|event| event.data)
        .collect();
    assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    drop(files);
    assert!(epoll.collect(8).is_empty());
    let vfs = vfs();
    let file = vfs
        .fds
        .get(open(&vfs, "/etc/hostname", 0).unwrap())
        .unwrap();
    assert_eq!(
        epoll.control(linux::EPOLL_CTL_ADD, 3, &file, event(ready::IN, 0)),
        Err(Errno::EPERM)
    );
}

#[test]
fn epolls_can_be_nested_but_not_in_circles() {
    let (read, write) = pipe(&machine(), 0);
    let (inner, outer) = (Epoll::new(), Epoll::new());
    let (inner_file, outer_file) = (
        OpenFile::new(inner.clone(), 0),
        OpenFile::new(outer.clone(), 0),
    );
    inner
        .control(linux::EPOLL_CTL_ADD, 0, &read, event(ready::IN, 1))
        .unwrap();
    outer
        .control(linux::EPOLL_CTL_ADD, 1, &inner_file, event(ready::IN, 2))
        .unwrap();
    assert_eq!(
        inner.control(linux::EPOLL_CTL_ADD, 2, &outer_file, event(ready::IN, 3)),
        Err(Errno::ELOOP)
    );
    assert_eq!(
        inner.control(linux::EPOLL_CTL_ADD, 2, &inner_file, event(ready::IN, 3)),
        Err(Errno::EINVAL)
    );
    let count: Rc<Count> = Rc::default();
    let listener: Rc<dyn Listener> = count.clone();
    outer.wait_queue().unwrap().add(&listener, ready::IN);
    assert!(outer.collect(8).is_empty());
    write.write(b"x").unwrap();
    assert_eq!(count.0.get(), 1);
    assert_eq!(outer.collect(8), [event(ready::IN, 2)]);
    let mut chain = vec![outer_file];
    let result = (0..6).try_for_each(|n| {
        let next = Epoll::new();
        next.control(
            linux::EPOLL_CTL_ADD,
            n,
            &chain[chain.len() - 1],
            event(ready::IN, 0),
        )?;
        chain.push(OpenFile::new(next, 0));
        Ok(())
    });
    assert_eq!(result, Err(Errno::ELOOP));
}

#[test]
fn exclusive_waiters_are_woken_one_by_one() {
    let file = OpenFile::new(EventFd::new(0, false), linux::O_RDWR);
    let epolls: Vec<_> = (0..3).map(|_| Epoll::new()).collect();
    for epoll in &epolls {
        epoll
            .control(
                linux::EPOLL_CTL_ADD,
                0,
                &file,
                event(ready::IN | epoll::EXCLUSIVE, 0),
            )
            .unwrap();
        assert_eq!(
            epoll.control(linux::EPOLL_CTL_MOD, 0, &file, event(ready::IN, 0)),
            Err(Errno::EINVAL)
        );
    }
    for turn in 0..3 {
        file.write(&1u64.to_ne_bytes()).unwrap();
        let woken: Vec<bool> = epolls
            .iter()
            .map(|epoll| !epoll.collect(1).is_empty())
            .collect();
        assert_eq!(
            woken.iter().filter(|woken| **woken).count(),
            1,
            "turn {turn}"
        );
        file.read(&mut [0; 8]).unwrap();
        epolls
            .iter()
            .for_each(|epoll| assert!(epoll.collect(1).is_empty()));
    }
}

#[derive(Default)]
struct Terminal {
    input: RefCell<VecDeque<u8>>,
    output: RefCell<Vec<u8>>,
    ended: Cell<bool>,
    queue: WaitQueue,
}

impl ConsoleDevice for Terminal {
    fn read(&self, out: &mut [u8]) -> Result<usize> {
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            return if self.ended.get() {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let len = out.len().min(input.len());
        out[..len]
            .iter_mut()
            .zip(input.drain(..len))
            .for_each(|(to, from)| *to = from);
        Ok(len)
    }

    fn write(&self, data: &[u8]) -> Result<usize> {
        self.output.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }

    fn available(&self) -> Option<usize> {
        let len = self.input.borrow().len();
        if len == 0 && self.ended.get() {
            None
        } else {
            Some(len)
        }
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn window(&self) -> (u16, u16) {
        (132, 43)
    }
}

struct Memory(RefCell<Vec<u8>>);

impl UserMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let memory = self.0.borrow();
        out.copy_from_slice(
            memory
                .get(address as usize..address as usize + out.len())
                .ok_or(Errno::EFAULT)?,
        );
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        let mut memory = self.0.borrow_mut();
        memory
            .get_mut(address as usize..address as usize + data.len())
            .ok_or(Errno::EFAULT)?
            .copy_from_slice(data);
        Ok(())
    }
}

#[test]
fn a_terminal_answers_as_one_and_a_pipe_does_not() {
    let vfs = vfs();
    let memory = Memory(RefCell::new(vec![0; 64]));
    let terminal: Rc<Terminal> = Rc::default();
    let node = vfs
        .find(AT_FDCWD, b"/dev/console", 0)
        .unwrap()
        .into_node()
        .unwrap();
    let born = vfs.system().now();
    let console = Console::new(
        terminal.clone(),
        Some(Rc::new(move || Some(node.clone()))),
        born,
    );
    vfs.set_console(console.clone());
    vfs.fds
        .insert(OpenFile::new(console.clone(), linux::O_RDWR), false)
        .unwrap();
    assert_eq!(console.ioctl(ioctl::TIOCGWINSZ, 0, &memory), Ok(0));
    assert_eq!(&memory.0.borrow()[..4], [43, 0, 132, 0]);
    assert_eq!(console.ioctl(ioctl::TCGETS, 0, &memory), Ok(0));
    assert_eq!(
        console.ioctl(ioctl::TCGETS, 60, &memory),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        vfs.stat(AT_FDCWD, b"/dev/console", 0).unwrap(),
        console.metadata()
    );
    let tty = open(&vfs, "/dev/tty", linux::O_RDWR).unwrap();
    vfs.fds.get(tty).unwrap().write(b"to the user").unwrap();
    assert_eq!(&*terminal.output.borrow(), b"to the user");
    let file = vfs.fds.get(0).unwrap();
    assert_eq!(
        (file.read(&mut [0; 4]), file.object().poll() & ready::IN),
        (Err(Errno::EAGAIN), 0)
    );
    terminal.input.borrow_mut().extend(b"line\n");
    assert_eq!(file.read(&mut [0; 64]), Ok(5));
    let piped = Console::new(terminal, None, born);
    assert_eq!(piped.ioctl(ioctl::TCGETS, 0, &memory), Err(Errno::ENOTTY));
    assert_eq!(piped.ioctl(ioctl::FIONREAD, 0, &memory), Ok(0));
    assert_eq!(piped.metadata().mode & linux::S_IFMT, linux::S_IFIFO);
}

#[test]
fn descriptors_are_the_lowest_free_ones() {
    let vfs = vfs();
    let file = || OpenFile::new(EventFd::new(0, false), linux::O_RDWR);
    for n in 0..5 {
        assert_eq!(vfs.fds.insert(file(), n % 2 == 0), Ok(n));
    }
    vfs.fds.close(1).unwrap();
    vfs.fds.close(3).unwrap();
    assert_eq!(vfs.fds.close(3), Err(Errno::EBADF));
    assert_eq!(vfs.fds.dup(0), Ok(1));
    assert_eq!(vfs.fds.close_on_exec(1), Ok(false));
    assert_eq!(vfs.fds.insert_from(4, file(), true), Ok(5));
    assert_eq!(vfs.fds.insert(file(), false), Ok(3));
    assert_eq!(vfs.fds.dup_to(0, 100, true), Ok(100));
    assert!(Rc::ptr_eq(
        &vfs.fds.get(0).unwrap(),
        &vfs.fds.get(100).unwrap()
    ));
    assert_eq!(vfs.fds.dup_to(0, 1024, false), Err(Errno::EBADF));
    assert_eq!(vfs.fds.dup_to(50, 50, false), Err(Errno::EBADF));
    vfs.fds.set_limit(6);
    assert_eq!(vfs.fds.insert(file(), false), Err(Errno::EMFILE));
    vfs.fds.close_range(2, u32::MAX, true).unwrap();
    assert_eq!(vfs.fds.close_on_exec(100), Ok(true));
    vfs.fds.close_range(2, 99, false).unwrap();
    assert_eq!(vfs.fds.open_fds(), [0, 1, 100]);
}
