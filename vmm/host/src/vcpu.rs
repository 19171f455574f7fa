//! One virtual CPU: its start state, its run loop's single step, its registers for reports.
//!
//! [`Vcpu::run`] returns an [`Exit`]; who dispatches it is not this crate's business. [`Kicker`] takes it out of the guest
//! from another thread.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use kvm_bindings::{
    CpuId, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs, kvm_device_attr, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::clock;
use crate::kvm::{KvmError, failed};
use crate::signals;

/// Why a vCPU came back. Data slices point into the page shared with KVM: answers to reads are written there.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `out` to a port; several bytes when the operand is wide or the instruction repeats.
    IoOut {
        /// Port number.
        port: u16,
        /// What was written.
        data: &'a [u8],
    },
    /// `in` from a port.
    IoIn {
        /// Port number.
        port: u16,
        /// To be filled.
        data: &'a mut [u8],
    },
    /// A read outside memory.
    MmioRead {
        /// Guest physical address.
        addr: u64,
        /// To be filled, at most 8 bytes.
        data: &'a mut [u8],
    },
    /// A write outside memory.
    MmioWrite {
        /// Guest physical address.
        addr: u64,
        /// At most 8 bytes.
        data: &'a [u8],
    },
    /// The end of a level-triggered interrupt with this vector.
    EndOfInterrupt(u8),
    /// `hlt` with nothing left that could wake the vCPU (only without in-kernel APICs).
    Halted,
    /// Triple fault.
    Shutdown,
    /// KVM met an instruction or state that it cannot handle.
    InternalError(InternalError),
    /// The processor refused to enter the guest, with its reason.
    FailEntry(u64),
    /// A breakpoint or single step while debugging.
    Debug {
        /// Guest virtual address.
        pc: u64,
        /// Debug status register.
        dr6: u64,
    },
    /// A signal, usually a kick.
    Interrupted,
    /// An exit that nobody asked for, by its KVM number.
    Unexpected(u32),
}

/// What KVM says about an internal error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternalError {
    /// `KVM_INTERNAL_ERROR_*`: 1 = instruction emulation, 2 = exception while delivering an exception, 3 = unexpected exit.
    pub suberror: u32,
    /// Bytes of the instruction that could not be emulated, when known.
    pub instruction: Vec<u8>,
}

/// The registers that a crash report shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0, CR2, CR3, CR4.
    pub cr: [u64; 4],
    /// Extended features.
    pub efer: u64,
    /// Code segment selector; its low bits are the privilege level.
    pub cs: u16,
    /// Base of fs and gs.
    pub fs_gs: [u64; 2],
}

/// A virtual CPU. Belongs to the thread that runs it.
pub struct Vcpu {
    fd: VcpuFd,
    id: u8,
}

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd, id: u8) -> Self {
        Self { fd, id }
    }

    /// The APIC id.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Sets what `cpuid` answers. Before registers and MSRs: KVM checks those against it.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), KvmError> {
        self.fd
            .set_cpuid2(cpuid)
            .map_err(failed("set the guest's CPUID"))
    }

    /// Frequency of the guest's time stamp counter in kHz, when KVM knows it.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|&khz| khz != 0)
    }

    /// Value of a model-specific register.
    pub fn msr(&self, index: u32) -> Result<u64, KvmError> {
        let entry = kvm_msr_entry {
            index,
            ..Default::default()
        };
        let mut msrs = Msrs::from_entries(&[entry])
            .map_err(|_| KvmError::Capability("room for one register"))?;
        match self
            .fd
            .get_msrs(&mut msrs)
            .map_err(failed("read a model-specific register"))?
        {
            1 => Ok(msrs.as_slice()[0].data),
            _ => Err(KvmError::Capability("such a model-specific register")),
        }
    }

    /// Guest TSC minus host TSC (both count at the same rate). KVM tells exactly, or else the guest's counter is read between two
    /// readings of the host's.
    pub fn tsc_offset(&self) -> i64 {
        self.exact_tsc_offset().unwrap_or_else(|| {
            let before = clock::tsc();
            let guest = self.msr(MSR_TSC).unwrap_or(before);
            let after = clock::tsc();
            guest.wrapping_sub(before + after.saturating_sub(before) / 2) as i64
        })
    }

    fn exact_tsc_offset(&self) -> Option<i64> {
        let mut offset = 0i64;
        let attr = kvm_device_attr {
            group: KVM_VCPU_TSC_CTRL,
            attr: u64::from(KVM_VCPU_TSC_OFFSET),
            addr: &raw mut offset as u64,
            ..Default::default()
        };
        // SAFETY: the descriptor is a vCPU's, and this attribute is 8 bytes, which `offset` has room for.
        let result = unsafe { ioctl_with_ref(&self.fd, request::KVM_GET_DEVICE_ATTR(), &attr) };
        (result == 0).then_some(offset)
    }

    /// Sets a model-specific register.
    pub fn set_msr(&self, index: u32, data: u64) -> Result<(), KvmError> {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let msrs = Msrs::from_entries(&[entry])
            .map_err(|_| KvmError::Capability("room for one register"))?;
        match self
            .fd
            .set_msrs(&msrs)
            .map_err(failed("set a model-specific register"))?
        {
            1 => Ok(()),
            _ => Err(KvmError::Capability("such a model-specific register")),
        }
    }

    /// Puts the vCPU into the PVH start state (Xen `docs/misc/pvh.pandoc`): 32-bit protected mode, paging off, flat
    /// segments, `ebx` = address of the start info. Beyond the specification `esp` is usable. With `xcr0` the extended
    /// register state is switched on as far as the platform lets us (`CR4.OSXSAVE`); the guest may do that itself too.
    pub fn enter_pvh(
        &self,
        entry: u32,
        start_info: u32,
        stack: u32,
        xcr0: Option<u64>,
    ) -> Result<(), KvmError> {
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(failed("read the vCPU's state"))?;
        flat_protected_mode(&mut sregs);
        let plain_cr4 = sregs.cr4;
        if xcr0.is_some_and(|value| self.set_xcr0(value).is_ok()) {
            sregs.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
        }
        if self.fd.set_sregs(&sregs).is_err() {
            sregs.cr4 = plain_cr4;
            self.fd
                .set_sregs(&sregs)
                .map_err(failed("set the vCPU's state"))?;
        }
        let regs = kvm_regs {
            rip: entry.into(),
            rbx: start_info.into(),
            rsp: stack.into(),
            rflags: 2,
            ..Default::default()
        };
        self.fd
            .set_regs(&regs)
            .map_err(failed("set the vCPU's registers"))
    }

    fn set_xcr0(&self, value: u64) -> Result<(), KvmError> {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = value;
        self.fd.set_xcrs(&xcrs).map_err(failed("set XCR0"))
    }

    /// Runs the guest until the next exit.
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        // The borrow of an exit with data must not reach into the arms that look at the shared page again.
        let reason = match self.fd.run() {
            Ok(VcpuExit::IoOut(..)) | Ok(VcpuExit::IoIn(..)) => KVM_EXIT_IO,
            Ok(VcpuExit::MmioRead(..)) | Ok(VcpuExit::MmioWrite(..)) => kvm_bindings::KVM_EXIT_MMIO,
            Ok(VcpuExit::IoapicEoi(vector)) => return Ok(Exit::EndOfInterrupt(vector)),
            Ok(VcpuExit::Hlt) => return Ok(Exit::Halted),
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::InternalError) => KVM_EXIT_INTERNAL_ERROR,
            Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::FailEntry(reason)),
            Ok(VcpuExit::Debug(arch)) => {
                return Ok(Exit::Debug {
                    pc: arch.pc,
                    dr6: arch.dr6,
                });
            }
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(_) => return Ok(Exit::Unexpected(self.fd.get_kvm_run().exit_reason)),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(failed("run the guest")(error)),
        };
        Ok(self.exit_with_data(reason))
    }

    fn exit_with_data(&mut self, reason: u32) -> Exit<'_> {
        let run = self.fd.get_kvm_run();
        match reason {
            KVM_EXIT_IO => port_exit(run),
            KVM_EXIT_INTERNAL_ERROR => Exit::InternalError(internal_error(run)),
            _ => mmio_exit(run),
        }
    }

    /// The registers now. For a report: all zero when KVM does not tell.
    pub fn registers(&self) -> Registers {
        let regs = self.fd.get_regs().unwrap_or_default();
        let sregs = self.fd.get_sregs().unwrap_or_default();
        Registers {
            general: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rflags: regs.rflags,
            cr: [sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4],
            efer: sregs.efer,
            cs: sregs.cs.selector,
            fs_gs: [sregs.fs.base, sregs.gs.base],
        }
    }

    /// The means to take this vCPU out of the guest from another thread.
    pub fn kicker(&self) -> Result<Kicker, KvmError> {
        Kicker::new(&self.fd)
    }
}

mod request {
    //! Request numbers that kvm-ioctls does not export.
    use super::{KVMIO, kvm_device_attr};
    vmm_sys_util::ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
}

const MSR_TSC: u32 = 0x10;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;

fn flat_protected_mode(sregs: &mut kvm_sregs) {
    let flat = kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x10,
        type_: 3,
        ..flat
    };
    sregs.cs = kvm_segment {
        selector: 0x8,
        type_: 0xb,
        ..flat
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        limit: 0x67,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.cr0 = 0x11; // PE and ET, which is hard-wired
    sregs.cr4 = 0;
}

fn port_exit(run: &mut kvm_bindings::kvm_run) -> Exit<'_> {
    let start = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: the exit reason is KVM_EXIT_IO, so `io` is the valid field of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let len = io.count as usize * usize::from(io.size);
    // SAFETY: KVM puts `len` bytes at this offset of the mapping that `run` is the start of; the slice borrows `run`, so it
    // ends before the next KVM_RUN.
    let data = unsafe { std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), len) };
    if u32::from(io.direction) == kvm_bindings::KVM_EXIT_IO_OUT {
        Exit::IoOut {
            port: io.port,
            data,
        }
    } else {
        Exit::IoIn {
            port: io.port,
            data,
        }
    }
}

fn mmio_exit(run: &mut kvm_bindings::kvm_run) -> Exit<'_> {
    // SAFETY: the exit reason is KVM_EXIT_MMIO, so `mmio` is the valid field of the union.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let len = (mmio.len as usize).min(mmio.data.len());
    let (addr, data) = (mmio.phys_addr, &mut mmio.data[..len]);
    if mmio.is_write != 0 {
        Exit::MmioWrite { addr, data }
    } else {
        Exit::MmioRead { addr, data }
    }
}

fn internal_error(run: &kvm_bindings::kvm_run) -> InternalError {
    // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, so `internal` is the valid field of the union.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let data = &internal.data[..(internal.ndata as usize).min(internal.data.len())];
    // struct kvm_run.emulation_failure: data[0] = flags, bit 0: data[1..] holds a length byte and up to 15 instruction bytes.
    let instruction = match data {
        [flags, rest @ ..] if internal.suberror == 1 && flags & 1 != 0 && rest.len() >= 2 => {
            let bytes: Vec<u8> = rest[..2]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            let len = usize::from(bytes[0]).min(15);
            bytes[1..=len].to_vec()
        }
        _ => Vec::new(),
    };
    InternalError {
        suberror: internal.suberror,
        instruction,
    }
}

/// Takes a vCPU out of the guest, also when it is just about to enter it: sets the shared page's `immediate_exit` and then
/// interrupts the thread.
pub struct Kicker {
    run: *mut kvm_bindings::kvm_run,
    thread: AtomicI32,
    kicked: AtomicBool,
}

// SAFETY: the only access through `run` is an atomic store to one byte.
unsafe impl Send for Kicker {}
// SAFETY: as for Send.
unsafe impl Sync for Kicker {}

impl Kicker {
    fn new(fd: &VcpuFd) -> Result<Self, KvmError> {
        // SAFETY: a second shared mapping of the vCPU's run page at an address of the kernel's choice; KVM allows any number
        // and keeps the page until the last is gone.
        let run = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<kvm_bindings::kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if run == libc::MAP_FAILED {
            return Err(failed("map the vCPU's run page")(kvm_ioctls::Error::last()));
        }
        Ok(Self {
            run: run.cast(),
            thread: AtomicI32::new(0),
            kicked: AtomicBool::new(false),
        })
    }

    /// Says that the calling thread runs the vCPU. Before its first [`Vcpu::run`].
    pub fn attach(&self) {
        self.thread.store(signals::thread_id(), Ordering::Release);
    }

    /// Whether an interruption came from [`Self::kick`], not from some other signal.
    pub fn kicked(&self) -> bool {
        self.kicked.load(Ordering::Acquire)
    }

    /// Makes the current or next [`Vcpu::run`] return [`Exit::Interrupted`], and every later one.
    pub fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        // SAFETY: `run` stays mapped as long as `self`; the byte is only ever accessed as an atomic by us and by the kernel.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.run).immediate_exit) }
            .store(1, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::Acquire);
        if thread != 0 {
            signals::kick(thread);
        }
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        // SAFETY: undoes the mapping made in `new`; nobody else knows the address.
        unsafe { libc::munmap(self.run.cast(), size_of::<kvm_bindings::kvm_run>()) };
    }
}
