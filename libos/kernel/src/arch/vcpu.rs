//! The per-vCPU block: what `gs` points to in ring 3, shared with the nucleus and with rewritten program code.

use crate::sched::thread::Thread;
use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use unik_abi::{MAX_VCPUS, gs};

/// The block. Slots up to `cpuid_table` are known to `nucleus.s` and `entry.s` by offset.
#[repr(C, align(64))]
pub struct Vcpu {
    syscall_entry: AtomicU64,
    cpuid_entry: AtomicU64,
    masked: AtomicU8,
    pending: AtomicU8,
    xapic: AtomicU8,
    cpuid_r11: AtomicU64,
    user_rsp: AtomicU64,
    rcx: AtomicU64,
    kstack: AtomicU64,
    emergency: AtomicU64,
    up_vector: AtomicU64,
    up_error: AtomicU64,
    up_cr2: AtomicU64,
    up_rip: AtomicU64,
    up_rflags: AtomicU64,
    up_rsp: AtomicU64,
    vectors: [AtomicU64; 2],
    tlb_seen: AtomicU64,
    tlb_wanted: AtomicU64,
    current: AtomicU64,
    cpuid_table: AtomicU64,
    id: AtomicU32,
    /// Set while this vCPU sits in a halt (or is about to): waking it needs an interrupt.
    pub halted: AtomicBool,
    /// Set while this vCPU looks for work without halting: waking it needs only work in the queue.
    pub polling: AtomicBool,
    /// Set while this vCPU may hold program addresses in its TLB.
    pub online: AtomicBool,
    /// Set by others to ask for a reschedule at the next exit.
    pub resched: AtomicBool,
    answers: AtomicU64,
}

const SIZE: usize = 192;
const _: () = {
    assert!(size_of::<Vcpu>() == SIZE);
    assert!(offset_of!(Vcpu, syscall_entry) == gs::SYSCALL_ENTRY as usize);
    assert!(offset_of!(Vcpu, cpuid_entry) == gs::CPUID_ENTRY as usize);
    assert!(offset_of!(Vcpu, masked) == gs::MASKED as usize);
    assert!(offset_of!(Vcpu, cpuid_r11) == gs::CPUID_R11 as usize);
    assert!(offset_of!(Vcpu, pending) == 17 && offset_of!(Vcpu, xapic) == 18);
    assert!(
        offset_of!(Vcpu, user_rsp) == 32
            && offset_of!(Vcpu, rcx) == 40
            && offset_of!(Vcpu, kstack) == 48
    );
    assert!(
        offset_of!(Vcpu, emergency) == 56
            && offset_of!(Vcpu, up_vector) == 64
            && offset_of!(Vcpu, up_rsp) == 104
    );
    assert!(
        offset_of!(Vcpu, vectors) == 112
            && offset_of!(Vcpu, tlb_seen) == 128
            && offset_of!(Vcpu, tlb_wanted) == 136
    );
    assert!(offset_of!(Vcpu, current) == 144 && offset_of!(Vcpu, cpuid_table) == 152);
    assert!(offset_of!(Vcpu, answers) == 168);
};
core::arch::global_asm!(".globl VCPU_BLOCK_SIZE", ".set VCPU_BLOCK_SIZE, 192");

impl Vcpu {
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "only the initial value of the blocks below"
    )]
    const NEW: Self = Self {
        syscall_entry: AtomicU64::new(0),
        cpuid_entry: AtomicU64::new(0),
        masked: AtomicU8::new(1),
        pending: AtomicU8::new(0),
        xapic: AtomicU8::new(0),
        cpuid_r11: AtomicU64::new(0),
        user_rsp: AtomicU64::new(0),
        rcx: AtomicU64::new(0),
        kstack: AtomicU64::new(0),
        emergency: AtomicU64::new(0),
        up_vector: AtomicU64::new(0),
        up_error: AtomicU64::new(0),
        up_cr2: AtomicU64::new(0),
        up_rip: AtomicU64::new(0),
        up_rflags: AtomicU64::new(0),
        up_rsp: AtomicU64::new(0),
        vectors: [const { AtomicU64::new(0) }; 2],
        tlb_seen: AtomicU64::new(0),
        tlb_wanted: AtomicU64::new(0),
        current: AtomicU64::new(0),
        cpuid_table: AtomicU64::new(0),
        id: AtomicU32::new(0),
        halted: AtomicBool::new(false),
        polling: AtomicBool::new(false),
        online: AtomicBool::new(false),
        resched: AtomicBool::new(false),
        answers: AtomicU64::new(0),
    };
}

/// All blocks, by vCPU index (= APIC id).
#[unsafe(no_mangle)]
pub static VCPU_BLOCKS: [Vcpu; MAX_VCPUS] = [Vcpu::NEW; MAX_VCPUS];

#[repr(C, align(16))]
struct Stack<const N: usize>(core::cell::UnsafeCell<[u8; N]>);
// SAFETY: only used as the stack of one vCPU at a time.
unsafe impl<const N: usize> Sync for Stack<N> {}

const BOOT_STACK: usize = 32 * 1024;
const EMERGENCY_STACK: usize = 8 * 1024;
static BOOT: Stack<BOOT_STACK> = Stack(core::cell::UnsafeCell::new([0; BOOT_STACK]));
static EMERGENCY: Stack<EMERGENCY_STACK> = Stack(core::cell::UnsafeCell::new([0; EMERGENCY_STACK]));

// Where each vCPU's ring-3 stack begins at its start. vCPU 0's must be there before any code runs, so the linker fills it in.
core::arch::global_asm!(
    ".section .data.boot_stacks, \"aw\"",
    ".balign 8",
    ".globl BOOT_STACKS",
    "BOOT_STACKS: .quad {boot} + {size}",
    ".fill {more}, 8, 0",
    ".text",
    boot = sym BOOT,
    size = const BOOT_STACK,
    more = const MAX_VCPUS - 1,
);

unsafe extern "C" {
    static BOOT_STACKS: [AtomicU64; MAX_VCPUS];
}

/// Tells vCPU `index` where its stack ends, before it is started.
pub fn set_boot_stack(index: usize, top: u64) {
    // SAFETY: defined above with MAX_VCPUS entries.
    unsafe { BOOT_STACKS[index].store(top, Ordering::SeqCst) };
}

/// Where vCPU `index`'s first stack ends.
pub fn boot_stack(index: usize) -> u64 {
    // SAFETY: as above.
    unsafe { BOOT_STACKS[index].load(Ordering::SeqCst) }
}

/// Top of vCPU 0's first stack.
pub fn first_stack_top() -> u64 {
    BOOT.0.get() as u64 + BOOT_STACK as u64
}

/// Interrupts that arrived since the last look.
#[derive(Clone, Copy)]
pub struct Vectors([u64; 2]);

impl Vectors {
    /// Whether `vector` arrived.
    pub fn has(self, vector: u8) -> bool {
        self.0[vector as usize / 64] >> (vector % 64) & 1 == 1
    }
}

impl Vcpu {
    /// Prepares the block of vCPU `index`, which is the one that runs this.
    pub fn init(&self, index: u32, cpuid_table: u64, xapic: bool) {
        unsafe extern "C" {
            fn syscall_entry();
            fn cpuid_entry();
        }
        self.syscall_entry
            .store(syscall_entry as *const () as u64, Ordering::Relaxed);
        self.cpuid_entry
            .store(cpuid_entry as *const () as u64, Ordering::Relaxed);
        self.cpuid_table.store(cpuid_table, Ordering::Relaxed);
        self.emergency.store(
            EMERGENCY.0.get() as u64 + EMERGENCY_STACK as u64,
            Ordering::Relaxed,
        );
        self.xapic.store(xapic as u8, Ordering::Relaxed);
        self.id.store(index, Ordering::Relaxed);
    }

    /// The vCPU that runs this. Only stable while upcalls are masked, which they are in all of the library OS.
    #[inline(always)]
    pub fn this() -> &'static Self {
        &VCPU_BLOCKS[Self::index()]
    }

    /// Index of the vCPU that runs this.
    #[inline(always)]
    pub fn index() -> usize {
        let id: u32;
        // SAFETY: gs points to this vCPU's block.
        unsafe {
            asm!("mov {:e}, gs:[{}]", out(reg) id, const offset_of!(Vcpu, id), options(nostack, preserves_flags, readonly))
        };
        id as usize % MAX_VCPUS
    }

    /// The thread that runs on this vCPU.
    #[inline(always)]
    pub fn current() -> *mut Thread {
        let thread: u64;
        // SAFETY: gs points to this vCPU's block.
        unsafe {
            asm!("mov {}, gs:[{}]", out(reg) thread, const offset_of!(Vcpu, current), options(nostack, preserves_flags, readonly))
        };
        thread as *mut Thread
    }

    /// Makes `thread`, whose library-OS stack ends at `kstack_top`, the one that runs here.
    pub fn set_current(&self, thread: *mut Thread, kstack_top: u64) {
        self.current.store(thread as u64, Ordering::Relaxed);
        self.kstack.store(kstack_top, Ordering::Relaxed);
    }

    /// Address of the cpuid table.
    pub fn cpuid_table(&self) -> u64 {
        self.cpuid_table.load(Ordering::Relaxed)
    }

    /// Takes the interrupts that are pending here.
    pub fn take_vectors(&self) -> Vectors {
        self.pending.store(0, Ordering::SeqCst);
        Vectors([
            self.vectors[0].swap(0, Ordering::SeqCst),
            self.vectors[1].swap(0, Ordering::SeqCst),
        ])
    }

    /// Whether an interrupt is pending here.
    #[inline(always)]
    pub fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// The fault that the nucleus reported: vector, error code, CR2.
    pub fn fault(&self) -> (u64, u64, u64) {
        (
            self.up_vector.load(Ordering::Relaxed),
            self.up_error.load(Ordering::Relaxed),
            self.up_cr2.load(Ordering::Relaxed),
        )
    }

    /// Where the library OS itself faulted: rip, rsp.
    pub fn fault_at(&self) -> (u64, u64) {
        (
            self.up_rip.load(Ordering::Relaxed),
            self.up_rsp.load(Ordering::Relaxed),
        )
    }

    /// Asks this vCPU to report in [`Self::flushed`] when it has flushed for `generation` (the request is the flush interrupt).
    pub fn want_flush(&self, generation: u64) {
        self.tlb_wanted.store(generation, Ordering::SeqCst);
    }

    /// Whether this vCPU flushed its TLB for `generation` or a later one.
    pub fn flushed(&self, generation: u64) -> bool {
        self.tlb_seen.load(Ordering::SeqCst) >= generation
    }

    /// How often this vCPU answered the flush interrupt, whether there was something to flush or not.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    /// Notes that this vCPU flushed by itself.
    pub fn set_flushed(&self, generation: u64) {
        self.tlb_seen.store(generation, Ordering::SeqCst);
    }
}
