//! A thread: its library-OS stack, saved registers, and what Linux keeps for it.

use crate::arch::frame::Frame;
use crate::arch::vcpu::Vcpu;
use crate::arch::{self, fpu};
use crate::mm::kstack;
use crate::sched::Wake;
use crate::signal::ThreadSignals;
use core::cell::{Cell, RefCell};
use unik_core::runqueue::EVERYWHERE;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On a vCPU.
    Running,
    /// Waiting for a vCPU.
    Ready,
    /// Waiting for something else.
    Blocked,
    /// Gone.
    Dead,
}

/// A thread. Touched only with the big lock held, but for the fields that its own vCPU alone uses.
pub struct Thread {
    /// Thread id; the first thread's is the process id.
    pub tid: u32,
    /// Whether this is a vCPU's idle thread: runs no program, has no vector state.
    pub is_idle: bool,
    /// Highest address of its library-OS stack.
    pub kstack_top: u64,
    /// Stack pointer while it is not running.
    pub sp: Cell<u64>,
    fs_base: Cell<u64>,
    /// Vector state while it is not running.
    pub fpu: RefCell<Option<fpu::State>>,
    /// What it is doing.
    pub state: Cell<State>,
    /// Why it was woken last.
    pub wake: Cell<Wake>,
    /// Whether signals end its present wait.
    pub interruptible: Cell<bool>,
    /// vCPU it runs on or ran on last.
    pub cpu: Cell<usize>,
    /// Allowed vCPUs (sched_setaffinity).
    pub affinity: Cell<u64>,
    /// Name (PR_SET_NAME), NUL-padded.
    pub name: Cell<[u8; 16]>,
    /// Word to clear and wake at exit (CLONE_CHILD_CLEARTID, set_tid_address).
    pub clear_tid: Cell<u64>,
    /// Head of the robust futex list.
    pub robust_list: Cell<u64>,
    /// Futex it waits on, for requeue and removal.
    pub futex: Cell<u64>,
    /// Signals.
    pub signals: RefCell<ThreadSignals>,
    /// TSC ticks on a vCPU so far, without the present stretch.
    pub ticks: Cell<u64>,
    /// TSC when the present stretch began.
    pub since: Cell<u64>,
    /// Nice value, as set; the scheduler treats all alike.
    pub nice: Cell<i32>,
}

impl Thread {
    fn blank(tid: u32, kstack_top: u64, is_idle: bool) -> Self {
        Self {
            tid,
            is_idle,
            kstack_top,
            sp: Cell::new(0),
            fs_base: Cell::new(0),
            fpu: RefCell::new(None),
            state: Cell::new(State::Ready),
            wake: Cell::new(Wake::Event),
            interruptible: Cell::new(false),
            cpu: Cell::new(0),
            affinity: Cell::new(EVERYWHERE),
            name: Cell::new([0; 16]),
            clear_tid: Cell::new(0),
            robust_list: Cell::new(0),
            futex: Cell::new(0),
            signals: RefCell::new(ThreadSignals::default()),
            ticks: Cell::new(0),
            since: Cell::new(0),
            nice: Cell::new(0),
        }
    }

    /// The idle thread of a vCPU, already running on the stack that ends at `stack_top`.
    pub fn idle(stack_top: u64) -> Self {
        let thread = Self::blank(0, stack_top, true);
        thread.state.set(State::Running);
        thread
    }

    /// A thread that will start in the program with the registers of `frame`. `None` without memory for its stack.
    pub fn new(tid: u32, frame: Frame, fs_base: u64, vector_state: fpu::State) -> Option<Self> {
        unsafe extern "C" {
            fn thread_start();
        }
        let top = kstack::alloc()?;
        let thread = Self::blank(tid, top, false);
        let at = top - size_of::<Frame>() as u64;
        // What switch_stack pops: r15 r14 r13 r12 rbx rbp, return address; after the return rsp is `at`.
        let sp = at - 7 * 8;
        // SAFETY: the stack is fresh, mapped and ours.
        unsafe {
            (at as *mut Frame).write(frame);
            (sp as *mut [u64; 7]).write([0, 0, 0, 0, 0, 0, thread_start as *const () as u64]);
        }
        thread.sp.set(sp);
        thread.fs_base.set(fs_base);
        *thread.fpu.borrow_mut() = Some(vector_state);
        Some(thread)
    }

    /// The program's registers: at the top of the stack while the thread is inside the library OS.
    pub fn frame(&self) -> *mut Frame {
        (self.kstack_top - size_of::<Frame>() as u64) as *mut Frame
    }

    /// Whether it may run on vCPU `index`.
    pub fn may_run_on(&self, index: usize) -> bool {
        self.affinity.get() >> index & 1 == 1
    }

    /// Saves what lives in this vCPU's registers.
    pub fn leave(&self, now: u64) {
        self.fs_base.set(arch::fs_base());
        if let Some(state) = self.fpu.borrow_mut().as_mut() {
            state.save();
        }
        self.ticks
            .set(self.ticks.get() + now.wrapping_sub(self.since.get()));
    }

    /// Loads it again.
    pub fn enter(&self, now: u64) {
        self.cpu.set(Vcpu::index());
        self.since.set(now);
        arch::set_fs_base(self.fs_base.get());
        if let Some(state) = self.fpu.borrow().as_ref() {
            state.load();
        }
    }

    /// TSC ticks it has run.
    pub fn cpu_ticks(&self) -> u64 {
        let running = if self.state.get() == State::Running {
            arch::rdtsc().wrapping_sub(self.since.get())
        } else {
            0
        };
        self.ticks.get() + running
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.is_idle {
            kstack::free(self.kstack_top);
        }
    }
}
