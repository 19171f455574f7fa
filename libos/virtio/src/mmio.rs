//! A virtio-mmio (version 2) transport that costs few calls: writes wait and leave together with the next read.
//!
//! [`BatchedMmio`] implements [`Transport`] over a [`RegisterBus`]. A console comes up with three batches: what probing reads (identity,
//! offered features, configuration), then features and queue limits, then queues and DRIVER_OK. Values that the specification fixes are not read:
//! after a reset queues are not ready and no interrupt is pending (virtio 1.2, 4.2.2.1).
//! All accesses are 32 bits wide, those to configuration fields too.

use crate::bus::{RegOp, RegisterBus};
use crate::setup::DriverError;
use alloc::vec::Vec;
use core::cell::RefCell;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Register offsets (virtio 1.2, 4.2.2).
mod reg {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Length of a window, bytes.
const WINDOW_LEN: usize = 0x1000;
/// Most queues whose limit is read ahead.
const MAX_QUEUES: usize = 8;

/// What a driver will ask for, so that it can be read in the same batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefetch {
    /// Number of queues that the driver will set up (the first ones; 8 at most are read ahead).
    pub queues: u16,
    /// Number of 32-bit words of device configuration to read.
    pub config_words: u16,
    /// The type is known (announced by a monitor that is trusted in this): identity registers are not read.
    pub trust_type: bool,
}

/// Reads the identity of all `windows` in one batch: the device type of each, `None` for an empty or foreign window or version 1.
pub fn identify<B: RegisterBus>(bus: &B, windows: &[u64]) -> Vec<Option<DeviceType>> {
    let mut ops: Vec<RegOp> = windows
        .iter()
        .flat_map(|&w| [reg::MAGIC, reg::VERSION, reg::DEVICE_ID].map(|r| RegOp::read(w + r)))
        .collect();
    bus.run(&mut ops);
    ops.chunks(3)
        .map(|id| match (id[0].value, id[1].value) {
            (MAGIC, 2) => DeviceType::try_from(id[2].value).ok(),
            _ => None,
        })
        .collect()
}

/// A virtio-mmio register window driven in batches.
pub struct BatchedMmio<B: RegisterBus> {
    bus: B,
    paddr: u64,
    device: DeviceType,
    offered: u64,
    prefetch: Prefetch,
    config: Vec<u32>,
    state: RefCell<State>,
}

/// What is waiting and what is known of the device.
struct State {
    pending: Vec<RegOp>,
    status: DeviceStatus,
    selected: Option<u16>,
    queue_max: [Option<u32>; MAX_QUEUES],
    /// The device is as the probe left it: reset, then ACKNOWLEDGE and DRIVER set.
    fresh: bool,
}

impl<B: RegisterBus> BatchedMmio<B> {
    /// Resets the device in the window at `paddr`, tells it that a driver is here, and reads what `prefetch` wants: one batch.
    ///
    /// # Errors
    /// The window holds no virtio-mmio version 2 device of type `device`.
    pub fn probe(
        bus: B,
        paddr: u64,
        device: DeviceType,
        prefetch: Prefetch,
    ) -> Result<Self, DriverError> {
        let mut this = Self {
            bus,
            paddr,
            device,
            offered: 0,
            prefetch,
            config: Vec::new(),
            state: RefCell::new(State {
                pending: Vec::with_capacity(48),
                status: DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER,
                selected: None,
                queue_max: [None; MAX_QUEUES],
                fresh: true,
            }),
        };
        this.read_ahead()?;
        Ok(this)
    }

    fn read_ahead(&mut self) -> Result<(), DriverError> {
        let mut ops = Vec::with_capacity(16 + usize::from(self.prefetch.config_words));
        if !self.prefetch.trust_type {
            ops.extend(
                [reg::MAGIC, reg::VERSION, reg::DEVICE_ID].map(|r| RegOp::read(self.paddr + r)),
            );
        }
        let identity = ops.len();
        let status = self.paddr + reg::STATUS;
        ops.push(RegOp::write(status, 0));
        ops.push(RegOp::write(
            status,
            (DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).bits(),
        ));
        for word in 0..2 {
            ops.push(RegOp::write(self.paddr + reg::DEVICE_FEATURES_SEL, word));
            ops.push(RegOp::read(self.paddr + reg::DEVICE_FEATURES));
        }
        let config = ops.len();
        ops.extend(
            (0..u64::from(self.prefetch.config_words))
                .map(|i| RegOp::read(self.paddr + reg::CONFIG + 4 * i)),
        );
        self.bus.run(&mut ops);
        self.check_identity(&ops[..identity])?;
        self.offered = u64::from(ops[config - 3].value) | u64::from(ops[config - 1].value) << 32;
        self.config = ops[config..].iter().map(|op| op.value).collect();
        Ok(())
    }

    fn check_identity(&self, ops: &[RegOp]) -> Result<(), DriverError> {
        let [magic, version, id] = ops else {
            return Ok(());
        };
        if magic.value != MAGIC {
            return Err(DriverError::NotVirtio {
                paddr: self.paddr,
                magic: magic.value,
            });
        }
        if version.value != 2 {
            return Err(DriverError::Legacy(version.value));
        }
        if id.value != self.device as u32 {
            return Err(DriverError::WrongDevice {
                found: id.value,
                wanted: self.device,
            });
        }
        Ok(())
    }

    /// Sends the waiting writes.
    pub fn flush(&self) {
        let mut state = self.state.borrow_mut();
        if !state.pending.is_empty() {
            self.bus.run(&mut state.pending);
            state.pending.clear();
        }
    }

    fn post(&self, register: u64, value: u32) {
        self.state
            .borrow_mut()
            .pending
            .push(RegOp::write(self.paddr + register, value));
    }

    /// Sends the waiting writes followed by reads of `registers`; the results, in order.
    fn read_many<const N: usize>(&self, registers: [u64; N]) -> [u32; N] {
        let mut state = self.state.borrow_mut();
        let first = state.pending.len();
        state
            .pending
            .extend(registers.map(|r| RegOp::read(self.paddr + r)));
        self.bus.run(&mut state.pending);
        let values = core::array::from_fn(|i| state.pending[first + i].value);
        state.pending.clear();
        values
    }

    fn read(&self, register: u64) -> u32 {
        let [value] = self.read_many([register]);
        value
    }

    fn select(&self, queue: u16) {
        let mut state = self.state.borrow_mut();
        if state.selected != Some(queue) {
            state.selected = Some(queue);
            state
                .pending
                .push(RegOp::write(self.paddr + reg::QUEUE_SEL, queue.into()));
        }
    }

    /// Writes a 64-bit address as two registers. The upper half is 0 after a reset and is written only where it is not.
    fn post_address(&self, register: u64, address: PhysAddr) {
        self.post(register, address as u32);
        if address >> 32 != 0 {
            self.post(register + 4, (address >> 32) as u32);
        }
    }

    /// Reads the status and, in the same batch, the limits of the queues that the driver is about to set up.
    fn read_status_and_limits(&self) -> DeviceStatus {
        let queues = usize::from(self.prefetch.queues).min(MAX_QUEUES);
        let mut state = self.state.borrow_mut();
        let at = state.pending.len();
        state.pending.push(RegOp::read(self.paddr + reg::STATUS));
        for queue in 0..queues {
            state
                .pending
                .push(RegOp::write(self.paddr + reg::QUEUE_SEL, queue as u32));
            state
                .pending
                .push(RegOp::read(self.paddr + reg::QUEUE_NUM_MAX));
            state.selected = Some(queue as u16);
        }
        self.bus.run(&mut state.pending);
        for queue in 0..queues {
            state.queue_max[queue] = Some(state.pending[at + 2 + 2 * queue].value);
        }
        let status = DeviceStatus::from_bits_retain(state.pending[at].value);
        state.pending.clear();
        status
    }
}

impl<B: RegisterBus> Transport for BatchedMmio<B> {
    fn device_type(&self) -> DeviceType {
        self.device
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        for word in 0..2 {
            self.post(reg::DRIVER_FEATURES_SEL, word);
            self.post(
                reg::DRIVER_FEATURES,
                (driver_features >> (32 * word)) as u32,
            );
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        if let Some(Some(max)) = self.state.get_mut().queue_max.get(usize::from(queue)) {
            return *max;
        }
        self.select(queue);
        self.read(reg::QUEUE_NUM_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.flush();
        self.bus
            .doorbell(self.paddr + reg::QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        self.read_status_and_limits()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let state = self.state.get_mut();
        if state.fresh && (status.is_empty() || status == state.status) {
            return;
        }
        state.fresh = false;
        state.status = status;
        if status.is_empty() {
            state.selected = None;
        }
        self.post(reg::STATUS, status.bits());
        let urgent = DeviceStatus::DRIVER_OK | DeviceStatus::FAILED;
        if status.is_empty() || status.intersects(urgent) {
            self.flush();
        }
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.post(reg::QUEUE_NUM, size);
        self.post_address(reg::QUEUE_DESC, descriptors);
        self.post_address(reg::QUEUE_DRIVER, driver_area);
        self.post_address(reg::QUEUE_DEVICE, device_area);
        self.post(reg::QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.select(queue);
        self.post(reg::QUEUE_READY, 0);
        while self.read(reg::QUEUE_READY) != 0 {
            core::hint::spin_loop();
        }
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        if !self
            .state
            .get_mut()
            .status
            .contains(DeviceStatus::DRIVER_OK)
        {
            return false;
        }
        self.select(queue);
        self.read(reg::QUEUE_READY) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        // The queue bit is acknowledged in the batch that reads it: rings are looked at afterwards, so nothing can be missed.
        self.state
            .get_mut()
            .pending
            .push(RegOp::read(self.paddr + reg::INTERRUPT_STATUS));
        let at = self.state.get_mut().pending.len() - 1;
        self.post(reg::INTERRUPT_ACK, InterruptStatus::QUEUE_INTERRUPT.bits());
        let state = self.state.get_mut();
        self.bus.run(&mut state.pending);
        let status = InterruptStatus::from_bits_truncate(state.pending[at].value);
        state.pending.clear();
        if status.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT) {
            self.config.clear();
            self.post(
                reg::INTERRUPT_ACK,
                InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT.bits(),
            );
            self.flush();
        }
        status
    }

    fn read_config_generation(&self) -> u32 {
        self.read(reg::CONFIG_GENERATION)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let end = offset + size_of::<T>();
        if end > WINDOW_LEN - reg::CONFIG as usize {
            return Err(Error::ConfigSpaceTooSmall);
        }
        let mut value = T::new_zeroed();
        for (at, byte) in (offset..end).zip(value.as_mut_bytes()) {
            let word = match self.config.get(at / 4) {
                Some(&word) => word,
                None => self.read(reg::CONFIG + (at & !3) as u64),
            };
            *byte = word.to_le_bytes()[at % 4];
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        let bytes = value.as_bytes();
        if !offset.is_multiple_of(4) || !bytes.len().is_multiple_of(4) {
            return Err(Error::Unsupported);
        }
        if offset + bytes.len() > WINDOW_LEN - reg::CONFIG as usize {
            return Err(Error::ConfigSpaceTooSmall);
        }
        for (at, word) in bytes.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            self.post(reg::CONFIG + (offset + 4 * at) as u64, word);
        }
        self.flush();
        Ok(())
    }
}
