//! Register operations and the trait by which a kernel runs many of them at once.
//!
//! An access to a device register leaves the guest. From ring 3 of a paravirtual KVM it also costs a trap and an emulation, so
//! the kernel offers one call that runs a batch where it is cheapest. Neighbour: [`crate::mmio`] builds the batches.

/// One 32-bit access to a device register. The layout is fixed because the code that runs a batch may be assembly.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegOp {
    /// Physical address, 4-byte aligned.
    pub paddr: u64,
    /// Value to write, or where a read puts its result.
    pub value: u32,
    /// [`RegOp::READ`] or [`RegOp::WRITE`].
    pub kind: u32,
}

impl RegOp {
    /// `kind` of a read.
    pub const READ: u32 = 0;
    /// `kind` of a write.
    pub const WRITE: u32 = 1;

    /// A read of the register at `paddr`.
    pub const fn read(paddr: u64) -> Self {
        Self {
            paddr,
            value: 0,
            kind: Self::READ,
        }
    }

    /// A write of `value` to the register at `paddr`.
    pub const fn write(paddr: u64, value: u32) -> Self {
        Self {
            paddr,
            value,
            kind: Self::WRITE,
        }
    }
}

/// Runs register operations. Implemented by the kernel.
pub trait RegisterBus {
    /// Runs `ops` in order, each exactly once, and stores the results of reads in their `value`.
    fn run(&self, ops: &mut [RegOp]);

    /// Writes a queue number to a doorbell register: one plain store, right now, from where the caller runs.
    fn doorbell(&self, paddr: u64, value: u32);
}

impl<B: RegisterBus + ?Sized> RegisterBus for &B {
    fn run(&self, ops: &mut [RegOp]) {
        (**self).run(ops);
    }

    fn doorbell(&self, paddr: u64, value: u32) {
        (**self).doorbell(paddr, value);
    }
}
