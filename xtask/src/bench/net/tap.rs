//! The bench's own tap device, made by `ip` (as root) and removed with the value.

use crate::sh;
use anyhow::{Context, Result};
use std::process::Command;

/// Its name.
pub const NAME: &str = "unikbench";
/// Our address on it.
const HOST: &str = "10.213.57.1/24";
/// The guest's address.
pub const GUEST: &str = "10.213.57.2";

/// The guest's station.
const MAC: &str = "02:00:00:00:00:07";

/// The device.
#[derive(Debug)]
pub struct Tap(());

impl Tap {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let tap = Self(());
        let hint = "the bench makes a tap device: run it as root, with iproute2 installed";
        ip(&["tuntap", "add", NAME, "mode", "tap"]).context(hint)?;
        ip(&["addr", "add", HOST, "dev", NAME])?;
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
    format!("tap={NAME},ip={GUEST}/24,gw=10.213.57.1,mac={MAC}")
}

fn ip(words: &[&str]) -> Result<()> {
    sh::output(Command::new("ip").args(words)).map(drop)
}
