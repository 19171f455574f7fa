//! What the monitor asks about terminals. It changes none of their settings, so none has to be restored.

use std::os::fd::AsRawFd;

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
