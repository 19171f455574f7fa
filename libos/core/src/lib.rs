//! Algorithms of the library OS that need no hardware, so that host tests reach them.
//!
//! - [`frames`]: physical memory, in 4 KiB frames and 2 MiB chunks.
//! - [`areas`]: the ordered set of virtual memory areas with split, cut and gap search.
//! - [`runqueue`]: which thread runs next on which vCPU.
//! - [`timers`]: deadlines in order.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod areas;
pub mod frames;
pub mod runqueue;
pub mod timers;
