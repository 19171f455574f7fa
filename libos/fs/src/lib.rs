//! File systems, descriptors and event files of the library OS, with Linux semantics and without any hardware.
//!
//! Knows no system-call numbers, no drivers, no threads: what it needs comes through small traits ([`system::System`], [`procfs::ProcSource`],
//! [`console::ConsoleDevice`], [`timerfd::Alarm`], [`signalfd::SignalSource`]), so all of it runs in host tests.
//! Everything is single-threaded (`Rc`, `RefCell`): the kernel calls it under its one lock.
//!
//! - [`vfs::Vfs`]: root, working directory, `open` and (in [`names`], [`attributes`]) everything else that takes a path.
//! - [`tree`]: the tree at start: packed files ([`packed`]) under a writable tmpfs ([`tmpfs`]), [`dev`], [`procfs`].
//! - [`mod@file`]: open files, and the [`file::FileLike`] trait that everything with a descriptor implements; [`fdtable`].
//! - [`pipe`], [`eventfd`], [`timerfd`], [`signalfd`], [`epoll`], [`inotify`], [`console`]: files without a file system.
//! - [`wait`]: how readiness is told; nothing in this crate waits.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod anon;
pub mod attributes;
pub mod console;
pub mod cred;
pub mod dev;
pub mod dirent;
pub mod epoll;
pub mod errno;
pub mod eventfd;
pub mod fdtable;
pub mod file;
pub mod inode;
pub mod inotify;
pub mod lock;
pub mod memfd;
pub mod mount;
pub mod names;
pub mod packed;
pub mod pipe;
pub mod plain;
pub mod procfs;
pub mod signalfd;
pub mod system;
pub mod timerfd;
pub mod tmpfs;
pub mod tree;
pub mod vfs;
pub mod wait;
pub mod walk;

pub use errno::{Errno, Result};
pub use inode::{FileType, Inode, Metadata, Node, PageRef};
pub use linux_raw_sys;
