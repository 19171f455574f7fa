//! Encrypted connections: a hyper server behind rustls with clients by hyper and reqwest, and an echo over QUIC with quinn.
//!
//! `https ADDRESS`, `get ADDRESS`, `quic ADDRESS`, `echo ADDRESS`. The certificate is for `localhost` and for nothing but this example.

mod https;
mod quic;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CERTIFICATE: &[u8] = include_bytes!("../certificate.der");
const KEY: &[u8] = include_bytes!("../key.der");
const NAME: &str = "localhost";

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["https", address] => https::serve(address).await,
        ["get", address] => https::get(address.parse()?).await,
        ["quic", address] => quic::serve(address.parse()?).await,
        ["echo", address] => quic::echo(address.parse()?).await,
        _ => Err("https, get, quic or echo, and an address".into()),
    }
}

fn server_config(protocol: &[u8]) -> Result<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let chain = vec![CertificateDer::from(CERTIFICATE)];
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn client_config(protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE))?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}
