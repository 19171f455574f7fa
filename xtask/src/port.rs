//! Ports of the host for servers that are started later.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to connections (`ip_local_port_range` in ip(7)): one of those may be taken between the
/// look and the server's start.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody has, on any address, for TCP and UDP; another one each time.
pub fn free() -> Result<u16> {
    let start = std::process::id() as u16 % PORTS.len() as u16;
    let nobody_has = |port: &u16| {
        let at = (Ipv4Addr::UNSPECIFIED, *port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    (0..PORTS.len())
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16)
        .map(|nth| PORTS.start + nth)
        .find(nobody_has)
        .with_context(|| format!("no free port in {PORTS:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_had() {
        let ports: Vec<u16> = (0..50).map(|_| free().unwrap()).collect();
        assert!(ports.iter().all(|port| PORTS.contains(port)));
        let held: Vec<_> = ports
            .iter()
            .map(|&p| TcpListener::bind(("127.0.0.1", p)).unwrap())
            .collect();
        assert_eq!(
            held.len(),
            50,
            "each was bound while all before it were held"
        );
        assert!(
            (0..50)
                .map(|_| free().unwrap())
                .all(|port| !ports.contains(&port))
        );
    }
}
