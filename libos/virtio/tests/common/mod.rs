//! A virtio-mmio device in software for driver tests: real register file, real rings in real memory (physical = virtual address).
//!
//! [`FakeBus`] counts what a kernel would pay for: batches, operations, doorbells. [`DeviceQueue`] is the device's end of a queue.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use unik_virtio::bus::{RegOp, RegisterBus};
use unik_virtio::{BufferDirection, Hal, PhysAddr};

pub const WINDOW: u64 = 0xd000_0000;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;

/// Memory whose physical address is its virtual one.
pub struct HostMemory;

// SAFETY: fresh, zeroed, page-aligned allocations that nobody else knows.
unsafe impl Hal for HostMemory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout(pages)) };
        (memory as u64, NonNull::new(memory).unwrap())
    }

    unsafe fn dma_dealloc(_: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: allocated above with the same layout.
        unsafe { dealloc(vaddr.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no PCI here")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * 4096, 4096).unwrap()
}

/// Registers of one queue as the driver wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueRegs {
    pub num: u32,
    pub ready: bool,
    pub desc: u64,
    pub driver: u64,
    pub device: u64,
}

/// The register file.
#[derive(Default)]
pub struct Registers {
    pub device_id: u32,
    pub offered: u64,
    pub accepted: u64,
    pub refuse_features: bool,
    pub status: u32,
    pub queue_max: u32,
    pub queues: Vec<QueueRegs>,
    pub interrupt_status: u32,
    pub config: Vec<u8>,
    device_sel: u32,
    driver_sel: u32,
    queue_sel: u32,
}

/// A bus with one window, and the counters.
#[derive(Clone)]
pub struct FakeBus(pub Rc<Inner>);

pub struct Inner {
    pub regs: RefCell<Registers>,
    pub batches: Cell<usize>,
    pub ops: Cell<usize>,
    pub kicks: RefCell<VecDeque<u32>>,
}

impl FakeBus {
    pub fn new(device_id: u32, offered: u64, queues: usize) -> Self {
        let regs = Registers {
            device_id,
            offered,
            queue_max: 256,
            queues: vec![QueueRegs::default(); queues],
            ..Registers::default()
        };
        Self(Rc::new(Inner {
            regs: RefCell::new(regs),
            batches: Cell::new(0),
            ops: Cell::new(0),
            kicks: RefCell::default(),
        }))
    }

    /// The device's end of queue `index`, once the driver has set it up.
    pub fn queue(&self, index: usize) -> DeviceQueue {
        let regs = self.0.regs.borrow();
        assert!(regs.queues[index].ready, "queue {index} is not ready");
        DeviceQueue {
            regs: regs.queues[index],
            seen: 0,
            used: 0,
            event_idx: regs.accepted & F_EVENT_IDX != 0,
        }
    }

    pub fn take_kicks(&self) -> Vec<u32> {
        self.0.kicks.borrow_mut().drain(..).collect()
    }
}

impl RegisterBus for FakeBus {
    fn run(&self, ops: &mut [RegOp]) {
        self.0.batches.set(self.0.batches.get() + 1);
        self.0.ops.set(self.0.ops.get() + ops.len());
        for op in ops {
            let offset = op.paddr - WINDOW;
            match op.kind {
                RegOp::READ => op.value = self.0.regs.borrow().read(offset),
                _ => self.0.regs.borrow_mut().write(offset, op.value),
            }
        }
    }

    fn doorbell(&self, paddr: u64, value: u32) {
        assert_eq!(paddr, WINDOW + 0x50);
        assert_ne!(
            self.0.regs.borrow().status & 4,
            0,
            "notified before DRIVER_OK"
        );
        self.0.kicks.borrow_mut().push_back(value);
    }
}

impl Registers {
    fn read(&self, offset: u64) -> u32 {
        match offset {
            0x000 => u32::from_le_bytes(*b"virt"),
            0x004 => 2,
            0x008 => self.device_id,
            0x010 => (self.offered >> (32 * self.device_sel)) as u32,
            0x034 => self
                .queues
                .get(self.queue_sel as usize)
                .map_or(0, |_| self.queue_max),
            0x044 => self.queues[self.queue_sel as usize].ready.into(),
            0x060 => self.interrupt_status,
            0x070 => self.status,
            0x0fc => 0,
            0x100.. => {
                let at = (offset - 0x100) as usize;
                u32::from_le_bytes(std::array::from_fn(|i| {
                    self.config.get(at + i).copied().unwrap_or(0)
                }))
            }
            _ => panic!("read of register {offset:#x}"),
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        let half = |word: u64, high: bool| {
            if high {
                word & 0xffff_ffff | u64::from(value) << 32
            } else {
                word & !0xffff_ffff | u64::from(value)
            }
        };
        let frozen = self.status & 4 != 0;
        let sel = self.queue_sel as usize;
        match offset {
            0x014 => self.device_sel = value,
            0x020 => self.accepted = half(self.accepted, self.driver_sel == 1),
            0x024 => self.driver_sel = value,
            0x030 => self.queue_sel = value,
            0x064 => self.interrupt_status &= !value,
            0x070 if value == 0 => self.reset(),
            0x070 if value & 8 != 0 && self.refuse_features => self.status = value & !8,
            0x070 => self.status = value,
            0x038 => self.queues[sel].num = value,
            0x044 => self.queues[sel].ready = value == 1,
            0x080 | 0x084 => self.queues[sel].desc = half(self.queues[sel].desc, offset == 0x084),
            0x090 | 0x094 => {
                self.queues[sel].driver = half(self.queues[sel].driver, offset == 0x094)
            }
            0x0a0 | 0x0a4 => {
                self.queues[sel].device = half(self.queues[sel].device, offset == 0x0a4)
            }
            _ => panic!("write of register {offset:#x}"),
        }
        assert!(
            !frozen || matches!(offset, 0x030 | 0x064 | 0x070),
            "register {offset:#x} written after DRIVER_OK"
        );
    }

    fn reset(&mut self) {
        (
            self.status,
            self.accepted,
            self.interrupt_status,
            self.queue_sel,
        ) = (0, 0, 0, 0);
        self.queues.fill(QueueRegs::default());
    }
}

/// One descriptor of a chain: address, length, device-writable.
pub type Piece = (u64, u32, bool);

/// The device's end of a queue.
pub struct DeviceQueue {
    regs: QueueRegs,
    seen: u16,
    pub used: u16,
    event_idx: bool,
}

impl DeviceQueue {
    fn cell(&self, address: u64) -> &AtomicU16 {
        // SAFETY: addresses of ring cells that the driver keeps alive while the device is on.
        unsafe { AtomicU16::from_ptr(address as *mut u16) }
    }

    /// Next available chain.
    pub fn next(&mut self) -> Option<(u16, Vec<Piece>)> {
        if self.cell(self.regs.driver + 2).load(Ordering::Acquire) == self.seen {
            return None;
        }
        let slot = u64::from(self.seen) % u64::from(self.regs.num);
        let head = self
            .cell(self.regs.driver + 4 + 2 * slot)
            .load(Ordering::Relaxed);
        self.seen = self.seen.wrapping_add(1);
        let (mut pieces, mut at) = (Vec::new(), head);
        loop {
            let entry = self.regs.desc + 16 * u64::from(at);
            // SAFETY: the driver's descriptor table.
            let (addr, len, flags, next) = unsafe {
                (
                    *(entry as *const u64),
                    *((entry + 8) as *const u32),
                    *((entry + 12) as *const u16),
                    *((entry + 14) as *const u16),
                )
            };
            pieces.push((addr, len, flags & 2 != 0));
            assert!(pieces.len() <= self.regs.num as usize, "descriptor loop");
            if flags & 1 == 0 {
                return Some((head, pieces));
            }
            at = next;
        }
    }

    /// Returns a chain. True when the driver wants an interrupt.
    pub fn give_back(&mut self, id: u32, len: u32) -> bool {
        let old = self.used;
        let entry = self.regs.device + 4 + 8 * (u64::from(old) % u64::from(self.regs.num));
        // SAFETY: the driver's used ring.
        unsafe { (entry as *mut [u32; 2]).write_volatile([id, len]) };
        self.used = old.wrapping_add(1);
        self.cell(self.regs.device + 2)
            .store(self.used, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self
                .cell(self.regs.driver + 4 + 2 * u64::from(self.regs.num))
                .load(Ordering::Acquire);
            self.used.wrapping_sub(event).wrapping_sub(1) < self.used.wrapping_sub(old)
        } else {
            self.cell(self.regs.driver).load(Ordering::Acquire) & 1 == 0
        }
    }

    /// Asks for a kick at the next available chain, or for none.
    pub fn want_kicks(&mut self, want: bool) {
        if self.event_idx {
            let event = if want {
                self.seen
            } else {
                self.seen.wrapping_sub(1)
            };
            self.cell(self.regs.device + 4 + 8 * u64::from(self.regs.num))
                .store(event, Ordering::Release);
        } else {
            self.cell(self.regs.device)
                .store(u16::from(!want), Ordering::Release);
        }
    }
}

/// Bytes of a device-readable piece.
pub fn bytes_of(piece: Piece) -> Vec<u8> {
    assert!(!piece.2);
    // SAFETY: memory that the driver lent to the device.
    unsafe { std::slice::from_raw_parts(piece.0 as *const u8, piece.1 as usize) }.to_vec()
}

/// Writes into a device-writable piece.
pub fn fill(piece: Piece, bytes: &[u8]) {
    assert!(piece.2 && bytes.len() <= piece.1 as usize);
    // SAFETY: memory that the driver lent to the device.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.0 as *mut u8, bytes.len()) }
}
