//! Who asks: [`Cred`], the identity that permission bits are checked against.

use alloc::vec::Vec;

use crate::inode::{FileType, Metadata};
use crate::{Errno, Result};

/// Wants to read (`R_OK`).
pub const READ: u32 = 4;
/// Wants to write (`W_OK`).
pub const WRITE: u32 = 2;
/// Wants to execute or search (`X_OK`).
pub const EXECUTE: u32 = 1;

/// File system identity of the process. Root by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cred {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Cred {
    /// May do what only root may.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Belongs to group `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Owner or root.
    pub fn owns(&self, file: &Metadata) -> bool {
        self.is_root() || self.uid == file.uid
    }

    /// Checks `want` ([`READ`], [`WRITE`], [`EXECUTE`]) against the permission bits. Root may do anything, but execute only
    /// a file that someone may execute.
    pub fn check(&self, file: &Metadata, want: u32) -> Result<()> {
        let granted = if self.is_root() {
            let runnable = file.kind() == FileType::Directory || file.mode & 0o111 != 0;
            READ | WRITE | if runnable { EXECUTE } else { 0 }
        } else if self.uid == file.uid {
            file.mode >> 6 & 7
        } else if self.in_group(file.gid) {
            file.mode >> 3 & 7
        } else {
            file.mode & 7
        };
        if want & !granted == 0 {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
}
