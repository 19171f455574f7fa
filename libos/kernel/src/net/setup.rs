//! The network cards that the configuration tells of (`unik_abi::config`, record `net`), made links at start.

use super::{SETUP_STACK, card, net};
use crate::{arch, config, console};
use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;
use unik_net::LinkSetup;

/// Brings all announced cards up. One that cannot be used is reported, and missing.
pub fn start() {
    for (index, record) in config::get().cards.iter().enumerate() {
        if let Err(reason) = add(index, record) {
            console::warn(&format!("network card {index} is not usable: {reason}"));
        }
    }
}

fn add(index: usize, record: &[u8]) -> Result<(), alloc::string::String> {
    let text = core::str::from_utf8(record).map_err(|error| format!("{error}"))?;
    let (window, wishes) = text.split_once(';').unwrap_or((text, ""));
    let window = config::number(window.as_bytes())
        .ok_or_else(|| format!("`{window}` is not the address of a register window"))?;
    let setup = LinkSetup {
        name: format!("eth{index}"),
        ..parse(wishes)?
    };
    let device = card::open(window).map_err(|error| format!("{error}"))?;
    let net = net();
    arch::on_large_stack(SETUP_STACK, || net.add_link(device, &setup));
    Ok(())
}

/// Reads the keys of a record.
fn parse(wishes: &str) -> Result<LinkSetup, alloc::string::String> {
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

fn ip(text: &str) -> Result<IpAddr, alloc::string::String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address"))
}

/// `ADDRESS/BITS`.
fn network(text: &str) -> Result<(IpAddr, u8), alloc::string::String> {
    let wrong = || format!("`{text}` is not an address with the length of its network");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let (address, bits): (IpAddr, u8) = (ip(address)?, bits.parse().map_err(|_| wrong())?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits))
        .filter(|_| bits <= most)
        .ok_or_else(wrong)
}

/// Name servers: those of the records, then those that DHCP gave.
pub fn name_servers() -> Vec<IpAddr> {
    if card::any() {
        net().name_servers()
    } else {
        Vec::new()
    }
}
