//! Echo servers over TCP and UDP on tokio, and clients that try them hard.
//!
//! `tcp ADDRESS`, `udp ADDRESS`: servers. `many ADDRESS CONNECTIONS ROUNDS`, `cycles ADDRESS COUNT`, `bulk ADDRESS BYTES`, `refused ADDRESS`,
//! `udp-load ADDRESS COUNT`: clients.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<()> {
    // 2,000 connections need more than the 1,024 descriptors that a process usually begins with.
    rlimit::increase_nofile_limit(4096)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().map_err(Error::other);
    match args[..] {
        ["tcp", address] => tcp(address).await,
        ["udp", address] => udp(address).await,
        ["many", address, connections, rounds] => {
            many(address, number(connections)?, number(rounds)?).await
        }
        ["cycles", address, count] => cycles(address, number(count)?).await,
        ["bulk", address, bytes] => bulk(address, number(bytes)?).await,
        ["refused", address] => refused(address).await,
        ["udp-load", address, count] => udp_load(address, number(count)?).await,
        _ => Err(Error::other("see the top of the source for the arguments")),
    }
}

async fn tcp(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {address}");
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

async fn udp(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address).await?;
    println!("listening on {address}");
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..len], from).await?;
    }
}

/// Sends a message and waits for it to come back.
async fn round(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    stream.write_all(message).await?;
    let mut answer = vec![0; message.len()];
    timeout(Duration::from_secs(30), stream.read_exact(&mut answer)).await??;
    if answer == message {
        Ok(())
    } else {
        Err(Error::from(ErrorKind::InvalidData))
    }
}

/// Opens all connections, then uses all of them at once.
async fn many(address: &str, connections: usize, rounds: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(TcpStream::connect(address).await?);
    }
    let mut set = JoinSet::new();
    for (n, mut stream) in streams.into_iter().enumerate() {
        set.spawn(async move {
            for turn in 0..rounds {
                round(
                    &mut stream,
                    format!("connection {n}, round {turn}").as_bytes(),
                )
                .await?;
            }
            Ok::<_, Error>(rounds)
        });
    }
    let mut sum = 0;
    while let Some(done) = set.join_next().await {
        sum += done??;
    }
    println!("{connections} connections, {sum} answers");
    Ok(())
}

/// One short connection after the other, on several tasks.
async fn cycles(address: &str, count: usize) -> Result<()> {
    const TASKS: usize = 8;
    let mut set = JoinSet::new();
    for _ in 0..TASKS {
        let address = address.to_owned();
        set.spawn(async move {
            for n in 0..count / TASKS {
                let mut stream = TcpStream::connect(&address).await?;
                round(&mut stream, format!("cycle {n}").as_bytes()).await?;
                stream.shutdown().await?;
                if stream.read(&mut [0; 1]).await? != 0 {
                    return Err(Error::from(ErrorKind::InvalidData));
                }
            }
            Ok::<_, Error>(count / TASKS)
        });
    }
    let mut sum = 0;
    while let Some(done) = set.join_next().await {
        sum += done??;
    }
    println!("{sum} connections");
    Ok(())
}

/// A long stream both ways at once, checked byte for byte.
async fn bulk(address: &str, bytes: usize) -> Result<()> {
    let byte = |at: usize| {
        (at as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes()[0]
    };
    let (mut from, mut to) = TcpStream::connect(address).await?.into_split();
    let writer = tokio::spawn(async move {
        let mut at = 0;
        while at < bytes {
            let chunk: Vec<u8> = (at..bytes.min(at + (64 << 10))).map(byte).collect();
            to.write_all(&chunk).await?;
            at += chunk.len();
        }
        to.shutdown().await
    });
    let (mut buffer, mut at) = (vec![0; 64 << 10], 0);
    loop {
        let len = timeout(Duration::from_secs(30), from.read(&mut buffer)).await??;
        if len == 0 {
            break;
        }
        if let Some(wrong) = (0..len).find(|&i| buffer[i] != byte(at + i)) {
            return Err(Error::other(format!("byte {} is wrong", at + wrong)));
        }
        at += len;
    }
    writer.await??;
    println!("{at} of {bytes} bytes");
    Ok(())
}

/// What a connection to a port without listener answers.
async fn refused(address: &str) -> Result<()> {
    let (host, _) = address.rsplit_once(':').ok_or(ErrorKind::InvalidInput)?;
    let error = TcpStream::connect(format!("{host}:1")).await.err();
    println!("{:?}", error.map(|error| error.kind()));
    Ok(())
}

/// Datagrams of all sizes, a few on their way at a time; one that gets lost is sent again.
async fn udp_load(address: &str, count: usize) -> Result<()> {
    let mut set = JoinSet::new();
    const TASKS: usize = 8;
    for task in 0..TASKS {
        let address = address.to_owned();
        set.spawn(async move {
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            socket.connect(address).await?;
            for n in 0..count / TASKS {
                datagram(&socket, &vec![task as u8 ^ n as u8; 1 + n * 7 % 1400]).await?;
            }
            Ok::<_, Error>(count / TASKS)
        });
    }
    let mut sum = 0;
    while let Some(done) = set.join_next().await {
        sum += done??;
    }
    println!("{sum} datagrams");
    Ok(())
}

async fn datagram(socket: &UdpSocket, message: &[u8]) -> Result<()> {
    let mut answer = [0; 2048];
    for _ in 0..20 {
        socket.send(message).await?;
        while let Ok(len) = timeout(Duration::from_millis(500), socket.recv(&mut answer)).await {
            if answer[..len?] == *message {
                return Ok(());
            }
        }
    }
    Err(Error::from(ErrorKind::TimedOut))
}
