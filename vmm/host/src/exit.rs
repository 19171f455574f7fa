//! Why a vCPU came back: the page shared with KVM, decoded to an enum.

use kvm_bindings::*;

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

/// Decodes the page after a successful KVM_RUN.
///
/// # Safety
/// `run` starts a vCPU's whole mapping (KVM_GET_VCPU_MMAP_SIZE bytes), and its exit reason is the one that KVM just left.
pub(crate) unsafe fn decode(run: &mut kvm_run) -> Exit<'_> {
    match run.exit_reason {
        // SAFETY: as the caller promises; the reason says which field is valid.
        KVM_EXIT_IO => unsafe { port_exit(run) },
        // SAFETY: as above.
        KVM_EXIT_MMIO => unsafe { mmio_exit(run) },
        // SAFETY: as above.
        KVM_EXIT_INTERNAL_ERROR => Exit::InternalError(unsafe { internal_error(run) }),
        // SAFETY: as above.
        KVM_EXIT_IOAPIC_EOI => Exit::EndOfInterrupt(unsafe { run.__bindgen_anon_1.eoi.vector }),
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: as above.
            let entry = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::FailEntry(entry.hardware_entry_failure_reason)
        }
        KVM_EXIT_DEBUG => {
            // SAFETY: as above.
            let arch = unsafe { run.__bindgen_anon_1.debug.arch };
            Exit::Debug {
                pc: arch.pc,
                dr6: arch.dr6,
            }
        }
        KVM_EXIT_HLT => Exit::Halted,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_INTR => Exit::Interrupted,
        number => Exit::Unexpected(number),
    }
}

/// # Safety
/// As for [`decode`], with reason KVM_EXIT_IO.
unsafe fn port_exit(run: &mut kvm_run) -> Exit<'_> {
    let start = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: the exit reason is KVM_EXIT_IO, so `io` is the valid field of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let len = io.count as usize * usize::from(io.size);
    // SAFETY: KVM puts `len` bytes at this offset of the mapping that `run` is the start of; the slice borrows `run`, so it
    // ends before the next KVM_RUN.
    let data = unsafe { std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), len) };
    if u32::from(io.direction) == KVM_EXIT_IO_OUT {
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

/// # Safety
/// As for [`decode`], with reason KVM_EXIT_MMIO.
unsafe fn mmio_exit(run: &mut kvm_run) -> Exit<'_> {
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

/// # Safety
/// As for [`decode`], with reason KVM_EXIT_INTERNAL_ERROR.
unsafe fn internal_error(run: &kvm_run) -> InternalError {
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
