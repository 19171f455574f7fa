//! Edges, levels, masks, and registers that are not there.

use super::*;

fn set(chip: &mut IoApic, select: u32, value: u32) -> Effect {
    chip.write(0, &select.to_le_bytes());
    chip.write(0x10, &value.to_le_bytes())
}

fn get(chip: &mut IoApic, select: u32) -> u32 {
    let mut bytes = [0; 4];
    chip.write(0, &select.to_le_bytes());
    chip.read(0x10, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Routes pin 5 to `low` at APIC 3.
fn route(chip: &mut IoApic, low: u32) -> Effect {
    set(chip, 0x10 + 11, 3 << 24);
    set(chip, 0x10 + 10, low)
}

#[test]
fn identity() {
    let mut chip = IoApic::default();
    assert_eq!(get(&mut chip, 1), 0x0017_0011);
    assert_eq!(get(&mut chip, 0x10), 0x1_0000);
    set(&mut chip, 0, u32::MAX);
    assert_eq!(get(&mut chip, 0), 0x0f00_0000);
}

#[test]
fn every_register_and_width_is_harmless() {
    let mut chip = IoApic::default();
    for select in 0..=u32::from(u8::MAX) {
        set(&mut chip, select, u32::MAX);
        get(&mut chip, select);
    }
    for len in 0..16 {
        let mut data = vec![0xff; len];
        chip.write(0x10, &data);
        chip.read(0x10, &mut data);
        chip.read(0xff8, &mut data);
    }
    assert_eq!(chip.raise(24), None);
    chip.lower(99);
}

#[test]
fn an_edge_sends_each_time() {
    let mut chip = IoApic::default();
    assert!(!route(&mut chip, 0x35).routes_changed);
    let message = Message {
        address: 0xfee0_3000,
        data: 0x35,
    };
    assert_eq!([chip.raise(5), chip.raise(5)], [Some(message); 2]);
    assert!(chip.end_of_interrupt(0x35).is_empty());
}

#[test]
fn an_edge_while_masked_is_not_lost() {
    let mut chip = IoApic::default();
    route(&mut chip, 0x1_0035);
    assert_eq!(chip.raise(5), None);
    assert!(route(&mut chip, 0x35).send.is_some());
    assert_eq!(route(&mut chip, 0x35).send, None);
}

#[test]
fn a_level_sends_again_only_while_it_is_up() {
    let mut chip = IoApic::default();
    assert!(route(&mut chip, 0x8035).routes_changed);
    assert_eq!(
        chip.level_routes(),
        [(
            5,
            Message {
                address: 0xfee0_3000,
                data: 0xc035
            }
        )]
    );
    assert!(chip.raise(5).is_some());
    assert_eq!(chip.raise(5), None);
    assert_eq!(chip.end_of_interrupt(0x35).len(), 1);
    chip.lower(5);
    assert!(chip.end_of_interrupt(0x35).is_empty());
    assert!(chip.raise(5).is_some());
    assert!(chip.end_of_interrupt(0x36).is_empty());
}

#[test]
fn logical_destinations_and_delivery_modes_pass() {
    let mut chip = IoApic::default();
    set(&mut chip, 0x11, 0xff00_0000);
    set(&mut chip, 0x10, 0x0940);
    assert_eq!(
        chip.raise(0),
        Some(Message {
            address: 0xfeef_f004,
            data: 0x140
        })
    );
}
