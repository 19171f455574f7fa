//! One virtual CPU: its start state, its run loop's single step, its registers for reports.
//!
//! [`Vcpu::run`] returns an [`Exit`]; who dispatches it is not this crate's business. [`Kicker`] takes it out of the guest
//! from another thread.

use kvm_bindings::{
    CpuId, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs, kvm_device_attr, kvm_msr_entry,
    kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::clock;
use crate::exit::{self, Exit};
use crate::kick::Kicker;
use crate::kvm::{KvmError, failed};

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

impl Registers {
    /// Whether these are the ones after a reset (Intel SDM volume 3, table 11-1). KVM resets a vCPU at a triple fault on AMD's
    /// processors, which do not say what they were before.
    pub fn are_reset(&self) -> bool {
        (self.rip, self.cs, self.cr[3]) == (0xfff0, 0xf000, 0)
    }
}

/// Where a kernel that starts in 64-bit mode finds things; all addresses are physical and mapped one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongStart {
    /// First instruction.
    pub entry: u64,
    /// For `rsi`.
    pub zero_page: u64,
    /// Root of the page tables.
    pub page_tables: u64,
    /// Descriptor table with code at 0x10 and data at 0x18.
    pub gdt: u64,
    /// For `rsp`.
    pub stack: u64,
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

    /// Puts the vCPU into 64-bit mode as Linux's boot protocol asks (`Documentation/arch/x86/boot.rst`, "64-bit boot protocol"):
    /// flat segments, interrupts off, `rsi` = address of the zero page.
    pub fn enter_long(&self, start: &LongStart) -> Result<(), KvmError> {
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(failed("read the vCPU's state"))?;
        long_mode(&mut sregs, start);
        self.fd
            .set_sregs(&sregs)
            .map_err(failed("set the vCPU's state"))?;
        let regs = kvm_regs {
            rip: start.entry,
            rsi: start.zero_page,
            rsp: start.stack,
            rbp: start.stack,
            rflags: 2,
            ..Default::default()
        };
        self.fd
            .set_regs(&regs)
            .map_err(failed("set the vCPU's registers"))
    }

    /// Sets which extended state is switched on (XCR0). KVM accepts it before the guest sets `CR4.OSXSAVE`.
    pub fn set_xcr0(&self, value: u64) -> Result<(), KvmError> {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = value;
        self.fd.set_xcrs(&xcrs).map_err(failed("set XCR0"))
    }

    /// Runs the guest until the next exit.
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        match self.fd.run() {
            Ok(_) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(error) => return Err(failed("run the guest")(error)),
        }
        // SAFETY: KVM_RUN succeeded, so the page says why, and it starts the whole mapping that KVM asked for.
        Ok(unsafe { exit::decode(self.fd.get_kvm_run()) })
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

fn long_mode(sregs: &mut kvm_sregs, start: &LongStart) {
    const CR0_PE_ET_PG: u64 = 0x8000_0011;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LME_LMA: u64 = 0x500;
    flat_protected_mode(sregs);
    sregs.cs.selector = 0x10;
    (sregs.cs.l, sregs.cs.db) = (1, 0);
    let data = kvm_segment {
        selector: 0x18,
        ..sregs.ds
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (start.gdt, 31);
    sregs.cr3 = start.page_tables;
    (sregs.cr0, sregs.cr4, sregs.efer) = (CR0_PE_ET_PG, CR4_PAE, EFER_LME_LMA);
}

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
