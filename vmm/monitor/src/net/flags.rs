//! `--net KIND[,KEY=VALUE]...`: text to [`NetFlag`]. Nothing is resolved here.

use std::net::IpAddr;
use std::str::FromStr;

/// Which back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user network.
    User,
    /// The host's tap device of this name.
    Tap(String),
    /// No card.
    None,
}

/// One way to get an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// From a DHCPv4 server.
    Dhcp,
    /// From router advertisements.
    Auto,
    /// This one, with the length of its network's prefix.
    Static(IpAddr, u8),
}

/// One `--net`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetFlag {
    /// The back end.
    pub kind: Kind,
    /// `mac=`
    pub mac: Option<[u8; 6]>,
    /// `mtu=`
    pub mtu: Option<u16>,
    /// `ip=`
    pub addresses: Vec<Address>,
    /// `gw=`
    pub routers: Vec<IpAddr>,
    /// `dns=`
    pub resolvers: Vec<IpAddr>,
    /// `host-loopback`
    pub host_loopback: bool,
}

impl NetFlag {
    /// A card with nothing said about it.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            mac: None,
            mtu: None,
            addresses: Vec::new(),
            routers: Vec::new(),
            resolvers: Vec::new(),
            host_loopback: false,
        }
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let bad = |wanted: &str| format!("`{text}`: {wanted}");
        let ip = || {
            value
                .parse::<IpAddr>()
                .map_err(|_| bad("expected an IP address"))
        };
        match key {
            "mac" => {
                let wanted = "expected an address such as 02:00:00:00:00:01 (no multicast)";
                self.mac = Some(mac(value).ok_or_else(|| bad(wanted))?);
            }
            "mtu" => {
                let mtu = value.parse().ok().filter(|mtu| *mtu >= 1280);
                self.mtu = Some(mtu.ok_or_else(|| bad("expected a number from 1280 to 65535"))?);
            }
            "ip" => {
                let wanted = "expected ADDRESS/PREFIX, dhcp or auto";
                let address = address(value).ok_or_else(|| bad(wanted))?;
                self.addresses.push(address);
            }
            "gw" => self.routers.push(ip()?),
            "dns" => self.resolvers.push(ip()?),
            "host-loopback" if value.is_empty() && self.kind == Kind::User => {
                self.host_loopback = true;
            }
            _ => {
                return Err(bad(
                    "unknown; there are mac=, mtu=, ip=, gw=, dns=, and for `user` host-loopback",
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for NetFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let kind = match words.next().unwrap_or_default() {
            "user" => Kind::User,
            "none" => Kind::None,
            other => match other.strip_prefix("tap=") {
                Some(name) if !name.is_empty() => Kind::Tap(name.to_owned()),
                _ => {
                    return Err(format!(
                        "`{other}` is no network: use user, tap=NAME or none"
                    ));
                }
            },
        };
        let mut flag = Self::of(kind);
        words.try_for_each(|word| flag.set(word))?;
        Ok(flag)
    }
}

/// `aa:bb:cc:dd:ee:ff`, of one station.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

fn address(text: &str) -> Option<Address> {
    let (ip, prefix) = match text {
        "dhcp" => return Some(Address::Dhcp),
        "auto" => return Some(Address::Auto),
        _ => text.split_once('/')?,
    };
    let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let usable = !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast();
    (usable && prefix <= most).then_some(Address::Static(ip, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_at_once() {
        let flag: NetFlag = "tap=tap0,mac=02:00:00:00:00:0a,mtu=9000,ip=10.1.2.3/16,ip=auto,gw=10.1.0.1,dns=fd00::1"
            .parse()
            .unwrap();
        let wanted = NetFlag {
            mac: Some([2, 0, 0, 0, 0, 10]),
            mtu: Some(9000),
            addresses: vec![Address::Static([10, 1, 2, 3].into(), 16), Address::Auto],
            routers: vec![[10, 1, 0, 1].into()],
            resolvers: vec!["fd00::1".parse().unwrap()],
            ..NetFlag::of(Kind::Tap("tap0".into()))
        };
        assert_eq!(flag, wanted);
        assert!(
            "user,host-loopback"
                .parse::<NetFlag>()
                .unwrap()
                .host_loopback
        );
        assert_eq!("none".parse(), Ok(NetFlag::of(Kind::None)));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "",
            "tap",
            "tap=",
            "bridge",
            "user,",
            "user,mac=01:00:00:00:00:00",
            "user,mac=2:0:0:0:0:0",
            "user,mtu=1000",
            "user,mtu=70000",
            "user,ip=10.0.0.1",
            "user,ip=10.0.0.1/33",
            "user,ip=127.0.0.1/8",
            "user,gw=here",
            "user,host-loopback=yes",
            "tap=t,host-loopback",
            "user,speed=1",
        ] {
            let error = bad.parse::<NetFlag>().unwrap_err();
            assert!(error.starts_with('`'), "{bad}: {error}");
        }
    }
}
