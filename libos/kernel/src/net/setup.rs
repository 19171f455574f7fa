//! The network cards that the configuration tells of (`unik_abi::config`, record `net`), made links when the network is first used.

use super::{SETUP_STACK, card, net};
use crate::arch::vcpu::Vcpu;
use crate::arch::{apic, nucleus};
use crate::sched::timers::{self, Action};
use crate::{arch, config, console, interrupts, time};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use unik_net::{LinkSetup, Net};

/// Where a card has to ask for its addresses, begins before the program does. Else nothing is done: a program that never uses the network
/// does not pay for the millisecond that a card takes.
pub fn start() {
    let asks = |record: &Vec<u8>| {
        let text = core::str::from_utf8(record).unwrap_or_default();
        let setup = parse(text.split_once(';').unwrap_or_default().1);
        setup.is_ok_and(|setup| setup.dhcp || setup.slaac)
    };
    if config::get().cards.iter().any(asks) {
        net();
        wait_for_addresses();
    }
}

/// Brings all announced cards up. One that cannot be used is reported, and missing.
pub(super) fn add_all(net: &Net) {
    for (index, record) in config::get().cards.iter().enumerate() {
        if let Err(reason) = add(net, index, record) {
            console::warn(&format!("network card {index} is not usable: {reason}"));
        }
    }
}

/// Longest wait for addresses, nanoseconds.
const PATIENCE: u64 = 3_000_000_000;

/// Waits until every card that asks the network for addresses has one: a program could do nothing with it before.
fn wait_for_addresses() {
    let (net, end) = (net(), time::now() + PATIENCE);
    let bell = timers::add(end, Action::Call(Rc::new(|| ())));
    while net.is_configuring() {
        super::poll();
        if time::now() >= end {
            console::warn("the network gives no addresses; going on without");
            break;
        }
        if net.is_configuring() && !super::rest() {
            let deadline = timers::idle_deadline().map_or(nucleus::KEEP_DEADLINE, time::to_tsc);
            apic::halt(deadline);
            interrupts::dispatch(Vcpu::this().take_vectors());
        }
    }
    timers::cancel(bell);
}

fn add(net: &Net, index: usize, record: &[u8]) -> Result<(), String> {
    let text = core::str::from_utf8(record).map_err(|error| format!("{error}"))?;
    let (window, wishes) = text.split_once(';').unwrap_or((text, ""));
    let window = config::number(window.as_bytes())
        .ok_or_else(|| format!("`{window}` is not the address of a register window"))?;
    let setup = LinkSetup {
        name: format!("eth{index}"),
        ..parse(wishes)?
    };
    let device = card::open(window).map_err(|error| format!("{error}"))?;
    arch::on_large_stack(SETUP_STACK, || net.add_link(device, &setup));
    Ok(())
}

/// Reads the keys of a record.
fn parse(wishes: &str) -> Result<LinkSetup, String> {
    let mut setup = LinkSetup::default();
    let mut given = false;
    for wish in wishes.split(';').filter(|wish| !wish.is_empty()) {
        let (key, value) = wish.split_once('=').unwrap_or((wish, ""));
        match (key, value) {
            ("ip", "dhcp") => setup.dhcp = true,
            ("ip", "auto") => setup.slaac = true,
            ("ip", address) => setup.addresses.push(network(address)?),
            ("gw", router) => match ip(router)? {
                IpAddr::V4(ip) => setup.gateway_v4 = Some(ip),
                IpAddr::V6(ip) => setup.gateway_v6 = Some(ip),
            },
            ("dns", server) => setup.dns.push(ip(server)?),
            _ => {}
        }
        given |= key == "ip";
    }
    (setup.dhcp, setup.slaac) = (setup.dhcp || !given, setup.slaac || !given);
    Ok(setup)
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address"))
}

/// `ADDRESS/BITS`.
fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is not an address with the length of its network");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let (address, bits): (IpAddr, u8) = (ip(address)?, bits.parse().map_err(|_| wrong())?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits))
        .filter(|_| bits <= most)
        .ok_or_else(wrong)
}
