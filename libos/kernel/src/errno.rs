//! Linux error numbers, the same type as the file systems use.

pub use unik_fs::{Errno, Result};
