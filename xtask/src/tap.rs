//! A tap device of our own, made by `ip` (as root) and removed with the value. One at a time.

use crate::sh;
use anyhow::{Context, Result};
use std::process::Command;

/// Its name.
const NAME: &str = "unikbench";
/// Our address on it.
pub const HOST: &str = "10.213.57.1";
/// The guest's address.
pub const GUEST: &str = "10.213.57.2";

/// The guest's station.
const MAC: &str = "02:00:00:00:00:07";

/// The device.
#[derive(Debug)]
pub struct Tap(());

/// Whether this user can have one.
pub fn possible() -> bool {
    rustix::process::geteuid().is_root() && sh::found("ip")
}

impl Tap {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let tap = Self(());
        let hint = "this needs a tap device: run it as root, with iproute2 installed";
        ip(&["tuntap", "add", NAME, "mode", "tap"]).context(hint)?;
        ip(&["addr", "add", &format!("{HOST}/24"), "dev", NAME])?;
        ip(&["link", "set", NAME, "up"])?;
        // Else this machine asks for the guest before it is there, and again only a second later.
        ip(&["neigh", "replace", GUEST, "lladdr", MAC, "dev", NAME])?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", NAME]);
    }
}

/// The flag for our monitor and for QEMU; with one address for both, which this machine remembers.
pub fn flag() -> String {
    format!("tap={NAME},ip={GUEST}/24,gw={HOST},mac={MAC}")
}

fn ip(words: &[&str]) -> Result<()> {
    sh::output(Command::new("ip").args(words)).map(drop)
}
