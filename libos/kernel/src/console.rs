//! The standard streams on virtio-console, and the library OS's own messages.

use crate::arch::nucleus::{self, RegisterOp};
use crate::arch::vcpu::Vectors;
use crate::lock::Locked;
use crate::mm::frames;
use crate::{config, interrupts};
use alloc::collections::VecDeque;
use alloc::string::String;
use core::ptr::NonNull;
use unik_abi::control::{BATCH_LEN, Phase, RegisterAccess, RegisterBatch};
use unik_abi::layout::{IMAGE_PADDR, LIBOS_VADDR, PHYSMAP_VADDR};
use unik_fs::wait::{WaitQueue, ready};
use unik_virtio::bus::{RegOp, RegisterBus};
use unik_virtio::console::{Console, QUEUES, ReadOutcome};
use unik_virtio::mmio::{BatchedMmio, Prefetch};
use unik_virtio::{BufferDirection, DeviceType, Hal, PhysAddr};

/// Register access through the nucleus, doorbells directly.
#[derive(Clone, Copy)]
pub struct Bus;

/// The list handed to the monitor by [`unik_abi::control::PORT_BATCH`].
static BATCH: Locked<RegisterBatch> = Locked::new(RegisterBatch {
    count: 0,
    reserved: 0,
    accesses: [RegisterAccess {
        paddr: 0,
        value: 0,
        write: 0,
    }; BATCH_LEN],
});

/// All accesses in one exit.
fn run_batch(port: u16, ops: &mut [RegOp]) {
    let paddr = BATCH.as_ptr() as u64 - LIBOS_VADDR + IMAGE_PADDR;
    for chunk in ops.chunks_mut(BATCH_LEN) {
        let mut batch = BATCH.get();
        batch.count = chunk.len() as u32;
        for (access, op) in batch.accesses.iter_mut().zip(chunk.iter()) {
            *access = RegisterAccess {
                paddr: op.paddr,
                value: op.value,
                write: (op.kind == RegOp::WRITE) as u32,
            };
        }
        drop(batch);
        nucleus::out32(port, paddr as u32);
        let batch = BATCH.get();
        // SAFETY: in bounds; the monitor wrote behind the compiler's back.
        let result =
            |index: usize| unsafe { (&raw const batch.accesses[index].value).read_volatile() };
        chunk
            .iter_mut()
            .enumerate()
            .for_each(|(index, op)| op.value = result(index));
    }
}

impl RegisterBus for Bus {
    fn run(&self, ops: &mut [RegOp]) {
        if let Some(port) = config::get().batch {
            return run_batch(port, ops);
        }
        let mut list: alloc::vec::Vec<RegisterOp> = ops
            .iter()
            .map(|op| RegisterOp {
                address: PHYSMAP_VADDR + op.paddr,
                value: op.value,
                write: (op.kind == RegOp::WRITE) as u32,
            })
            .collect();
        nucleus::registers(&mut list);
        ops.iter_mut()
            .zip(list)
            .for_each(|(op, done)| op.value = done.value);
    }

    fn doorbell(&self, paddr: u64, value: u32) {
        // SAFETY: a doorbell register of a virtio-mmio window, mapped by the physmap.
        unsafe { (frames::virt(paddr) as *mut u32).write_volatile(value) };
    }
}

/// DMA memory: frames, which are all mapped for ever.
pub struct Dma;

// SAFETY: frames are page-aligned, zeroed, exclusive until freed; the physmap maps them for ever; devices see physical addresses.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let paddr = frames::alloc_contiguous(pages).unwrap_or(0);
        (
            paddr,
            NonNull::new(frames::virt(paddr)).unwrap_or(NonNull::dangling()),
        )
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        frames::free(paddr, pages);
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(frames::virt(paddr)).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.as_ptr() as *mut u8 as u64 - PHYSMAP_VADDR
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

type Port = Console<Dma, BatchedMmio<Bus>>;

struct Device {
    port: Option<Port>,
    /// Bring-up was tried and failed: fall back to the debug port.
    broken: bool,
    routed: bool,
}

impl Device {
    const NEW: Self = Self {
        port: None,
        broken: false,
        routed: false,
    };

    /// The driver, brought up at its first use.
    fn port(&mut self, window: Option<u64>) -> Option<&mut Port> {
        if self.port.is_none() && !self.broken {
            self.port = window.and_then(|paddr| {
                let prefetch = Prefetch {
                    queues: QUEUES,
                    config_words: 0,
                    trust_type: true,
                };
                let transport =
                    BatchedMmio::probe(Bus, paddr, DeviceType::Console, prefetch).ok()?;
                Console::new(transport).ok()
            });
            self.broken = self.port.is_none();
        }
        self.port.as_mut()
    }
}

static DEVICES: Locked<[Device; 2]> = Locked::new([Device::NEW, Device::NEW]);
/// Which device was written to last: the other waits until that one is drained, so that the order of output is kept.
static LAST: Locked<usize> = Locked::new(0);

/// Wait queues of the two devices.
pub struct Queues(pub [WaitQueue; 2]);
static QUEUES_OF: Locked<Option<alloc::rc::Rc<Queues>>> = Locked::new(None);

/// Who waits for the consoles.
pub fn queues() -> alloc::rc::Rc<Queues> {
    QUEUES_OF
        .get()
        .get_or_insert_with(|| alloc::rc::Rc::new(Queues([WaitQueue::new(), WaitQueue::new()])))
        .clone()
}

/// Writes to stream 0 (standard output) or 1 (standard error): how many bytes were taken now.
pub fn write(stream: usize, bytes: &[u8]) -> usize {
    crate::power::stamp_once(Phase::Main);
    keep_order(stream);
    let mut devices = DEVICES.get();
    match devices[stream].port(config::get().consoles[stream]) {
        Some(port) => port.write(bytes).unwrap_or(bytes.len()),
        None => {
            nucleus::debug_write(bytes);
            bytes.len()
        }
    }
}

fn keep_order(stream: usize) {
    let last = core::mem::replace(&mut *LAST.get(), stream);
    if last != stream {
        drain(last, 20_000_000);
    }
}

/// Waits until the device took everything, at most `limit` nanoseconds.
fn drain(stream: usize, limit: u64) {
    let end = crate::time::now() + limit;
    let mut asked = false;
    loop {
        let mut devices = DEVICES.get();
        let Some(port) = devices[stream].port.as_mut() else {
            return;
        };
        if port.drained() || crate::time::now() > end {
            return;
        }
        if !core::mem::replace(&mut asked, true) {
            port.hurry();
        }
        drop(devices);
        crate::arch::pause();
    }
}

/// Waits until all output is with the monitor.
pub fn drain_all() {
    drain(0, 1_000_000_000);
    drain(1, 1_000_000_000);
}

/// Reads standard input: `None` when nothing is there yet (an interrupt will come), 0 at its end.
pub fn read(out: &mut [u8]) -> Option<usize> {
    if config::get().input_end.is_empty() {
        return read_device(out);
    }
    let mut input = INPUT.get();
    loop {
        let ready = input.ready();
        if ready > 0 || input.ended || out.is_empty() {
            let len = ready.min(out.len());
            out[..len]
                .iter_mut()
                .zip(input.held.drain(..len))
                .for_each(|(to, from)| *to = from);
            return Some(len);
        }
        let mut chunk = [0; 512];
        match read_device(&mut chunk)? {
            0 => input.ended = true,
            len => input.held.extend(&chunk[..len]),
        }
    }
}

/// Input of a console that cannot say that it has ended: marked by bytes in it (`console.eof`).
struct Marked {
    held: VecDeque<u8>,
    ended: bool,
}

static INPUT: Locked<Marked> = Locked::new(Marked {
    held: VecDeque::new(),
    ended: false,
});

impl Marked {
    /// How many held bytes are input for certain: all before the mark, or before what may be its beginning. Takes the mark away.
    fn ready(&mut self) -> usize {
        if self.ended {
            return self.held.len();
        }
        let mark = &config::get().input_end;
        let held = self.held.make_contiguous();
        let at = (0..held.len()).find(|&at| {
            let rest = &held[at..];
            rest.starts_with(mark) || mark.starts_with(rest)
        });
        let at = at.unwrap_or(held.len());
        if held.len() - at >= mark.len() {
            self.held.truncate(at);
            self.ended = true;
        }
        at
    }
}

fn read_device(out: &mut [u8]) -> Option<usize> {
    route(0);
    let mut devices = DEVICES.get();
    match devices[0]
        .port(config::get().consoles[0])
        .map(|port| port.read(out))
    {
        Some(Ok(ReadOutcome::Data(count))) => Some(count),
        Some(Ok(ReadOutcome::WouldBlock)) => None,
        _ => Some(0),
    }
}

/// Whether a write would take something.
pub fn writable(stream: usize) -> bool {
    if DEVICES.get()[stream].port.is_none() {
        return true; // nothing was written yet
    }
    route(stream);
    let mut devices = DEVICES.get();
    devices[stream]
        .port(config::get().consoles[stream])
        .is_none_or(|port| port.writable())
}

fn gsi_of(stream: usize) -> Option<u32> {
    interrupts::gsi_of(config::get().consoles[stream]?)
}

/// Routes the device's interrupt, once.
fn route(stream: usize) {
    let mut devices = DEVICES.get();
    if core::mem::replace(&mut devices[stream].routed, true) {
        return;
    }
    if let Some(gsi) = gsi_of(stream) {
        interrupts::route(gsi);
    }
}

/// Handles the consoles' interrupts.
pub fn interrupt(vectors: Vectors) {
    for stream in 0..2 {
        let Some(gsi) = gsi_of(stream) else { continue };
        if !interrupts::has(vectors, gsi) {
            continue;
        }
        if let Some(port) = DEVICES.get()[stream].port.as_mut() {
            port.ack_interrupt();
        }
        queues().0[stream].wake(ready::IN | ready::OUT);
    }
}

/// Says something to the user on standard error, as Unik.
pub fn warn(text: &str) {
    let line = alloc::format!("unik: {text}\n");
    say(&line);
}

fn say(line: &String) {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        let taken = write(1, rest);
        rest = &rest[taken..];
        if taken == 0 {
            drain(1, 1_000_000_000);
        }
    }
}
