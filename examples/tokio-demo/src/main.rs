//! Tokio's multi-thread runtime without a network: timers, channels, blocking threads, files, signals, pipes.

use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> Result<()> {
    timers().await;
    channels().await?;
    println!("blocking {}", blocking().await?);
    files().await?;
    signals().await?;
    duplex().await?;
    contention().await?;
    println!(
        "panic in a task: {}",
        tokio::spawn(async { std::panic::resume_unwind(Box::new(1)) })
            .await
            .is_err()
    );
    Ok(())
}

async fn timers() {
    let start = Instant::now();
    let mut set = JoinSet::new();
    for n in (1..=100u64).rev() {
        set.spawn(async move {
            sleep(Duration::from_millis(n % 20)).await;
            n
        });
    }
    let sum: u64 = set.join_all().await.into_iter().sum();
    let mut ticks = interval(Duration::from_millis(2));
    for _ in 0..5 {
        ticks.tick().await;
    }
    println!(
        "timers {sum}, long enough {}",
        start.elapsed() >= Duration::from_millis(27)
    );
    println!(
        "timeout {}",
        timeout(Duration::from_millis(5), std::future::pending::<()>())
            .await
            .is_err()
    );
}

async fn channels() -> Result<()> {
    let (sender, mut receiver) = mpsc::channel(8);
    for n in 0..10u64 {
        let sender = sender.clone();
        tokio::spawn(async move {
            for i in 0..100 {
                let _ = sender.send(n * 100 + i).await;
            }
        });
    }
    drop(sender);
    let mut sum = 0;
    while let Some(n) = receiver.recv().await {
        sum += n;
    }
    let (one, answer) = oneshot::channel();
    tokio::spawn(async move { one.send("once") });
    let (all, mut first) = broadcast::channel(4);
    let mut second = all.subscribe();
    all.send(5)?;
    let (set, mut seen) = watch::channel(0);
    set.send(9)?;
    seen.changed().await?;
    println!(
        "channels {sum} {} {} {} {}",
        answer.await?,
        first.recv().await?,
        second.recv().await?,
        *seen.borrow()
    );
    Ok(())
}

async fn blocking() -> Result<u64> {
    let mut total = 0;
    let tasks: Vec<_> = (0..32u64)
        .map(|n| {
            tokio::task::spawn_blocking(move || (std::thread::sleep(Duration::from_millis(2)), n).1)
        })
        .collect();
    for task in tasks {
        total += task.await?;
    }
    Ok(total)
}

async fn files() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tokio-demo-{}", std::process::id()));
    let mut file = tokio::fs::File::create(&path).await?;
    for n in 0..1000 {
        file.write_all(format!("{n}\n").as_bytes()).await?;
    }
    file.flush().await?;
    let text = tokio::fs::read_to_string(&path).await?;
    println!(
        "file {} lines, {} bytes",
        text.lines().count(),
        tokio::fs::metadata(&path).await?.len()
    );
    Ok(tokio::fs::remove_file(&path).await?)
}

async fn signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let pid = std::process::id();
    let sent = tokio::task::spawn_blocking(move || raise(pid)).await?;
    println!(
        "signal sent {sent}, seen {:?}",
        timeout(Duration::from_secs(5), usr1.recv()).await?
    );
    Ok(())
}

/// SIGUSR1 to oneself through the C library that std links anyway.
fn raise(pid: u32) -> bool {
    unsafe extern "C" {
        safe fn kill(pid: i32, signal: i32) -> i32;
    }
    i32::try_from(pid).is_ok_and(|pid| kill(pid, 10) == 0)
}

async fn duplex() -> Result<()> {
    let (mut sender, mut receiver) = tokio::net::unix::pipe::pipe()?;
    let writer = tokio::spawn(async move {
        for n in 0..2000u32 {
            sender.write_all(&n.to_le_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut bytes = Vec::new();
    receiver.read_to_end(&mut bytes).await?;
    writer.await??;
    println!("pipe {} bytes", bytes.len());
    Ok(())
}

async fn contention() -> Result<()> {
    let (count, permits) = (Arc::new(Mutex::new(0u32)), Arc::new(Semaphore::new(3)));
    let mut set = JoinSet::new();
    for _ in 0..1000 {
        let (count, permits) = (Arc::clone(&count), Arc::clone(&permits));
        set.spawn(async move {
            let _permit = permits.acquire().await;
            *count.lock().await += 1;
            tokio::task::yield_now().await;
        });
    }
    set.join_all().await;
    println!("contention {}", count.lock().await);
    Ok(())
}
