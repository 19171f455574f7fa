//! HTTP over TLS over TCP.

use crate::{CERTIFICATE, NAME, Result, client_config, server_config};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PROTOCOL: &[u8] = b"http/1.1";

/// Answers every request with a body as long as its path says.
pub async fn serve(address: &str) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(PROTOCOL)?));
    let listener = TcpListener::bind(address).await?;
    println!("listening on {address}");
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let len: usize = request.uri().path().trim_start_matches('/').parse()?;
    Ok(Response::new(Full::from(vec![b'u'; len])))
}

/// Fetches with hyper and rustls, then with reqwest.
pub async fn get(address: SocketAddr) -> Result<()> {
    for len in [0, 1, 1000, 3_000_000] {
        println!("hyper: {}", fetch(address, len).await?);
    }
    let root = reqwest::Certificate::from_der(CERTIFICATE)?;
    let client = reqwest::Client::builder()
        .add_root_certificate(root)
        .resolve(NAME, address)
        .build()?;
    for len in [10, 500_000] {
        let url = format!("https://{NAME}:{}/{len}", address.port());
        let answer = client.get(url).send().await?;
        println!(
            "reqwest: {} {}",
            answer.status(),
            answer.bytes().await?.len()
        );
    }
    by_name().await
}

/// One request on a connection of its own.
async fn fetch(address: SocketAddr, len: usize) -> Result<String> {
    let connector = TlsConnector::from(client_config(PROTOCOL)?);
    let stream = TcpStream::connect(address).await?;
    let stream = connector.connect(NAME.try_into()?, stream).await?;
    let version = stream.get_ref().1.protocol_version();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("/{len}"))
        .header("host", NAME)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(format!("{version:?} {status} {}", body.len()))
}

/// A plain server on this machine, found by name.
async fn by_name() -> Result<()> {
    let listener = TcpListener::bind((NAME, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    let answer = reqwest::get(format!("http://{NAME}:{port}/7")).await?;
    println!("by name: {}", answer.text().await?);
    Ok(())
}
