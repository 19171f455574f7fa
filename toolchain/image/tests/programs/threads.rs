//! Threads, locks, sleeps, files, time and a caught panic; prints one line.
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let shared = Arc::new((Mutex::new(0u64), Condvar::new()));
    let (sender, receiver) = mpsc::channel();
    let work = |i: u64| {
        let (shared, sender) = (shared.clone(), sender.clone());
        move || {
            let mut map = HashMap::new();
            (0..1000u64).for_each(|k| *map.entry(k % 7).or_insert(0u64) += k * i);
            thread::sleep(Duration::from_millis(i));
            *shared.0.lock().unwrap() += map.values().sum::<u64>();
            shared.1.notify_all();
            sender.send(i).unwrap();
        }
    };
    let threads: Vec<_> = (0..6)
        .map(|i| {
            thread::Builder::new()
                .name(format!("w{i}"))
                .spawn(work(i))
                .unwrap()
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    drop(sender);
    let mut got: Vec<u64> = receiver.iter().collect();
    got.sort();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(|| panic!("boom")).is_err();
    let start = Instant::now();
    let path = std::env::temp_dir().join(format!("unik-image-test-{}", std::process::id()));
    std::fs::write(&path, "abc").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let missing = std::fs::read(&path).unwrap_err().kind();
    println!(
        "{} {got:?} {caught} {text} {missing} {}",
        shared.0.lock().unwrap(),
        start.elapsed().as_secs() < 5
    );
    ExitCode::from(7)
}
