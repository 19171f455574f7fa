//! What is asked of a server: requests by wrk, or bytes.

use crate::sh;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// What wrk saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http {
    /// Requests per second.
    pub rate: f64,
    /// Requests.
    pub requests: f64,
    /// Median latency, milliseconds.
    pub p50: f64,
    /// The latency that one in a hundred exceeds, milliseconds.
    pub p99: f64,
}

/// Asks over this many connections that stay open.
pub fn wrk(url: &str, connections: u32, seconds: u32) -> Result<Http> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}"))
        .arg(url);
    let text = sh::output(&mut wrk)?;
    ensure!(
        !text.contains("Non-2xx"),
        "errors among the answers: {text}"
    );
    read(&text).with_context(|| format!("wrk said {text}"))
}

fn read(text: &str) -> Option<Http> {
    let value = |key: &str| {
        let line = text.lines().find(|line| line.trim().starts_with(key))?;
        line.split_whitespace().last()
    };
    let requests = text.lines().find(|line| line.contains("requests in"))?;
    Some(Http {
        rate: value("Requests/sec:")?.parse().ok()?,
        requests: requests.split_whitespace().next()?.parse().ok()?,
        p50: milliseconds(value("50%")?)?,
        p99: milliseconds(value("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    units
        .iter()
        .find_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale))
}

/// One stream: `s` sends to the server, `r` receives from it. Gbit/s, and the time it took.
pub fn stream(address: &str, kind: [u8; 1], seconds: u32) -> Result<(f64, Duration)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&kind)?;
    let (start, mut chunk) = (Instant::now(), vec![7; 256 << 10]);
    let (limit, mut total) = (Duration::from_secs(seconds.into()), 0u64);
    while start.elapsed() < limit {
        total += if kind == *b"s" {
            stream.write(&chunk)?
        } else {
            stream.read(&mut chunk)?
        } as u64;
    }
    if kind == *b"s" {
        stream.shutdown(Shutdown::Write)?;
        let mut count = String::new();
        stream.read_to_string(&mut count)?;
        ensure!(
            count.trim().parse() == Ok(total),
            "the server counted {} of {total} bytes",
            count.trim()
        );
    }
    let time = start.elapsed();
    Ok((total as f64 * 8e-9 / time.as_secs_f64(), time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says() {
        let text = "  1 threads and 64 connections\n  Latency Distribution\n     50%    2.93ms\n     75%    5.30ms\n     \
            99%  130.00us\n  77346 requests in 4.10s, 9.66MB read\nRequests/sec:  18858.82\nTransfer/sec:      2.36MB\n";
        let wanted = Http {
            rate: 18858.82,
            requests: 77346.0,
            p50: 2.93,
            p99: 0.13,
        };
        assert_eq!(read(text), Some(wanted));
        assert_eq!(read("nothing"), None);
    }
}
