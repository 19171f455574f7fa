//! Printing results.

use std::ffi::CString;

/// Prints what a call answered: its value, or the name of its error.
pub fn show(what: &str, result: impl Into<i64>) -> i64 {
    let result = result.into();
    if result == -1 {
        println!("{what}: {}", error_name());
    } else {
        println!("{what}: {result}");
    }
    result
}

/// As [`show`], but of a success only that it was one (for descriptors and the like).
pub fn outcome(what: &str, result: impl Into<i64>) -> i32 {
    let result = result.into();
    println!(
        "{what}: {}",
        if result == -1 {
            error_name()
        } else {
            "ok".into()
        }
    );
    result as i32
}

fn error_name() -> String {
    let number = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    NAMES
        .iter()
        .find(|known| known.0 == number)
        .map_or_else(|| format!("errno {number}"), |known| known.1.to_string())
}

const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::ENXIO, "ENXIO"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::EPIPE, "EPIPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENODATA, "ENODATA"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::E2BIG, "E2BIG"),
];

/// A C string.
pub fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in it")
}

/// Makes a file with contents.
pub fn put(path: &str, data: &[u8]) {
    std::fs::write(path, data).expect("a file can be written");
}

/// Opens, silently.
pub fn open(path: &str, flags: i32) -> i32 {
    // SAFETY: a valid string.
    unsafe { libc::open(c(path).as_ptr(), flags, 0o666) }
}

/// Closes, silently.
pub fn close(fd: i32) {
    // SAFETY: closes a descriptor that the caller opened.
    unsafe { libc::close(fd) };
}

/// Closes several, silently.
pub fn close_all(fds: &[i32]) {
    fds.iter().copied().for_each(close);
}
