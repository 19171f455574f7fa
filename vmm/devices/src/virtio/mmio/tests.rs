//! The window against drivers that do everything in the wrong order.

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::virtio::testing::{
    Driver, INDIRECT, NEXT, WRITE, bring_up, get, memory, negotiate, set, set_up_queue,
};

/// A device that only counts resets.
#[derive(Default)]
struct Plain {
    resets: u32,
}

impl Device for Plain {
    const KIND: u32 = 42;
    const FEATURES: u64 = 1 << 3;
    const QUEUES: &'static [u16] = &[8, 16];

    fn config(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }

    fn reset(&mut self) {
        self.resets += 1;
    }
}

fn window() -> (Mmio<Plain>, GuestMemoryMmap) {
    (Mmio::new(Plain::default()), memory())
}

#[test]
fn identity_and_limits() {
    let (mut mmio, mem) = window();
    assert_eq!(
        [0x00, 0x04, 0x08].map(|o| get(&mmio, o)),
        [0x7472_6976, 2, 42]
    );
    let limits: Vec<u32> = (0..3)
        .map(|q| {
            set(&mut mmio, &mem, 0x30, q);
            get(&mmio, 0x34)
        })
        .collect();
    assert_eq!(limits, [8, 16, 0]);
    let features: Vec<u32> = (0..3)
        .map(|p| {
            set(&mut mmio, &mem, 0x14, p);
            get(&mmio, 0x10)
        })
        .collect();
    assert_eq!(features, [1 << 29 | 1 << 3, 1, 0]);
}

#[test]
fn odd_accesses_do_nothing() {
    let (mut mmio, mem) = window();
    for len in [0, 1, 2, 3, 5, 8] {
        let mut data = vec![0xee; len];
        mmio.read(0, &mut data);
        assert!(data.iter().all(|&b| b == 0xee));
        assert_eq!(mmio.write(0x70, &data, &mem), Effect::None);
    }
    for offset in (0..0x1000).step_by(4).filter(|&o| o != 0x70) {
        set(&mut mmio, &mem, offset, u32::MAX);
        get(&mmio, offset);
    }
    let mut config = [0xee; 8];
    mmio.read(0x101, &mut config);
    assert_eq!(config, [2, 3, 0, 0, 0, 0, 0, 0]);
    mmio.read(u64::MAX, &mut config);
    assert_eq!(config, [0; 8]);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [0, 1 << 3, F_VERSION_1 | 1 << 5, u64::MAX] {
        let (mut mmio, mem) = window();
        negotiate(&mut mmio, &mem, features);
        assert_eq!(get(&mmio, 0x70), 3, "{features:#x}");
        assert_eq!(set(&mut mmio, &mem, 0x70, 0xf), Effect::None);
        assert!(!mmio.live());
    }
}

#[test]
fn settings_are_frozen() {
    let (mut mmio, mem) = window();
    assert_eq!(bring_up(&mut mmio, &mem, false), Effect::Ready);
    set(&mut mmio, &mem, 0x30, 0);
    for (offset, value) in [
        (0x44, 0),
        (0x38, 4),
        (0x80, 0xdead_0000),
        (0xa4, 1),
        (0x20, u32::MAX),
    ] {
        set(&mut mmio, &mem, offset, value);
    }
    let state = mmio.rings[0].registers().state();
    assert_eq!(
        (state.size, state.desc_table, state.used_ring, state.ready),
        (8, 0x1_0000, 0x1_8000, true)
    );
    assert_eq!(mmio.state.accepted, F_VERSION_1);
}

#[test]
fn a_ready_queue_is_frozen_before_the_device_is() {
    let (mut mmio, mem) = window();
    negotiate(&mut mmio, &mem, F_VERSION_1);
    set_up_queue(&mut mmio, &mem, 0);
    set(&mut mmio, &mem, 0x80, 0);
    assert_eq!(mmio.rings[0].registers().desc_table(), 0x1_0000);
    set(&mut mmio, &mem, 0x44, 0);
    set(&mut mmio, &mem, 0x80, 0);
    assert_eq!(mmio.rings[0].registers().desc_table(), 0);
}

#[test]
fn rings_outside_memory_put_the_device_out_of_service() {
    let (mut mmio, mem) = window();
    negotiate(&mut mmio, &mem, F_VERSION_1);
    for (offset, value) in [
        (0x30, 1),
        (0x80, 0xffff_0000),
        (0x90, 0x1000),
        (0xa0, 0x2000),
        (0x44, 1),
    ] {
        set(&mut mmio, &mem, offset, value);
    }
    assert_eq!(set(&mut mmio, &mem, 0x70, 0xf), Effect::None);
    assert_eq!(get(&mmio, 0x70) & 0x40, 0x40);
    assert!(!mmio.live() && mmio.take_interrupt());
    assert_eq!(mmio.work(|_, _| Ok(((), false))), None);
    assert_eq!(set(&mut mmio, &mem, QUEUE_NOTIFY, 1), Effect::None);
    assert_eq!(bring_up(&mut mmio, &mem, false), Effect::Ready);
    assert_eq!(mmio.device().resets, 2);
}

#[test]
fn doorbells_only_of_queues_that_there_are() {
    let (mut mmio, mem) = window();
    assert_eq!(set(&mut mmio, &mem, QUEUE_NOTIFY, 0), Effect::None);
    bring_up(&mut mmio, &mem, false);
    assert_eq!(set(&mut mmio, &mem, QUEUE_NOTIFY, 1), Effect::Doorbell(1));
    assert_eq!(set(&mut mmio, &mem, QUEUE_NOTIFY, 2), Effect::None);
    assert_eq!(set(&mut mmio, &mem, QUEUE_NOTIFY, 0x1_0000), Effect::None);
}

#[test]
fn interrupts_rise_and_are_acknowledged() {
    let (mut mmio, mem) = window();
    bring_up(&mut mmio, &mem, false);
    assert_eq!(mmio.work(|_, _| Ok((7, true))), Some(7));
    assert!(mmio.take_interrupt() && !mmio.take_interrupt());
    assert_eq!(get(&mmio, 0x60), 1);
    assert_eq!(set(&mut mmio, &mem, 0x64, 1), Effect::Acknowledged);
    assert_eq!(get(&mmio, 0x60), 0);
}

/// What a pop of queue 0 gives after `prepare`.
fn pop(prepare: impl FnOnce(&mut Driver)) -> Option<Option<crate::virtio::ring::Chain>> {
    let (mut mmio, mem) = window();
    bring_up(&mut mmio, &mem, false);
    prepare(&mut Driver::new(&mem, 0));
    mmio.work(|_, rings| Ok((rings[0].pop(&mem)?, false)))
}

#[test]
fn a_good_chain_is_taken_apart() {
    let chain = pop(|driver| {
        driver.chain(&[(0x100, 5, false), (0x200, 6, true), (0x300, 7, true)]);
    });
    let chain = chain.unwrap().unwrap();
    assert_eq!(
        (chain.head, chain.readable.len(), chain.writable.len()),
        (0, 1, 2)
    );
}

#[test]
fn hostile_chains_break_the_device() {
    type Prepare = fn(&mut Driver<'_>);
    let hostile: [(&str, Prepare); 9] = [
        ("outside memory", |d| {
            d.chain(&[(1 << 30, 1, false)]);
        }),
        ("tail outside memory", |d| {
            d.chain(&[
                (0x1000, 1, false),
                (super::super::testing::RAM - 1, 2, false),
            ]);
        }),
        ("wraps around", |d| {
            d.chain(&[(u64::MAX, 2, false)]);
        }),
        ("a loop", |d| {
            d.descriptor(0, 0x1000, 1, NEXT, 1);
            d.descriptor(1, 0x1000, 1, NEXT, 0);
            d.offer(0)
        }),
        ("head outside the table", |d| d.offer(8)),
        ("readable behind writable", |d| {
            d.chain(&[(0x1000, 1, true), (0x1000, 1, false)]);
        }),
        ("index too far", |d| d.set_avail_index(9)),
        ("indirect, not negotiated, outside", |d| {
            d.descriptor(0, 1 << 40, 32, INDIRECT, 0);
            d.offer(0)
        }),
        ("writable outside", |d| {
            d.descriptor(0, RAM_END, 1, WRITE, 0);
            d.offer(0)
        }),
    ];
    const RAM_END: u64 = super::super::testing::RAM;
    for (name, prepare) in hostile {
        assert_eq!(pop(prepare), None, "{name}");
    }
}

#[test]
fn a_driver_with_event_indices_says_when() {
    let (mut mmio, mem) = window();
    bring_up(&mut mmio, &mem, true);
    let mut driver = Driver::new(&mem, 0);
    driver.set_used_event(1);
    for wanted in [false, true, false] {
        driver.chain(&[(0x1000, 1, false)]);
        let got = mmio.work(|_, rings| {
            let chain = rings[0].pop(&mem)?.unwrap();
            rings[0].push(&mem, chain.head, 0)?;
            Ok((rings[0].wants_interrupt(&mem)?, false))
        });
        assert_eq!(got, Some(wanted));
    }
}

#[test]
fn a_driver_without_event_indices_can_refuse_interrupts() {
    let (mut mmio, mem) = window();
    bring_up(&mut mmio, &mem, false);
    let mut driver = Driver::new(&mem, 0);
    for (flags, wanted) in [(0, true), (1, false), (0, true)] {
        driver.set_flags(flags);
        driver.chain(&[(0x1000, 1, false)]);
        let got = mmio.work(|_, rings| {
            let chain = rings[0].pop(&mem)?.unwrap();
            rings[0].push(&mem, chain.head, 0)?;
            Ok((rings[0].wants_interrupt(&mem)?, false))
        });
        assert_eq!(got, Some(wanted));
    }
}
