//! Ports of the host for servers that are started later.

use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to connections (`ip_local_port_range` in ip(7)): one of those may be taken between the
/// look and the server's start.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody has, on any address, for TCP and UDP; another one each time.
///
/// The kernel's tables are read for that. A socket made to try a port would stay with each process that another thread starts at that
/// moment, until its exec(2), and keep the port from the server.
pub fn free() -> Result<u16> {
    let start = std::process::id() as u16 % PORTS.len() as u16;
    let taken = taken()?;
    (0..PORTS.len())
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16)
        .map(|nth| PORTS.start + nth)
        .find(|port| !taken.contains(port))
        .with_context(|| format!("no free port in {PORTS:?}"))
}

/// The local ports of all sockets (/proc/net/tcp, proc(5)).
fn taken() -> Result<HashSet<u16>> {
    let mut ports = HashSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"].map(|name| Path::new("/proc/net").join(name)) {
        // A kernel without IPv6 has half of them.
        if !table.exists() {
            continue;
        }
        let text = fs::read_to_string(&table).with_context(|| table.display().to_string())?;
        let addresses = text.lines().filter_map(|l| l.split_whitespace().nth(1));
        let digits = addresses.filter_map(|address| address.rsplit(':').next());
        ports.extend(digits.filter_map(|d| u16::from_str_radix(d, 16).ok()));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;

    #[test]
    fn a_port_that_somebody_has_is_taken() {
        let (tcp, udp) = (
            TcpListener::bind("[::]:0").ok(),
            UdpSocket::bind("0.0.0.0:0").unwrap(),
        );
        let taken = taken().unwrap();
        assert!(taken.contains(&udp.local_addr().unwrap().port()));
        assert!(tcp.is_none_or(|tcp| taken.contains(&tcp.local_addr().unwrap().port())));
    }

    #[test]
    fn a_process_started_meanwhile_does_not_keep_a_port() {
        let start = || (0..300).for_each(|_| _ = Command::new("true").status().unwrap());
        let starter = std::thread::spawn(start);
        while !starter.is_finished() {
            TcpListener::bind(("127.0.0.1", free().unwrap())).unwrap();
        }
        starter.join().unwrap();
    }

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
