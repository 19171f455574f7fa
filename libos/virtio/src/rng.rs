//! Entropy from a virtio-rng device (virtio 1.2, 5.4).

use crate::dma::Dma;
use crate::queue::{Buffer, SplitQueue};
use crate::setup::{DriverError, F_EVENT_IDX, finish, negotiate};
use virtio_drivers::transport::{DeviceStatus, InterruptStatus, Transport};
use virtio_drivers::{Hal, PAGE_SIZE};

/// Number of queues to prefetch for this driver.
pub const QUEUES: u16 = 1;

/// An entropy device.
pub struct Rng<H: Hal, T: Transport> {
    transport: T,
    queue: SplitQueue<H>,
    page: Dma<H>,
}

impl<H: Hal, T: Transport> Rng<H, T> {
    /// Brings the device up. `transport` should have prefetched [`QUEUES`] queues.
    ///
    /// # Errors
    /// The device is too old, or there is no memory.
    pub fn new(mut transport: T) -> Result<Self, DriverError> {
        let features = negotiate(&mut transport, F_EVENT_IDX)?;
        let queue = SplitQueue::new(&mut transport, 0, 2, features & F_EVENT_IDX != 0)?;
        let page = Dma::new(1)?;
        finish(&mut transport);
        Ok(Self {
            transport,
            queue,
            page,
        })
    }

    /// Asks for up to `len` bytes (at most a page) unless a request is on its way already. An interrupt comes when they are there if `interrupt` is set.
    pub fn request(&mut self, len: usize, interrupt: bool) {
        if self.queue.in_flight() > 0 || len == 0 {
            return;
        }
        let buffer = Buffer {
            paddr: self.page.paddr(0),
            len: len.min(PAGE_SIZE) as u32,
        };
        // SAFETY: the page lives as long as the queue and is read only after the chain was popped.
        unsafe { self.queue.push(&[], &[buffer]) };
        if interrupt {
            self.queue.enable_interrupts();
        } else {
            self.queue.disable_interrupts();
        }
        self.queue.submit(&mut self.transport);
    }

    /// Takes the answer to [`Self::request`]: how many bytes were stored in `buf`, or `None` when it is not there yet.
    ///
    /// # Errors
    /// The device broke the protocol.
    pub fn poll(&mut self, buf: &mut [u8]) -> Result<Option<usize>, DriverError> {
        let Some(used) = self.queue.pop()? else {
            return Ok(None);
        };
        let len = (used.len as usize).min(PAGE_SIZE).min(buf.len());
        self.page.read(0, &mut buf[..len]);
        // Entropy is used once.
        self.page.write(0, &[0; PAGE_SIZE][..len]);
        Ok(Some(len))
    }

    /// Fills `buf`, spinning `spins` times at most for each answer. Returns how many bytes were stored.
    ///
    /// # Errors
    /// The device broke the protocol.
    pub fn fill(&mut self, buf: &mut [u8], spins: usize) -> Result<usize, DriverError> {
        let mut done = 0;
        while done < buf.len() {
            self.request(buf.len() - done, false);
            let mut left = spins;
            let got = loop {
                if let Some(got) = self.poll(&mut buf[done..])? {
                    break got;
                }
                if left == 0 {
                    return Ok(done);
                }
                left -= 1;
                core::hint::spin_loop();
            };
            if got == 0 {
                break;
            }
            done += got;
        }
        Ok(done)
    }

    /// Acknowledges the device's interrupt.
    pub fn ack_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }
}

impl<H: Hal, T: Transport> Drop for Rng<H, T> {
    fn drop(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
    }
}
