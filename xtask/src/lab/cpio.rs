//! A writer of initial RAM disks: the `newc` format of cpio (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Archives are written straight to a file; folders above an entry are made by the writer, once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    at: u64,
    next_inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            at: 0,
            next_inode: 1,
            folders: BTreeSet::new(),
        }
    }

    /// Adds a folder. Paths have no leading slash.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.parents(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, 0)?;
        }
        Ok(())
    }

    /// Adds a file with these permission bits.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR | mode, content.len() as u64)?;
        self.write(content)?;
        self.pad()
    }

    /// Adds a copy of a file of the host.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> io::Result<()> {
        self.parents(path)?;
        let mut file = File::open(from)?;
        let len = file.metadata()?.len();
        self.entry(path, REGULAR | mode, len)?;
        let copied = io::copy(&mut io::Read::take(&mut file, len), &mut self.out)?;
        self.at += copied;
        if copied != len {
            return Err(io::Error::other(format!(
                "{} became shorter while it was read",
                from.display()
            )));
        }
        self.pad()
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, LINK, to.len() as u64)?;
        self.write(to.as_bytes())?;
        self.pad()
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, 0)?;
        // The kernel takes the next archive in a row at any multiple of 4; block devices like more.
        while !self.at.is_multiple_of(512) {
            self.write(&[0])?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, len: u64) -> io::Result<()> {
        let len = u32::try_from(len)
            .map_err(|_| io::Error::other(format!("{path} is too long for an initial RAM disk")))?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            len,
            0,
            0,
            0,
            0,
            path.len() as u32 + 1,
            0,
        ];
        let mut header = "070701".to_owned();
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.write(header.as_bytes())?;
        self.write(path.as_bytes())?;
        self.write(&[0])?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.at.next_multiple_of(4) - self.at;
        self.write(&[0; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_for_an_archive() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a/b/c", 0o644, b"hello").unwrap();
        archive.link("a/l", "b/c").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let names: Vec<_> = ["a\0", "a/b\0", "a/b/c\0", "a/l\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| {
                bytes
                    .windows(name.len() + 8)
                    .position(|w| w[..8] == *b"00000000" && &w[8..] == name.as_bytes())
            })
            .collect();
        assert!(
            names.iter().all(Option::is_some) && names.is_sorted(),
            "{names:?}"
        );
        assert_eq!(&bytes[..14], b"07070100000001");
    }
}
