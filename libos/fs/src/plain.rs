//! [`Plain`]: an open regular file or directory (or anything opened with `O_PATH`) seen through its inode.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::any::Any;

use linux_raw_sys::ioctl;

use crate::file::{FileLike, Seek};
use crate::inode::{FileType, Metadata, Node};
use crate::system::UserMemory;
use crate::{Errno, Result};

/// An inode as an open file.
pub struct Plain {
    node: Node,
    label: Vec<u8>,
}

impl Plain {
    /// Opens `node`. `label` is shown when no path leads to it (`/memfd:name (deleted)`).
    pub fn new(node: Node, label: Vec<u8>) -> Rc<Self> {
        Rc::new(Self { node, label })
    }

    fn check_file(&self) -> Result<()> {
        match self.node.kind() {
            FileType::Directory => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }
}

impl FileLike for Plain {
    fn metadata(&self) -> Metadata {
        self.node.metadata()
    }

    fn label(&self) -> Vec<u8> {
        self.label.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn node(&self) -> Option<Node> {
        Some(self.node.clone())
    }

    fn seek_kind(&self) -> Seek {
        Seek::Bytes
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<usize> {
        self.check_file()?;
        self.node.read_at(at, out)
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<usize> {
        self.check_file()?;
        self.node.write_at(at, data)
    }

    fn ioctl(&self, command: u32, argument: u64, memory: &dyn UserMemory) -> Result<u64> {
        if command == ioctl::FIONREAD && self.node.kind() == FileType::Regular {
            let size = i32::try_from(self.node.size()).unwrap_or(i32::MAX);
            memory.write(argument, &size.to_ne_bytes())?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }
}
