//! Sockets without a network: TCP and UDP on the loopback, Unix sockets, what goes wrong, and tokio with fifty connections.

mod async_echo;
mod errors;
mod inet;
mod messages;
mod options;
mod unix;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    inet::run()?;
    unix::run()?;
    messages::run()?;
    options::run()?;
    errors::run()?;
    async_echo::run()?;
    println!("done");
    Ok(())
}

/// Bytes that are not all alike: `len` of them, different for each `seed`.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) | 1;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}
