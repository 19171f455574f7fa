//! A terminal for tests.

use std::fs::File;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A new pseudo terminal: the side of its user, and that of its programs.
pub fn pty() -> (File, File) {
    let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&outside).unwrap();
    unlockpt(&outside).unwrap();
    let name = ptsname(&outside, Vec::new())
        .unwrap()
        .into_string()
        .unwrap();
    let inside = File::options().read(true).write(true).open(name).unwrap();
    (outside.into(), inside)
}
