//! Sockets of the library OS: Linux's semantics, error numbers and readiness, without a kernel and without drivers.
//!
//! Nothing here waits. An operation that would have to wait answers [`Errno::EAGAIN`] and has changed nothing; each socket tells its
//! [`Hook`] when its readiness may have changed, and the kernel waits there and asks again. Everything happens under the kernel's one lock.
//!
//! - [`addr`]: socket addresses and their wire form.
//! - [`errno`], [`ready`]: error numbers, readiness bits and the wake hook.
//! - [`message`]: what the send and receive calls carry.
//! - [`unix`]: AF_UNIX: stream, datagram, seqpacket; pairs; abstract and path names.
//! - [`net`]: [`Net`], which makes sockets and owns the stack; [`host`]: what the kernel provides.
//! - [`inet`]: TCP, UDP and ICMP echo sockets; [`netlink`]: interface dumps. [`report`]: `/proc/net`. `stack`: the tables behind them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod errno;
pub mod host;
pub mod inet;
pub mod message;
pub mod net;
pub mod netlink;
pub mod ready;
pub mod report;
mod stack;
pub mod unix;

pub use errno::{Errno, Result};
pub use host::{DeviceInfo, Host, PacketDevice, TxOffload};
pub use inet::InetSocket;
pub use net::{Net, Socket};
pub use ready::Hook;
pub use report::Report;
pub use stack::link::LinkSetup;
pub use stack::{Counters, Kind, Limits};
