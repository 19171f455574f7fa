//! The other side of the laboratory's tests: a small program for the inner guest and for the machine around it.
//!
//! - `vsock-echo PORT TIMES`, `unix-echo PATH TIMES`: send back what comes, one connection after the other.
//! - `vsock-ask PORT BYTES`: asks the host's PORT for an echo. `unix-ask PATH PORT BYTES`: asks the guest's PORT through the
//!   monitor's Unix socket, again and again until somebody answers.
//! - `until LINE COMMAND...`: runs a command, passes its output on, and tells after what time a line began with LINE.
//! - `read random|sequential PATH BLOCK THREADS COUNT`: reads blocks past the page cache and tells the rate.
//! - `zero PATH OFFSET BYTES`: lets the kernel write zeroes to a disk.
//! - `say PATH LINE`: sends a line to a Unix socket and prints the answer.
#![forbid(unsafe_code)]

mod disk;

use std::io::{self, BufRead, BufReader, Error, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["vsock-echo", port, times] => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, number(port)?)?;
            let mut incoming = listener.incoming().take(number(times)?);
            incoming.try_for_each(|stream| send_back(&mut &stream?))
        }
        ["unix-echo", path, times] => {
            let listener = UnixListener::bind(path)?;
            let mut incoming = listener.incoming().take(number(times)?);
            incoming.try_for_each(|stream| send_back(&mut &stream?))
        }
        ["vsock-ask", port, bytes] => {
            let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, number(port)?)?;
            ask(&stream, &stream, number(bytes)?, || {
                stream.shutdown(Shutdown::Write)
            })
        }
        ["until", line, ref command @ ..] => until(line, command),
        ["read", what, path, block, threads, count] => {
            let read = disk::Read {
                path,
                block: number(block)?,
                count: number(count)?,
                random: what == "random",
            };
            let seconds = read.run(number(threads)?)?;
            let rate = f64::from(read.count) / seconds;
            match read.random {
                true => println!("probe: random {rate:.1} per second"),
                false => println!(
                    "probe: sequential {:.1} MB/s",
                    rate * read.block as f64 / 1e6
                ),
            }
            Ok(())
        }
        ["zero", path, offset, bytes] => {
            let file = std::fs::File::options().write(true).open(path)?;
            let flags =
                rustix::fs::FallocateFlags::ZERO_RANGE | rustix::fs::FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(
                file,
                flags,
                number(offset)?,
                number(bytes)?,
            )?)
        }
        ["say", path, line] => {
            let mut stream = UnixStream::connect(path)?;
            stream.write_all(format!("{line}\n").as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::stdout()).map(|_| ())
        }
        ["unix-ask", path, port, bytes] => {
            let stream = call(path, port)?;
            ask(&stream, &stream, number(bytes)?, || {
                stream.shutdown(Shutdown::Write)
            })
        }
        _ => Err(Error::other(
            "what to do? the first lines of lab-probe's source say",
        )),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| Error::other(format!("`{text}` is no number")))
}

/// Sends everything back until the other side ends.
fn send_back<S>(stream: &mut S) -> io::Result<()>
where
    S: Read + Write,
{
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

/// Reaches the guest's port as soon as somebody listens there.
fn call(path: &str, port: &str) -> io::Result<UnixStream> {
    let start = Instant::now();
    let attempt = || {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let mut line = String::new();
        // One byte at a time: what follows the line is the guest's.
        BufReader::with_capacity(1, &stream).read_line(&mut line)?;
        match line.strip_prefix("OK ") {
            Some(_) => Ok(stream),
            None => Err(Error::other(format!("the monitor said `{line}`"))),
        }
    };
    loop {
        match attempt() {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Sends `bytes` bytes, ends its own direction, and compares what comes back.
fn ask<R, W>(
    mut from: R,
    mut to: W,
    bytes: usize,
    end: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()>
where
    R: Read,
    W: Write + Send,
{
    let content: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    let start = Instant::now();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| to.write_all(&content).and_then(|()| end()));
        from.read_to_end(&mut back)?;
        sender
            .join()
            .unwrap_or_else(|_| Err(Error::other("the sender panicked")))
    })?;
    if back != content {
        return Err(Error::other(format!(
            "{} bytes came back instead of {bytes}, or other ones",
            back.len()
        )));
    }
    println!(
        "probe: {bytes} bytes came back in {} ms",
        start.elapsed().as_millis()
    );
    Ok(())
}

/// Runs a command until it ends; the time counts from before its start.
fn until(line: &str, command: &[&str]) -> io::Result<()> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| Error::other("no command"))?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(
        child
            .stdout
            .take()
            .ok_or_else(|| Error::other("no output"))?,
    );
    let (mut text, mut seen) = (Vec::new(), None);
    while output.read_until(b'\n', &mut text)? > 0 {
        if seen.is_none() && text.starts_with(line.as_bytes()) {
            seen = Some(start.elapsed());
        }
        io::stdout().write_all(&text)?;
        text.clear();
    }
    if let Some(time) = seen {
        println!(
            "probe: the line came after {:.1} ms",
            time.as_secs_f64() * 1000.0
        );
    }
    let status = child.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::other(format!("the command ended with {status}"))),
    }
}
