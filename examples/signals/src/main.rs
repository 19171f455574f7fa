//! Signals sent to oneself, and with `wait` those that come from outside. `sleep` handles none.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("wait") => wait_for_one(),
        Some("sleep") => {
            ready()?;
            std::thread::sleep(Duration::from_secs(60));
            println!("never printed");
            Ok(())
        }
        _ => own_signals(),
    }
}

fn own_signals() -> io::Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    flag::register(SIGUSR1, Arc::clone(&seen))?;
    low_level::raise(SIGUSR1)?;
    println!("flag {}", seen.load(Ordering::SeqCst));

    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    // SAFETY: the handler only adds to an atomic, which is async-signal-safe.
    let id = unsafe {
        low_level::register(SIGUSR2, move || _ = counter.fetch_add(1, Ordering::SeqCst))
    }?;
    (0..100).try_for_each(|_| low_level::raise(SIGUSR2))?;
    println!(
        "handler ran {} times, unregistered {}",
        count.load(Ordering::SeqCst),
        low_level::unregister(id)
    );

    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let (sender, seen) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let mut two = signals.forever().take(2);
        two.all(|signal| sender.send(signal).is_ok())
    });
    low_level::raise(SIGTERM)?;
    let first = seen.recv();
    low_level::raise(SIGINT)?;
    println!("thread saw {first:?} {:?} {:?}", seen.recv(), waiter.join());
    handle.close();
    Ok(())
}

fn wait_for_one() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    ready()?;
    let signal = signals.forever().next();
    println!("got {signal:?}, leaving in order");
    Ok(())
}

fn ready() -> io::Result<()> {
    println!("ready");
    io::stdout().flush()
}
