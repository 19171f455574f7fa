//! What the monitor asks about terminals, and raw mode for guests that have a terminal driver of their own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, Once, PoisonError};

/// Columns and rows of the terminal `fd`; `None` when it is not one or does not tell.
pub fn size(fd: &impl AsRawFd) -> Option<(u16, u16)> {
    // SAFETY: an all-zero winsize is valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes one winsize.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Whether reading from the terminal `fd` would stop this process because it runs in the background.
pub fn in_background(fd: &impl AsRawFd) -> bool {
    // SAFETY: both calls only ask.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(fd.as_raw_fd()), libc::getpgrp()) };
    foreground >= 0 && foreground != own
}

/// The settings to restore, with the terminal that they belong to.
static BEFORE: Mutex<Option<(File, libc::termios)>> = Mutex::new(None);

/// A terminal that passes every key on, until this value is dropped or the process panics.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Switches `terminal` to raw mode; `None` when it is not a terminal.
    pub fn enter(terminal: &(impl AsFd + AsRawFd)) -> Option<Self> {
        static HOOK: Once = Once::new();
        let file = File::from(terminal.as_fd().try_clone_to_owned().ok()?);
        let before = settings(&file).ok()?;
        let mut raw = before;
        // SAFETY: cfmakeraw only changes the settings it is given.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, before));
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        set(terminal, &raw).ok()?;
        Some(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some((file, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that has gone away needs nothing.
        let _ = set(&file, &before);
    }
}

fn settings(terminal: &impl AsRawFd) -> io::Result<libc::termios> {
    // SAFETY: an all-zero termios is valid.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: tcgetattr writes one termios.
    match unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings) } {
        0 => Ok(settings),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(terminal: &impl AsRawFd, settings: &libc::termios) -> io::Result<()> {
    // SAFETY: tcsetattr reads one termios.
    match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSADRAIN, settings) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
