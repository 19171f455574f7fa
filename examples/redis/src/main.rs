//! mini-redis from crates.io: its server, and a client that uses all of its commands.
//!
//! `serve ADDRESS`, `client ADDRESS`

use mini_redis::client::connect;
use mini_redis::{Result, server};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => {
            let listener = TcpListener::bind(address).await?;
            println!("listening on {address}");
            server::run(listener, signal::ctrl_c()).await
        }
        ["client", address] => client(address).await,
        _ => Err("serve ADDRESS or client ADDRESS".into()),
    }
}

async fn client(address: &str) -> Result<()> {
    let mut client = connect(address).await?;
    println!("before: {:?}", client.get("key").await?);
    client.set("key", "value".into()).await?;
    println!("after: {:?}", client.get("key").await?);
    let lasting = Duration::from_millis(100);
    client
        .set_expires("brief", "gone soon".into(), lasting)
        .await?;
    println!("brief: {:?}", client.get("brief").await?);
    tokio::time::sleep(lasting * 3).await;
    println!("later: {:?}", client.get("brief").await?);
    publish(address).await?;
    pipeline(address).await
}

/// A subscriber hears what another connection publishes.
async fn publish(address: &str) -> Result<()> {
    let listening = connect(address).await?;
    let mut listening = listening.subscribe(vec!["news".into()]).await?;
    let mut speaking = connect(address).await?;
    for n in 0..3 {
        let heard_by = speaking
            .publish("news", format!("message {n}").into())
            .await?;
        let message = listening.next_message().await?.ok_or("no message")?;
        let text = String::from_utf8_lossy(&message.content).into_owned();
        println!("{}: {text} ({heard_by} listens)", message.channel);
    }
    Ok(())
}

/// Twenty clients at once.
async fn pipeline(address: &str) -> Result<()> {
    let mut tasks = Vec::new();
    for task in 0..20 {
        let address = address.to_owned();
        tasks.push(tokio::spawn(async move {
            let mut client = connect(address).await?;
            for n in 0..50 {
                let (key, value) = (format!("{task}-{n}"), vec![task; n * 100]);
                client.set(&key, value.clone().into()).await?;
                if client.get(&key).await?.as_deref() != Some(&value[..]) {
                    return Err(mini_redis::Error::from("another value"));
                }
            }
            Ok(50)
        }));
    }
    let mut sum = 0;
    for task in tasks {
        sum += task.await??;
    }
    println!("{sum} values");
    Ok(())
}
