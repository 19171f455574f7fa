//! Which network cards a machine gets: flags and wishes ([`NetArgs`], [`Wishes`]) to resolved [`Card`]s, and what the guest is told of each.
//!
//! - [`flags`]: `--net` as text. - [`addresses`]: the addresses of a user network.
//! - [`crate::machine::net`]: cards in their places.

pub mod addresses;
pub mod flags;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use unik_abi::config::records;
use unik_host::tap::TapError;
use unik_usernet::{Config, UserNetError};

pub use unik_usernet::{Forward, Protocol};

use crate::exit_codes;
use flags::{Address, Kind, NetFlag};

/// The flags that are about the network.
#[derive(Clone, Debug, Default, Args)]
pub struct NetArgs {
    /// A network card (repeatable): `user` needs no privileges, `tap=NAME` joins a tap device of the host, `none` is no card. Behind it may stand
    /// ,mac=M ,mtu=N ,ip=ADDRESS/PREFIX|dhcp|auto ,gw=ADDRESS ,dns=ADDRESS and, for `user`, ,host-loopback: the router's address then
    /// leads to the host's own 127.0.0.1 [default: the image's wish, else `user`]
    #[arg(long, value_name = "user|tap=NAME|none")]
    pub net: Vec<NetFlag>,
    /// Publish a port of the guest on the host, for the user network (repeatable)
    #[arg(
        short = 'p',
        long = "publish",
        value_name = "[ADDRESS:]HOST:GUEST[/udp]"
    )]
    pub publish: Vec<Forward>,
    /// Write the guest's traffic to a file for Wireshark
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// What an image wishes; flags win.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Cards.
    pub net: Vec<NetFlag>,
    /// Published ports.
    pub publish: Vec<Forward>,
}

impl Wishes {
    /// Those in an image's manifest.
    pub fn of(manifest: &[u8]) -> Result<Self, NetError> {
        Ok(Self {
            net: all(manifest, WISH_NET)?,
            publish: all(manifest, WISH_PORT)?,
        })
    }
}

/// All values of `key`, read.
fn all<T: FromStr<Err: ToString>>(manifest: &[u8], key: &'static str) -> Result<Vec<T>, NetError> {
    let read = |value: &[u8]| {
        let text = String::from_utf8_lossy(value);
        text.parse().map_err(|error: T::Err| NetError::Manifest {
            key,
            value: OsStr::from_bytes(value).into(),
            reason: error.to_string(),
        })
    };
    records(manifest)
        .filter(|(name, _)| *name == key.as_bytes())
        .map(|(_, value)| read(value))
        .collect()
}

/// Record of the image's manifest: a card, as `--net` takes it.
pub const WISH_NET: &str = "want.net";
/// Record of the image's manifest: a published port, as `-p` takes it.
pub const WISH_PORT: &str = "want.port";

/// Why there is no network as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Ports without a user network.
    #[error("ports are published by the user network: add --net user, or leave out -p")]
    Publish,
    /// Addresses that cannot be.
    #[error("cannot make the user network: {0}")]
    Addresses(String),
    /// The image's manifest.
    #[error("the image's manifest has `{key}={}`: {reason}; rebuild the image", value.display())]
    Manifest {
        /// Which record.
        key: &'static str,
        /// Its value.
        value: OsString,
        /// What is wrong.
        reason: String,
    },
    /// The user network.
    #[error(transparent)]
    User(#[from] UserNetError),
    /// A tap device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The file for `--pcap`.
    #[error("cannot write traffic to {}: {source}", path.display())]
    Pcap {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
}

impl NetError {
    /// The exit code of this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Publish | Self::Addresses(_) | Self::Manifest { .. } => exit_codes::CONFIG,
            Self::User(_) | Self::Tap(_) => exit_codes::HOST,
            Self::Pcap { .. } => exit_codes::NO_OUTPUT,
        }
    }
}

/// What carries a card's frames.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The user network.
    User(Box<Config>),
    /// The host's tap device of this name.
    Tap(String),
}

/// A network card, resolved.
#[derive(Clone, Debug)]
pub struct Card {
    /// What carries its frames.
    pub backend: Backend,
    /// Its address; `None`: what the back end chooses.
    pub mac: Option<[u8; 6]>,
    /// Bytes of the longest IP packet; `None`: what the back end has.
    pub mtu: Option<u16>,
    /// What the guest is told: `;ip=...;gw=...` (`unik_abi::config`).
    pub record: String,
}

/// The cards of a machine.
pub fn resolve(args: &NetArgs, wishes: &Wishes) -> Result<Vec<Card>, NetError> {
    let user = [NetFlag::of(Kind::User)];
    let flags = [&args.net[..], &wishes.net[..], &user]
        .into_iter()
        .find(|flags| !flags.is_empty())
        .unwrap_or_default();
    let mut publish = if args.publish.is_empty() {
        wishes.publish.clone()
    } else {
        args.publish.clone()
    };
    let mut cards = Vec::new();
    for flag in flags {
        match &flag.kind {
            Kind::None => {}
            Kind::User => cards.push(user_card(flag, std::mem::take(&mut publish))?),
            Kind::Tap(name) => cards.push(Card {
                backend: Backend::Tap(name.clone()),
                mac: flag.mac,
                mtu: flag.mtu,
                record: record(&flag.addresses, &flag.routers, &flag.resolvers),
            }),
        }
    }
    // A wish of the image does not hold where the flags say otherwise.
    if publish.is_empty() || args.publish.is_empty() {
        Ok(cards)
    } else {
        Err(NetError::Publish)
    }
}

fn user_card(flag: &NetFlag, publish: Vec<Forward>) -> Result<Card, NetError> {
    let found = addresses::resolve(flag).map_err(NetError::Addresses)?;
    let mut config = found.config;
    config.forwards = publish;
    config.allow_host_loopback = flag.host_loopback;
    config.mtu = flag.mtu.unwrap_or(config.mtu);
    Ok(Card {
        mac: flag.mac,
        mtu: Some(config.mtu),
        record: record(&found.addresses, &found.routers, &found.resolvers),
        backend: Backend::User(Box::new(config)),
    })
}

/// The keys behind the address of the window.
fn record<T: ToString>(addresses: &[Address], routers: &[T], resolvers: &[T]) -> String {
    let mut out = String::new();
    for address in addresses {
        out += &match address {
            Address::Dhcp => ";ip=dhcp".to_owned(),
            Address::Auto => ";ip=auto".to_owned(),
            Address::Static(ip, prefix) => format!(";ip={ip}/{prefix}"),
        };
    }
    for (key, list) in [("gw", routers), ("dns", resolvers)] {
        for ip in list {
            out += &format!(";{key}={}", ip.to_string());
        }
    }
    out
}

#[cfg(test)]
mod tests;
