//! Tokio: an echo server with fifty connections at once, on TCP and on a Unix socket.

use crate::{Result, pattern};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::task::JoinSet;

const CONNECTIONS: u8 = 50;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
pub async fn run() -> Result<()> {
    println!("tokio tcp: {} bytes", tcp().await?);
    println!("tokio unix: {} bytes", unix().await?);
    let (a, b) = (
        UdpSocket::bind("127.0.0.1:0").await?,
        UdpSocket::bind("127.0.0.1:0").await?,
    );
    a.send_to(b"datagram", b.local_addr()?).await?;
    let mut buffer = [0; 16];
    let (len, _) = b.recv_from(&mut buffer).await?;
    println!("tokio udp: {}", String::from_utf8_lossy(&buffer[..len]));
    Ok(())
}

async fn tcp() -> Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
        Ok::<_, std::io::Error>(())
    });
    let mut clients = JoinSet::new();
    for seed in 0..CONNECTIONS {
        clients.spawn(async move { talk(TcpStream::connect(address).await?, seed).await });
    }
    let total = sum(clients).await?;
    server.await??;
    Ok(total)
}

async fn unix() -> Result<usize> {
    const PATH: &str = "/tmp/unik-example-tokio.sock";
    let _ = std::fs::remove_file(PATH);
    let listener = UnixListener::bind(PATH)?;
    let server = tokio::spawn(async move {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
        Ok::<_, std::io::Error>(())
    });
    let mut clients = JoinSet::new();
    for seed in 0..CONNECTIONS {
        clients.spawn(async move { talk(UnixStream::connect(PATH).await?, seed).await });
    }
    let total = sum(clients).await?;
    server.await??;
    std::fs::remove_file(PATH)?;
    Ok(total)
}

async fn sum(mut clients: JoinSet<Result<usize>>) -> Result<usize> {
    let mut total = 0;
    while let Some(client) = clients.join_next().await {
        total += client??;
    }
    Ok(total)
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => stream.write_all(&buffer[..len]).await?,
        }
    }
}

/// Sends while it receives; more than the buffers on the way hold at once.
async fn talk(stream: impl AsyncRead + AsyncWrite, seed: u8) -> Result<usize> {
    let sent = pattern(seed, 20_000 + usize::from(seed) * 1000);
    let (mut read, mut write) = tokio::io::split(stream);
    let mut got = vec![0; sent.len()];
    let writing = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let (reading, writing) = tokio::join!(read.read_exact(&mut got), writing);
    reading?;
    writing?;
    assert_eq!(sent, got);
    assert_eq!(read.read(&mut [0; 1]).await?, 0);
    Ok(got.len())
}
