//! Network cards of a guest under QEMU: the same flags and wishes as for our own monitor, in QEMU's words.
//!
//! QEMU's user network (libslirp) takes the place of ours, with the same addresses. It forwards from IPv4 addresses only, and its guests always reach
//! the host's loopback through the router's address.

use super::qemu::FIRST_CARD;
use super::{Job, MonitorError};
use std::net::SocketAddr;
use std::path::Path;
use unik_monitor::net::{self, Backend, Card, NetArgs, Protocol, Wishes};

/// The cards that the run gets.
pub fn of(job: &Job<'_>, manifest: &[u8]) -> Result<Vec<Card>, MonitorError> {
    let wish = |error: String| MonitorError::Wish(error);
    let ports = job.machine.publish.iter();
    let args = NetArgs {
        net: job
            .machine
            .net
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(wish)?,
        publish: ports
            .map(|text| text.parse().map_err(|e| wish(format!("{e}"))))
            .collect::<Result<_, _>>()?,
        pcap: None,
    };
    let wishes = Wishes::of(manifest).map_err(|e| wish(e.to_string()))?;
    net::resolve(&args, &wishes).map_err(|e| wish(e.to_string()))
}

/// QEMU's flags for them. The copy of the traffic is the first card's.
pub fn flags(cards: &[Card], pcap: Option<&Path>) -> Result<Vec<String>, MonitorError> {
    let mut out = Vec::new();
    for (n, card) in cards.iter().enumerate() {
        let bus = FIRST_CARD + n;
        let mut device = format!("virtio-net-device,netdev=net{n},bus=virtio-mmio-bus.{bus}");
        if let Some(mac) = card.mac {
            let digits: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            device += &format!(",mac={}", digits.join(":"));
        }
        if let Some(mtu) = card.mtu {
            device += &format!(",host_mtu={mtu}");
        }
        out.extend(["-netdev".into(), netdev(n, card)?, "-device".into(), device]);
    }
    if let (Some(path), false) = (pcap, cards.is_empty()) {
        let file = path.display().to_string().replace(',', ",,");
        let dump = format!("filter-dump,id=dump,netdev=net0,file={file}");
        out.extend(["-object".into(), dump]);
    }
    Ok(out)
}

fn netdev(n: usize, card: &Card) -> Result<String, MonitorError> {
    let config = match &card.backend {
        Backend::Tap(name) => {
            return Ok(format!(
                "tap,id=net{n},ifname={name},script=no,downscript=no"
            ));
        }
        Backend::User(config) => config,
    };
    let mut flags = format!(
        "user,id=net{n},net={}/{},host={},dns={},dhcpstart={}",
        config.gateway_v4, config.prefix_v4, config.gateway_v4, config.dns_v4, config.guest_v4
    );
    flags += &format!(
        ",ipv6-net={}/64,ipv6-host={},ipv6-dns={}",
        config.net_v6, config.gateway_v6, config.dns_v6
    );
    for forward in &config.forwards {
        let SocketAddr::V4(host) = forward.host else {
            return Err(MonitorError::Wish(format!(
                "QEMU cannot publish ports of {}: use an IPv4 address, or Unik's own monitor",
                forward.host.ip()
            )));
        };
        let protocol = match forward.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let (ip, port) = (host.ip(), host.port());
        let (guest, to) = (config.guest_v4, forward.guest_port);
        flags += &format!(",hostfwd={protocol}:{ip}:{port}-{guest}:{to}");
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(net: &[&str], publish: &[&str]) -> Result<String, String> {
        let args = NetArgs {
            net: net.iter().map(|text| text.parse().unwrap()).collect(),
            publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
            pcap: None,
        };
        let cards = net::resolve(&args, &Wishes::default()).unwrap();
        let flags = flags(&cards, Some(Path::new("a,b"))).map_err(|error| error.to_string())?;
        Ok(flags.join(" "))
    }

    #[test]
    fn cards_in_the_words_of_qemu() {
        let user = words(&["user,mac=02:00:00:00:00:01"], &["127.0.0.1:80:8080/udp"]).unwrap();
        for piece in [
            "user,id=net0,net=10.0.2.2/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=10.0.2.15",
            "hostfwd=udp:127.0.0.1:80-10.0.2.15:8080",
            "virtio-net-device,netdev=net0,bus=virtio-mmio-bus.3,mac=02:00:00:00:00:01,host_mtu=1500",
            "filter-dump,id=dump,netdev=net0,file=a,,b",
        ] {
            assert!(user.contains(piece), "{user} lacks {piece}");
        }
        let tap = words(&["tap=tap7,mtu=9000"], &[]).unwrap();
        assert!(tap.contains("tap,id=net0,ifname=tap7,script=no,downscript=no"));
        assert_eq!(words(&["none"], &[]).unwrap(), "");
        assert!(words(&["user"], &["[::1]:80:80"]).is_err());
    }
}
