//! hickory's name server with a zone of a thousand hosts, and who asks it: hickory's resolver for many names at once, and by way of
//! `/etc/resolv.conf` the C library's for std and reqwest.
//!
//! `serve ADDRESS`, `ask ADDRESS COUNT`, `web`, which changes `/etc/resolv.conf`: for a guest of its own, and `addresses`.

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::rdata::{A, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record};
use hickory_resolver::proto::xfer::Protocol;
use hickory_server::ServerFuture;
use hickory_server::authority::{Catalog, ZoneType};
use hickory_server::store::in_memory::InMemoryAuthority;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ZONE: &str = "unik.test.";

/// Hosts in the zone.
const HOSTS: u32 = 1000;

/// Questions under way at once.
const AT_ONCE: usize = 64;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => serve(UdpSocket::bind(address).await?).await,
        ["ask", address, count] => ask(address.parse()?, count.parse()?).await,
        ["web"] => web().await,
        ["addresses"] => addresses().await,
        _ => Err("serve ADDRESS, ask ADDRESS COUNT, web, or addresses".into()),
    }
}

fn address(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + host)
}

async fn serve(socket: UdpSocket) -> Result<()> {
    let listen = socket.local_addr()?;
    let zone = Name::from_ascii(ZONE)?;
    let mut authority = InMemoryAuthority::empty(zone.clone(), ZoneType::Primary, false);
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 60);
    authority.upsert_mut(Record::from_rdata(zone.clone(), 60, RData::SOA(soa)), 1);
    let hosts = (0..HOSTS).map(|host| (format!("h{host}"), address(host)));
    for (host, ip) in hosts.chain([("web".to_owned(), Ipv4Addr::LOCALHOST)]) {
        let name = Name::from_ascii(format!("{host}.{ZONE}"))?;
        authority.upsert_mut(Record::from_rdata(name, 60, RData::A(A(ip))), 1);
    }
    let mut catalog = Catalog::new();
    catalog.upsert(zone.into(), vec![Arc::new(authority)]);
    let mut server = ServerFuture::new(catalog);
    server.register_socket(socket);
    println!("listening on {listen}");
    server.block_until_done().await?;
    Ok(())
}

async fn ask(server: SocketAddr, count: u32) -> Result<()> {
    let mut config = ResolverConfig::new();
    config.add_name_server(NameServerConfig::new(server, Protocol::Udp));
    let mut builder = Resolver::builder_with_config(config, TokioConnectionProvider::default());
    // Every question goes out.
    builder.options_mut().cache_size = 0;
    builder.options_mut().attempts = 10;
    let resolver = Arc::new(builder.build());
    let (mut asked, mut answers, mut right) = (JoinSet::new(), 0, 0);
    for number in 0..count {
        if asked.len() == AT_ONCE {
            right += asked.join_next().await.transpose()?.unwrap_or(Ok(0))?;
            answers += 1;
        }
        let (resolver, host) = (Arc::clone(&resolver), number % HOSTS);
        asked.spawn(async move {
            let found = resolver.ipv4_lookup(format!("h{host}.{ZONE}")).await?;
            let expected = found.iter().all(|a| a.0 == address(host));
            Ok::<u32, hickory_resolver::ResolveError>(expected.into())
        });
    }
    while let Some(one) = asked.join_next().await {
        right += one??;
        answers += 1;
    }
    println!("{answers} answers, {right} right");
    let missing = resolver.ipv4_lookup(format!("nobody.{ZONE}")).await;
    println!(
        "nobody: {}",
        missing.is_err_and(|error| error.is_nx_domain())
    );
    Ok(())
}

/// A page on this machine, found by name.
async fn web() -> Result<()> {
    // reqwest asks for one even when nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::fs::remove_file("/etc/resolv.conf")?;
    std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.1\n")?;
    let names = tokio::spawn(serve(UdpSocket::bind("127.0.0.1:53").await?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let pages = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut request = [0; 4096];
            let len = stream.read(&mut request).await?;
            let line = String::from_utf8_lossy(&request[..len]);
            let page = line.lines().next().unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
    });
    let asking = async {
        let answer = reqwest::get(format!("http://web.{ZONE}:{port}/page")).await?;
        println!("reqwest: {}", answer.text().await?);
        let nobody = reqwest::get(format!("http://nobody.{ZONE}:{port}/")).await;
        println!("reqwest, nobody: {}", nobody.is_err_and(|e| e.is_connect()));
        let found =
            tokio::task::spawn_blocking(|| ("h7.unik.test", 80).to_socket_addrs()).await??;
        println!("std: {:?}", found.collect::<Vec<_>>());
        let nobody =
            tokio::task::spawn_blocking(|| ("nobody.unik.test", 80).to_socket_addrs()).await?;
        println!("std, nobody: {}", nobody.is_err());
        Ok(())
    };
    tokio::select! {
        result = asking => result,
        result = names => result?,
        result = pages => result?,
    }
}

/// What a card gets without being told: an address by DHCP, and one with a router's prefix (SLAAC).
async fn addresses() -> Result<()> {
    let (mut dhcp, mut slaac) = (false, false);
    for _ in 0..100 {
        let cards = if_addrs::get_if_addrs()?;
        let mut others = cards
            .iter()
            .map(|card| card.ip())
            .filter(|ip| !ip.is_loopback());
        dhcp |= others.clone().any(|ip| ip.is_ipv4());
        slaac |= others.any(|ip| ip.is_ipv6());
        if dhcp && slaac {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("IPv4 {dhcp}, IPv6 {slaac}");
    Ok(())
}
