//! TCP and UDP of the standard library, on 127.0.0.1.

use crate::{Result, pattern};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

pub fn run() -> Result<()> {
    tcp_threads()?;
    tcp_bulk()?;
    tcp_nonblocking()?;
    tcp_timeout()?;
    udp()?;
    Ok(())
}

/// A server thread for each client; every client sends messages and checks the echo.
fn tcp_threads() -> Result<()> {
    const CLIENTS: u8 = 8;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<usize> {
        let mut workers = Vec::new();
        for _ in 0..CLIENTS {
            let (stream, from) = listener.accept()?;
            assert!(from.ip().is_loopback());
            workers.push(thread::spawn(move || echo(stream)));
        }
        let mut total = 0;
        for worker in workers {
            total += worker.join().expect("worker")?;
        }
        Ok(total)
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            thread::spawn(move || -> Result<()> {
                let mut stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                for round in 0..50 {
                    let sent = pattern(seed, 1 + round * 37);
                    stream.write_all(&sent)?;
                    let mut got = vec![0; sent.len()];
                    stream.read_exact(&mut got)?;
                    assert_eq!(sent, got);
                }
                stream.shutdown(Shutdown::Write)?;
                assert_eq!(stream.read(&mut [0; 1])?, 0);
                Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().expect("client")?;
    }
    println!("tcp echo: {} bytes", server.join().expect("server")?);
    Ok(())
}

fn echo(mut stream: TcpStream) -> Result<usize> {
    let mut buffer = [0; 4096];
    let mut total = 0;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(total);
        }
        stream.write_all(&buffer[..len])?;
        total += len;
    }
}

/// More than all buffers hold, in one direction and then in the other.
fn tcp_bulk() -> Result<()> {
    const LEN: usize = 8 << 20;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&all)?;
        Ok(all.iter().map(|&byte| u64::from(byte)).sum())
    });
    let sent = pattern(9, LEN);
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    println!(
        "tcp bulk: {} bytes, same {}, sum {}",
        got.len(),
        got == sent,
        server.join().expect("server")?
    );
    Ok(())
}

fn tcp_nonblocking() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!(
        "accept without a client: {:?}",
        listener.accept().map(drop).unwrap_err().kind()
    );
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nonblocking(true)?;
    let (mut server, _) = loop {
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            other => break other?,
        }
    };
    println!(
        "read without data: {:?}",
        client.read(&mut [0; 8]).unwrap_err().kind()
    );
    let chunk = pattern(1, 64 << 10);
    let mut sent = 0;
    let full = loop {
        match client.write(&chunk) {
            Ok(len) => sent += len,
            Err(error) => break error.kind(),
        }
    };
    println!(
        "write without room: {full:?}, after something {}",
        sent > 100_000
    );
    drop(client);
    let mut all = Vec::new();
    server.set_nonblocking(false)?;
    server.read_to_end(&mut all)?;
    println!("all of it arrives: {}", all.len() == sent);
    Ok(())
}

fn tcp_timeout() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.set_read_timeout(Some(Duration::from_millis(60)))?;
    println!("read timeout {:?}", client.read_timeout()?);
    let start = Instant::now();
    let error = client.read(&mut [0; 8]).unwrap_err();
    let took = start.elapsed();
    println!(
        "read gave up: {:?}, in time {}",
        error.kind(),
        took >= Duration::from_millis(60) && took < Duration::from_secs(3)
    );
    let (mut server, _) = listener.accept()?;
    server.write_all(b"peeked")?;
    let mut bytes = [0; 6];
    client.set_read_timeout(None)?;
    client.peek(&mut bytes)?;
    client.read_exact(&mut bytes)?;
    println!("{}", String::from_utf8_lossy(&bytes));
    let other = client.try_clone()?;
    drop(client);
    println!(
        "a copy lives on: {}",
        other.peer_addr()? == listener.local_addr()?
    );
    Ok(())
}

fn udp() -> Result<()> {
    let (a, b) = (
        UdpSocket::bind("127.0.0.1:0")?,
        UdpSocket::bind("127.0.0.1:0")?,
    );
    for len in [0, 1, 1500, 9000, 60_000] {
        let sent = pattern(3, len);
        a.send_to(&sent, b.local_addr()?)?;
        let mut buffer = vec![0; 65_536];
        let (got, from) = b.recv_from(&mut buffer)?;
        println!(
            "udp {len}: same {}, from a {}",
            buffer[..got] == sent[..],
            from == a.local_addr()?
        );
    }
    a.send_to(b"too long for you", b.local_addr()?)?;
    let mut short = [0; 8];
    println!("udp cut: {} bytes", b.recv(&mut short)?);
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    a.send(b"ping")?;
    let len = b.recv(&mut short)?;
    println!("udp connected: {}", String::from_utf8_lossy(&short[..len]));
    b.set_read_timeout(Some(Duration::from_millis(20)))?;
    println!("udp nothing: {:?}", b.recv(&mut short).unwrap_err().kind());
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    a.connect(nobody)?;
    a.send(b"anyone?")?;
    println!("udp nobody: {:?}", a.recv(&mut short).unwrap_err().kind());
    println!(
        "udp too large: {:?}",
        b.send(&vec![0; 70_000]).unwrap_err().raw_os_error()
    );
    Ok(())
}
