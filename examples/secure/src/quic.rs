//! An echo over QUIC: many streams on one connection.

use crate::{NAME, Result, client_config, server_config};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const PROTOCOL: &[u8] = b"echo";
const STREAMS: usize = 20;
const MOST: usize = 1 << 20;

/// Sends back every stream of every connection.
pub async fn serve(address: SocketAddr) -> Result<()> {
    let crypto = QuicServerConfig::try_from(server_config(PROTOCOL)?)?;
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), address)?;
    println!("listening on {address}");
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let bytes = receive.read_to_end(MOST).await?;
                    send.write_all(&bytes).await?;
                    send.finish()?;
                    Result::Ok(())
                });
            }
            Result::Ok(())
        });
    }
    Ok(())
}

/// Echoes of growing size, all at once.
pub async fn echo(address: SocketAddr) -> Result<()> {
    let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let crypto = QuicClientConfig::try_from(client_config(PROTOCOL)?)?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    let connection = endpoint.connect(address, NAME)?.await?;
    let mut tasks = Vec::new();
    for n in 0..STREAMS {
        tasks.push(tokio::spawn(round(connection.clone(), n)));
    }
    let mut sum = 0;
    for task in tasks {
        sum += task.await??;
    }
    println!("{STREAMS} streams, {sum} bytes");
    connection.close(0u8.into(), b"done");
    endpoint.wait_idle().await;
    Ok(())
}

async fn round(connection: Connection, n: usize) -> Result<usize> {
    let message = vec![n as u8; n * 10_000];
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&message).await?;
    send.finish()?;
    let answer = receive.read_to_end(MOST).await?;
    if answer == message {
        Ok(answer.len())
    } else {
        Err("another answer".into())
    }
}
