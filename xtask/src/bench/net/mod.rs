//! `cargo xtask bench net`: the network's figures, each beside the same server as a native process and, over tap, under QEMU's microvm.
//!
//! HTTP by wrk against an axum server; TCP streams by a client of our own. The bench makes its own tap device and removes it.
//!
//! - [`servers`]: a server somewhere, and its end. - [`load`]: what is asked of it. - [`crate::tap`]: the device.

mod load;
mod servers;

use super::measure::{self, median};
use super::{Figure, figure, print};
use crate::e2e::tools::Tools;
use crate::packages;
use crate::tap::Tap;
use anyhow::{Context, Result, ensure};
use servers::{Place, Programs, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// `bench net`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Seconds of each load
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// vCPUs of each guest
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Starts for the time to the first answer
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Only figures whose line contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A connection stands after this time, or something is wrong.
const SOON: Duration = Duration::from_millis(20);
/// The first wait for a guest that is starting: it hears nothing of what was sent before it was there. Each further one is a little longer.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Connections that do nothing.
const IDLE: usize = 1000;

/// Measures everything and prints it.
pub fn bench(args: &Args) -> Result<()> {
    packages::need(packages::BENCH_NET)?;
    let tools = Tools::build(true)?;
    let programs = Programs::build(&tools)?;
    let tap = Tap::new()?;
    let bench = Bench {
        args,
        tools: &tools,
        programs: &programs,
    };
    let (mut figures, mut failed) = (Vec::new(), Ok(()));
    for part in [
        Bench::requests,
        Bench::latency,
        Bench::streams,
        Bench::first_answer,
        Bench::memory,
    ] {
        match part(&bench) {
            Ok(more) => figures.extend(more),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    drop(tap);
    print(&figures, args.json)?;
    failed
}

struct Bench<'a> {
    args: &'a Args,
    tools: &'a Tools,
    programs: &'a Programs,
}

impl Bench<'_> {
    fn wanted(&self, what: &str) -> bool {
        what.contains(&self.args.only)
    }

    fn http(&self, place: Place) -> Result<Server> {
        let mut server = Server::http(self.tools, self.programs, place, self.args.cpus)?;
        server.wait()?;
        Ok(server)
    }

    /// Requests per second over 64 connections that stay open.
    fn requests(&self) -> Result<Vec<Figure>> {
        self.http_figures("64 connections", 64, ">= 0.5 of native")
    }

    /// One request after the other.
    fn latency(&self) -> Result<Vec<Figure>> {
        self.http_figures("1 connection", 1, "")
    }

    fn http_figures(
        &self,
        what: &str,
        connections: u32,
        wanted: &'static str,
    ) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if !self.wanted(what) {
            return Ok(figures);
        }
        let load = |place| -> Result<_> {
            let server = self.http(place)?;
            let load = load::wrk(&server.url(), connections, self.args.seconds)?;
            Ok((load, server.stop()?))
        };
        let (native, _) = load(Place::Native)?;
        for (place, qemu) in [(Place::Tap, true), (Place::User, false)] {
            let (unik, counts) = load(place)?;
            let name = |line: &str| format!("HTTP, {what}, {place}: {line}");
            let beside = Some(native.rate);
            let row = name("requests/s");
            figures.push(figure(
                &row,
                "",
                unik.rate,
                beside,
                "native process",
                wanted,
            ));
            if qemu {
                let (other, _) = load(Place::Qemu)?;
                let beside = Some(other.rate);
                figures.push(figure(&row, "", unik.rate, beside, "QEMU microvm", ""));
            }
            for (line, value, beside) in
                [("p50", unik.p50, native.p50), ("p99", unik.p99, native.p99)]
            {
                let beside = Some(beside);
                figures.push(figure(
                    &name(line),
                    "ms",
                    value,
                    beside,
                    "native process",
                    "",
                ));
            }
            for count in ["exits", "net0_kicks", "net0_interrupts"] {
                let each = counts.get(count).copied().unwrap_or(f64::NAN) / unik.requests;
                let line = name(&format!(
                    "{} per request",
                    count.trim_start_matches("net0_")
                ));
                figures.push(figure(&line, "", each, None, "", ""));
            }
        }
        Ok(figures)
    }

    /// One TCP stream each way.
    fn streams(&self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if !self.wanted("TCP stream") {
            return Ok(figures);
        }
        for kind in [*b"s", *b"r"] {
            let way = if kind == *b"s" { "to" } else { "from" };
            let run = |place| -> Result<_> {
                let mut server = Server::stream(self.tools, self.programs, place, self.args.cpus)?;
                server.wait()?;
                let before = server.processor_times()?;
                let (rate, time) = load::stream(&server.address(), kind, self.args.seconds)?;
                let used = server.processor_times()?.since(&before, time);
                server.stop()?;
                Ok((rate, used))
            };
            let (native, _) = run(Place::Native)?;
            for place in [Place::Tap, Place::User] {
                let (rate, used) = run(place)?;
                let name = |line: &str| format!("TCP stream {way} the guest, {place}{line}");
                let wanted = if matches!(place, Place::Tap) {
                    ">= 3"
                } else {
                    ""
                };
                let beside = Some(native);
                figures.push(figure(
                    &name(""),
                    "Gbit/s",
                    rate,
                    beside,
                    "native process",
                    wanted,
                ));
                if matches!(place, Place::Tap) {
                    let beside = Some(run(Place::Qemu)?.0);
                    figures.push(figure(
                        &name(""),
                        "Gbit/s",
                        rate,
                        beside,
                        "QEMU microvm",
                        "",
                    ));
                }
                figures.push(figure(
                    &name(", CPU of vCPUs"),
                    "",
                    used.vcpus,
                    None,
                    "",
                    "",
                ));
                figures.push(figure(
                    &name(", CPU of monitor"),
                    "",
                    used.others,
                    None,
                    "",
                    "",
                ));
            }
        }
        Ok(figures)
    }

    /// From the start of the monitor to the first answer, asking again and again.
    fn first_answer(&self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if !self.wanted("first HTTP answer") {
            return Ok(figures);
        }
        let run = |place| -> Result<f64> {
            let mut times = measure::runs(self.args.starts, || -> Result<f64> {
                let start = Instant::now();
                let mut server = Server::http(self.tools, self.programs, place, self.args.cpus)?;
                server.wait()?;
                let time = start.elapsed();
                server.stop()?;
                Ok(time.as_secs_f64() * 1000.0)
            })?;
            Ok(median(&mut times))
        };
        let native = run(Place::Native)?;
        for place in [Place::Tap, Place::User] {
            let line = format!("start to first HTTP answer, {place}");
            let (time, beside) = (run(place)?, Some(native));
            figures.push(figure(&line, "ms", time, beside, "native process", "<= 12"));
            if matches!(place, Place::Tap) {
                let beside = Some(run(Place::Qemu)?);
                figures.push(figure(&line, "ms", time, beside, "QEMU microvm", ""));
            }
        }
        Ok(figures)
    }

    /// Memory of the monitor: a card that nobody uses, and open connections.
    fn memory(&self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if !self.wanted("memory") {
            return Ok(figures);
        }
        let idle = |net: &str| -> Result<f64> {
            let flags = ["--net", net];
            Ok(measure::memory_with(self.tools, &self.programs.hello, &flags)?.monitor_private)
        };
        let added = idle("user")? - idle("none")?;
        let line = "memory of the monitor, an idle card";
        figures.push(figure(line, "MB", added, None, "", "<= 1"));
        let server = self.http(Place::User)?;
        let before = server.private()?;
        let mut open = Vec::new();
        for _ in 0..IDLE {
            open.push(request(&server.address(), SOON)?);
        }
        let line = format!("memory of the monitor, {IDLE} connections");
        let added = server.private()? - before;
        figures.push(figure(&line, "MB", added, None, "", ""));
        drop(open);
        server.stop()?;
        Ok(figures)
    }
}

/// Asks once and keeps the connection, if it stands within `patience`.
fn request(address: &str, patience: Duration) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, patience)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = [0; 512];
    let n = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..n]);
    ensure!(
        text.starts_with("HTTP/1.1 200"),
        "the server answered {text}"
    );
    Ok(stream)
}

/// The address of a port of this machine, for a message.
fn refused(address: &str) -> String {
    format!("no server at {address}")
}

/// Tries until `limit` has passed.
fn until<T>(limit: Duration, mut once: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match once() {
            Err(error) if start.elapsed() > limit => return Err(error).context("time is up"),
            Err(_) => std::thread::sleep(Duration::from_micros(300)),
            done => return done,
        }
    }
}
