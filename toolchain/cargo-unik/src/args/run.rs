//! Flags that describe the virtual machine: memory, CPUs, environment, and which monitor to use.

use super::Monitor;
use clap::Args;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use unik_monitor::net::Forward;
use unik_monitor::net::flags::NetFlag;

/// The machine.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Machine")]
pub struct RunArgs {
    /// Memory of the machine, such as 64M or 2G
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Memory>,
    /// Number of virtual CPUs
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub cpus: Option<u32>,
    /// An environment variable for the program (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Publish a port of the guest on the host, also written -p [ADDRESS:]HOST:GUEST[/udp] (repeatable)
    #[arg(long, value_name = "[ADDRESS:]HOST:GUEST[/udp]", value_parser = port)]
    pub publish: Vec<String>,
    /// Share a directory, written -v HOSTDIR:GUEST[:ro]
    #[arg(long, value_name = "HOSTDIR:GUEST", hide = true)]
    pub volume: Vec<String>,
    /// A network card (repeatable): `user` needs no privileges, `tap=NAME` joins a tap device of the host, `none` is no card; behind it may
    /// stand ,mac= ,mtu= ,ip= ,gw= ,dns= and, for `user`, ,host-loopback
    #[arg(long, value_name = "user|tap=NAME|none", value_parser = net)]
    pub net: Vec<String>,
    /// Write the guest's traffic to a file for Wireshark
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Which monitor boots the image
    #[arg(long, value_enum)]
    pub monitor: Option<Monitor>,
    /// How QEMU runs the guest: `kvm`, `tcg` (emulation), or what is there
    #[arg(long, value_name = "ACCEL", hide = true, env = "UNIK_QEMU_ACCEL", value_parser = ["kvm", "tcg"])]
    pub qemu_accel: Option<String>,
    /// Print how long each phase took; `--timings=json` as JSON
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text", value_parser = ["text", "json"])]
    pub timings: Option<String>,
    /// List the system calls used and refused when the program ends
    #[arg(long)]
    pub syscall_summary: bool,
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub u64);

impl Memory {
    /// The least that a machine can have.
    const MIN: u64 = 8 << 20;
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            _ => {
                return Err(format!(
                    "`{text}` is no size; write a number with K, M or G, such as 64M"
                ));
            }
        };
        let number: u64 = digits.parse().map_err(|_| {
            format!("`{text}` is no size; write a number with K, M or G, such as 64M")
        })?;
        let bytes = number.checked_mul(1 << shift).filter(|&b| b <= 1 << 39);
        match bytes {
            Some(bytes) if bytes >= Self::MIN => Ok(Self(bytes)),
            Some(_) => Err(format!(
                "`{text}` is too little memory; give at least {}M",
                Self::MIN >> 20
            )),
            None => Err(format!(
                "`{text}` is more memory than a machine can have (512G)"
            )),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b if b % (1 << 30) == 0 => write!(f, "{}G", b >> 30),
            b if b % (1 << 20) == 0 => write!(f, "{}M", b >> 20),
            b => write!(f, "{}K", b.div_ceil(1 << 10)),
        }
    }
}

/// Checks a network card; the monitor reads it again.
pub fn net(text: &str) -> Result<String, String> {
    text.parse::<NetFlag>().map(|_| text.to_owned())
}

/// Checks a published port.
pub fn port(text: &str) -> Result<String, String> {
    let port = text.parse::<Forward>().map_err(|error| error.to_string());
    port.map(|_| text.to_owned())
}

/// Checks a number of vCPUs.
pub fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=unik_abi::MAX_VCPUS as u32).contains(&n) => Ok(n),
        _ => Err(format!(
            "`{text}` is no number of CPUs from 1 to {}",
            unik_abi::MAX_VCPUS
        )),
    }
}

/// `-p` is cargo's `--package` and a port to publish, `-v` is cargo's `--verbose` and a directory to share.
/// A package name never looks like `8080:80`, and `--verbose` takes no value, so the word after the flag tells.
pub fn tell_apart(args: Vec<OsString>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            break;
        }
        let next = args.peek().and_then(|a| a.to_str()).unwrap_or_default();
        match arg.to_str() {
            Some("-p") if is_port(next) => out.push("--publish".into()),
            Some("-v") if is_volume(next) => out.push("--volume".into()),
            _ => out.push(arg),
        }
    }
    out.extend(args);
    out
}

/// `HOST:GUEST`, `ADDRESS:HOST:GUEST`, each with an optional `/tcp` or `/udp`.
fn is_port(text: &str) -> bool {
    let text = text
        .strip_suffix("/udp")
        .or(text.strip_suffix("/tcp"))
        .unwrap_or(text);
    let mut parts = text.rsplitn(3, ':');
    let number = |p: Option<&str>| p.is_some_and(|p| p.parse::<u16>().is_ok());
    number(parts.next()) && number(parts.next())
}

/// `HOSTDIR:/GUEST[:ro]`.
fn is_volume(text: &str) -> bool {
    !text.starts_with('-') && text.contains(":/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        assert_eq!("64M".parse(), Ok(Memory(64 << 20)));
        assert_eq!("2GiB".parse(), Ok(Memory(2 << 30)));
        assert_eq!("67108864".parse(), Ok(Memory(64 << 20)));
        for bad in [
            "",
            "M",
            "64X",
            "-1M",
            "1K",
            "99999999999999999999G",
            "1.5G",
            "1024G",
        ] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
        assert_eq!(Memory(64 << 20).to_string(), "64M");
        assert_eq!(Memory(3 << 30).to_string(), "3G");
    }

    #[test]
    fn ports_and_packages() {
        let told = |args: &[&str]| tell_apart(args.iter().map(OsString::from).collect());
        assert_eq!(told(&["-p", "8080:80"]), ["--publish", "8080:80"]);
        assert_eq!(
            told(&["-p", "127.0.0.1:8080:80/udp"]),
            ["--publish", "127.0.0.1:8080:80/udp"]
        );
        assert_eq!(told(&["-p", "[::1]:80:80"]), ["--publish", "[::1]:80:80"]);
        assert_eq!(told(&["-p", "serde@1.0"]), ["-p", "serde@1.0"]);
        assert_eq!(
            told(&["-v", "/srv:/data:ro"]),
            ["--volume", "/srv:/data:ro"]
        );
        assert_eq!(told(&["-v", "--", "-p", "1:2"]), ["-v", "--", "-p", "1:2"]);
    }
}
