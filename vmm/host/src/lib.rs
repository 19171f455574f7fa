//! What the monitor asks Linux for and what needs `unsafe`: KVM, guest memory, signals, terminals.
//!
//! Knows no device and no image. Everything it returns is safe to use; every `unsafe` block says why it is sound.
//!
//! - [`memory`]: guest RAM, lazily backed, with files mapped into it.
//! - [`gate`]: parts of it that are filled while the guest runs.
//! - [`kvm`]: the virtual machine: memory slots, interrupt messages, doorbells.
//! - [`vcpu`]: one virtual CPU; its exits are an enum ([`exit::Exit`]) that somebody else dispatches; [`kick`] takes it out.
//! - [`cpuid`]: what the guest's `cpuid` answers.
//! - [`signals`]: signals as a file descriptor, and the kick that takes a vCPU out of the guest.
//! - [`poll`]: waiting for file descriptors.
//! - [`disk`]: disk images as rows of bytes.
//! - [`tap`]: network devices of the host.
//! - [`seccomp`]: which system calls a thread may make.
//! - [`clock`]: the time stamp counter and the wall clock.
//! - [`entropy`], [`terminal`], [`limits`]: small questions to the kernel.

pub mod clock;
pub mod cpuid;
pub mod disk;
pub mod entropy;
pub mod exit;
pub mod gate;
pub mod kick;
pub mod kvm;
pub mod limits;
pub mod memory;
pub mod poll;
pub mod seccomp;
pub mod signals;
pub mod tap;
pub mod terminal;
pub mod vcpu;

pub use vmm_sys_util::eventfd::EventFd;

use std::io;

/// An event counter that never blocks.
pub fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}
