//! The split virtqueue (virtio 1.2, 2.7), driver side, with exact notification suppression in both directions.
//!
//! [`SplitQueue`] deals in physical ranges of DMA memory that the driver owns. Pushing does not publish: a driver pushes what it has,
//! then [`SplitQueue::publish`] makes all of it visible at once and says whether the device wants to be told.
//! Nothing that the device writes is believed: a used entry must name a chain that is with the device.

use crate::dma::Dma;
use crate::setup::DriverError;
use alloc::boxed::Box;
use alloc::vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, PAGE_SIZE, PhysAddr};

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// `struct virtq_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// A physically contiguous buffer.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Physical address.
    pub paddr: PhysAddr,
    /// Bytes, not 0.
    pub len: u32,
}

/// A chain that came back from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`SplitQueue::push`] returned.
    pub token: u16,
    /// Bytes that the device says it wrote; to be clamped by the driver.
    pub len: u32,
}

/// Where the device counts the chains it is done with, for whoever looks without holding the queue.
#[derive(Clone, Copy, Debug)]
pub struct RingWatch(NonNull<AtomicU16>);

impl RingWatch {
    /// The cell of the count.
    pub fn as_ptr(self) -> *mut AtomicU16 {
        self.0.as_ptr()
    }
}

/// One queue of a device.
pub struct SplitQueue<H: Hal> {
    area: Dma<H>,
    index: u16,
    size: u16,
    avail_at: usize,
    used_at: usize,
    /// Free descriptors form a list through `next`.
    free_head: u16,
    free: u16,
    next: Box<[u16]>,
    /// Number of descriptors of the chain that starts here and is with the device; 0 for all others.
    chain: Box<[u16]>,
    in_flight: u16,
    /// Pushed, published, and seen by [`Self::pop`].
    pushed: u16,
    published: u16,
    popped: u16,
    event_idx: bool,
    interrupts: bool,
    broken: bool,
}

impl<H: Hal> SplitQueue<H> {
    /// Allocates queue `index` with `size` entries (a power of two) and hands it to the device. Interrupts are off at first.
    ///
    /// # Errors
    /// The device's queue is smaller, or there is no memory.
    pub fn new<T: Transport>(
        transport: &mut T,
        index: u16,
        size: u16,
        event_idx: bool,
    ) -> Result<Self, DriverError> {
        debug_assert!(size.is_power_of_two());
        let max = transport.max_queue_size(index);
        if max < u32::from(size) {
            return Err(DriverError::QueueTooSmall {
                queue: index,
                max,
                wanted: size,
            });
        }
        let n = usize::from(size);
        let avail_at = n * size_of::<Descriptor>();
        let used_at = (avail_at + 6 + 2 * n).next_multiple_of(4);
        let area = Dma::new((used_at + 6 + 8 * n).div_ceil(PAGE_SIZE))?;
        transport.queue_set(
            index,
            size.into(),
            area.paddr(0),
            area.paddr(avail_at),
            area.paddr(used_at),
        );
        let mut this = Self {
            area,
            index,
            size,
            avail_at,
            used_at,
            free_head: 0,
            free: size,
            next: (1..=size).collect(),
            chain: vec![0; n].into_boxed_slice(),
            in_flight: 0,
            pushed: 0,
            published: 0,
            popped: 0,
            event_idx,
            interrupts: true,
            broken: false,
        };
        this.disable_interrupts();
        Ok(this)
    }

    /// Number of descriptors that are not in use.
    pub fn free(&self) -> usize {
        self.free.into()
    }

    /// Number of chains that are pushed and not yet popped.
    pub fn in_flight(&self) -> usize {
        self.in_flight.into()
    }

    /// The device broke the protocol; nothing comes out of this queue any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Adds a chain: buffers that the device reads, then buffers that it writes. Returns its token, or `None` when there are not enough
    /// descriptors. The device sees it after [`Self::publish`].
    ///
    /// # Safety
    /// The memory of the buffers must stay allocated until the chain was popped or the device reset, and what
    /// the device reads must not be changed, what it writes not be read, in between.
    pub unsafe fn push(&mut self, readable: &[Buffer], writable: &[Buffer]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count == 0 || count > self.free() {
            return None;
        }
        let head = self.free_head;
        let mut at = head;
        let all = readable
            .iter()
            .map(|b| (b, 0))
            .chain(writable.iter().map(|b| (b, DESC_WRITE)));
        for (i, (buffer, flags)) in all.enumerate() {
            let next = self.next[usize::from(at)];
            let more = if i + 1 < count { DESC_NEXT } else { 0 };
            self.write_descriptor(
                at,
                Descriptor {
                    addr: buffer.paddr,
                    len: buffer.len,
                    flags: flags | more,
                    next,
                },
            );
            at = next;
        }
        self.free_head = at;
        self.free -= count as u16;
        self.chain[usize::from(head)] = count as u16;
        self.in_flight += 1;
        self.set_avail_entry(self.pushed, head);
        self.pushed = self.pushed.wrapping_add(1);
        Some(head)
    }

    /// Shows the device everything pushed so far. True when it must be notified.
    #[must_use = "the device may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        let old = self.published;
        if old == self.pushed {
            return false;
        }
        self.published = self.pushed;
        self.avail_idx().store(self.pushed, Ordering::Release);
        // The store must be visible before the device's wish is read: it does the same two steps the other way round.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.avail_event().load(Ordering::Acquire);
            needs_event(event, self.pushed, old)
        } else {
            self.used_flags().load(Ordering::Acquire) & USED_NO_NOTIFY == 0
        }
    }

    /// [`Self::publish`] and, where the device wants it, the notification.
    pub fn submit<T: Transport>(&mut self, transport: &mut T) {
        if self.publish() {
            transport.notify(self.index);
        }
    }

    /// True when [`Self::pop`] would return a chain.
    pub fn can_pop(&self) -> bool {
        !self.broken && self.used_idx().load(Ordering::Acquire) != self.popped
    }

    /// Number of chains popped so far, modulo 2^16: what [`Self::watch`] counts while nothing is new.
    pub fn popped(&self) -> u16 {
        self.popped
    }

    /// The device's count of finished chains. It can be read as long as the queue lives.
    pub fn watch(&self) -> RingWatch {
        RingWatch(self.area.ptr(self.used_at + 2).cast())
    }

    /// Takes back the next chain that the device is done with.
    ///
    /// # Errors
    /// [`DriverError::Broken`], now and ever after, when the device returns what it does not have.
    pub fn pop(&mut self) -> Result<Option<Used>, DriverError> {
        if self.broken {
            return Err(DriverError::Broken(self.index));
        }
        let ready = self
            .used_idx()
            .load(Ordering::Acquire)
            .wrapping_sub(self.popped);
        if ready == 0 {
            return Ok(None);
        }
        let (id, len) = self.used_entry(self.popped);
        let count = u16::try_from(id)
            .ok()
            .and_then(|id| self.chain.get(usize::from(id)))
            .copied()
            .unwrap_or(0);
        if count == 0 || ready > self.in_flight {
            self.broken = true;
            return Err(DriverError::Broken(self.index));
        }
        let token = id as u16;
        self.recycle(token, count);
        self.popped = self.popped.wrapping_add(1);
        if self.interrupts && self.event_idx {
            self.used_event().store(self.popped, Ordering::Release);
            // Before the next look at the ring, for the same reason as in `publish`.
            fence(Ordering::SeqCst);
        }
        Ok(Some(Used { token, len }))
    }

    /// Asks for an interrupt at the next used chain. True when one is there already: look again instead of sleeping.
    pub fn enable_interrupts(&mut self) -> bool {
        self.interrupts = true;
        if self.event_idx {
            self.used_event().store(self.popped, Ordering::Release);
        } else {
            self.avail_flags().store(0, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        self.can_pop()
    }

    /// Asks for one interrupt, when `more` chains and one are done. True when so many are done already: look again instead of sleeping.
    /// Where the device knows only on and off, the interrupt comes at the next chain, and more follow until [`Self::disable_interrupts`].
    pub fn arm(&mut self, more: u16) -> bool {
        self.interrupts = false;
        if self.event_idx {
            self.used_event()
                .store(self.popped.wrapping_add(more), Ordering::Release);
        } else {
            self.avail_flags().store(0, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        let done = self.used_idx().load(Ordering::Acquire);
        !self.broken && done.wrapping_sub(self.popped) > more
    }

    /// Asks for no interrupts. One may still come.
    pub fn disable_interrupts(&mut self) {
        self.interrupts = false;
        if self.event_idx {
            self.used_event()
                .store(self.popped.wrapping_sub(1), Ordering::Release);
        } else {
            self.avail_flags()
                .store(AVAIL_NO_INTERRUPT, Ordering::Release);
        }
    }

    /// Puts the `count` descriptors of the chain at `head` back on the free list, hottest first.
    fn recycle(&mut self, head: u16, count: u16) {
        let mut last = head;
        for _ in 1..count {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.free_head;
        self.free_head = head;
        self.free += count;
        self.chain[usize::from(head)] = 0;
        self.in_flight -= 1;
    }

    fn write_descriptor(&mut self, at: u16, descriptor: Descriptor) {
        debug_assert!(at < self.size);
        let offset = usize::from(at) * size_of::<Descriptor>();
        // SAFETY: `at` is below the queue size, so the 16-byte aligned slot is inside the area that this queue owns;
        // the device does not look at a free descriptor.
        unsafe {
            self.area
                .ptr(offset)
                .cast::<Descriptor>()
                .write_volatile(descriptor)
        }
    }

    fn set_avail_entry(&mut self, position: u16, head: u16) {
        self.cell(self.avail_at + 4 + 2 * usize::from(position % self.size))
            .store(head, Ordering::Relaxed);
    }

    fn used_entry(&self, position: u16) -> (u32, u32) {
        let offset = self.used_at + 4 + 8 * usize::from(position % self.size);
        // SAFETY: the entry is 4-byte aligned and inside the area; the device finished it before it moved `idx`. Volatile: it may still write.
        let [id, len] = unsafe { self.area.ptr(offset).cast::<[u32; 2]>().read_volatile() };
        (id, len)
    }

    fn cell(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: all ring cells are 2-byte aligned, inside the area, live as long as `self`, and are only accessed atomically.
        unsafe { AtomicU16::from_ptr(self.area.ptr(offset).cast::<u16>().as_ptr()) }
    }

    fn avail_flags(&self) -> &AtomicU16 {
        self.cell(self.avail_at)
    }

    fn avail_idx(&self) -> &AtomicU16 {
        self.cell(self.avail_at + 2)
    }

    fn used_event(&self) -> &AtomicU16 {
        self.cell(self.avail_at + 4 + 2 * usize::from(self.size))
    }

    fn used_flags(&self) -> &AtomicU16 {
        self.cell(self.used_at)
    }

    fn used_idx(&self) -> &AtomicU16 {
        self.cell(self.used_at + 2)
    }

    fn avail_event(&self) -> &AtomicU16 {
        self.cell(self.used_at + 4 + 8 * usize::from(self.size))
    }
}

/// True when moving from `old` to `new` passes `event` (virtio 1.2, 2.7.10: `vring_need_event`).
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
