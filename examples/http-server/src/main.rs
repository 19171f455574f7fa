//! An axum server: a greeting, an answer made of the request, and the files of a folder; and a client that asks for all of it.
//!
//! `http-server [serve ADDRESS [FOLDER]]`, `http-server get ADDRESS PATH...`

use axum::Router;
use axum::extract::Path;
use axum::routing::{get, post};
use std::io::{Read, Write};
use tower_http::services::ServeDir;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["get", address, ref paths @ ..] => ask(address, paths),
        [] => serve("0.0.0.0:80", "/www"),
        ["serve", address] => serve(address, "/www"),
        ["serve", address, folder] => serve(address, folder),
        _ => Err(std::io::Error::other(
            "serve ADDRESS [FOLDER] or get ADDRESS PATH...",
        )),
    }
}

#[tokio::main]
async fn serve(address: &str, folder: &str) -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(async || "Hello, World!\n"))
        .route("/hello/{name}", get(hello))
        .route("/length", post(async |body: String| body.len().to_string()))
        .nest_service("/files", ServeDir::new(folder));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}

async fn hello(Path(name): Path<String>) -> String {
    format!("Hello, {name}!\n")
}

/// Asks for each path on a connection of its own, and prints the answers without their dates.
fn ask(address: &str, paths: &[&str]) -> std::io::Result<()> {
    for path in paths {
        let answer = request(address, &format!("GET {path} HTTP/1.1\r\n"), b"")?;
        println!("{path}: {answer}");
    }
    let body = vec![b'x'; 1_000_000];
    println!(
        "length: {}",
        request(address, "POST /length HTTP/1.1\r\n", &body)?
    );
    Ok(())
}

fn request(address: &str, line: &str, body: &[u8]) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    let head = format!(
        "{line}Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let varies = |line: &&str| line.starts_with("date:") || line.starts_with("last-modified:");
    Ok(answer
        .lines()
        .filter(|line| !varies(line))
        .collect::<Vec<_>>()
        .join("\n"))
}
