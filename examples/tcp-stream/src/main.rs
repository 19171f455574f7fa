//! Bytes as fast as they go: takes those that a client sends, or sends until the client has had enough.
//!
//! `tcp-stream [ADDRESS]` serves one client after the other, each for one stream: it says `s` (it sends, and reads the count of its bytes at
//! the end) or `r` (it receives). `tcp-stream self` tries both over the loopback.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

const CHUNK: usize = 256 << 10;

fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "0.0.0.0:5001".to_owned());
    if address == "self" {
        return both_ways(64 << 20);
    }
    let listener = TcpListener::bind(&address)?;
    println!("listening on {}", listener.local_addr()?);
    for client in listener.incoming() {
        // A client that goes away is no reason to stop.
        let _ = serve(client?);
    }
    Ok(())
}

fn serve(mut client: TcpStream) -> Result<()> {
    let (mut kind, mut buffer, mut total) = ([0], vec![0; CHUNK], 0u64);
    client.read_exact(&mut kind)?;
    if kind == *b"r" {
        while client.write(&buffer)? > 0 {}
        return Ok(());
    }
    loop {
        match client.read(&mut buffer)? {
            0 => return client.write_all(format!("{total}\n").as_bytes()),
            n => total += n as u64,
        }
    }
}

fn both_ways(bytes: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<()> {
        for client in listener.incoming().take(2) {
            let _ = serve(client?);
        }
        Ok(())
    });
    let mut to = TcpStream::connect(address)?;
    to.write_all(b"s")?;
    let chunk = vec![7; CHUNK];
    (0..bytes / CHUNK).try_for_each(|_| to.write_all(&chunk))?;
    to.shutdown(Shutdown::Write)?;
    let mut count = String::new();
    to.read_to_string(&mut count)?;
    let mut from = TcpStream::connect(address)?;
    from.write_all(b"r")?;
    let mut got = vec![1; bytes];
    from.read_exact(&mut got)?;
    drop(from);
    server.join().expect("the server does not panic")?;
    assert!(got.iter().all(|&byte| byte == 0));
    println!("{} bytes each way", count.trim());
    Ok(())
}
