//! System calls about files, one by one, with their results and error numbers as Linux gives them.
//!
//! Works in a fresh directory of `/dev/shm`, so that natively a tmpfs answers, too. Prints nothing that differs from run to run.

mod attributes;
mod descriptors;
mod events;
mod mappings;
mod names;
mod show;
mod transfers;
mod waiting;

use std::ffi::CString;

fn main() {
    let directory = format!("/dev/shm/file-calls-{}", std::process::id());
    let path = CString::new(directory.clone()).expect("no NUL");
    // SAFETY: plain system calls with a valid string.
    unsafe {
        libc::umask(0o022);
        libc::mkdir(path.as_ptr(), 0o755);
        libc::chdir(path.as_ptr());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    names::run();
    attributes::run();
    transfers::run();
    descriptors::run();
    events::run();
    mappings::run();
    waiting::run();
    std::env::set_current_dir("/").expect("there is a root");
    std::fs::remove_dir_all(&directory).expect("can be removed");
    println!("done");
}
