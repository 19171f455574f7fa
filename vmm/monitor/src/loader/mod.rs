//! Image files to guest memory.
//!
//! [`Image::open`] reads headers and notes and says what the file is; [`Image::load`] puts it into guest RAM. A Unik image
//! lies in guest memory as it lies in the file, so it is mapped and nothing is copied; another PVH kernel is copied segment
//! by segment. Each further kind of guest is one more file here.

pub mod elf;
mod filling;
pub mod linux;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use unik_abi::image::{NOTE_OWNER, NOTE_VERSION};
use unik_abi::pvh::XEN_ELFNOTE_PHYS32_ENTRY;
use unik_abi::{ABI_VERSION, layout};
use unik_host::memory::{GuestRam, Warmer};
use vm_memory::{Bytes, GuestAddress};

use elf::{Elf, ElfError, Load};

/// Why an image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// As given.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// As given.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// Not readable as an ELF file for this machine.
    #[error(
        "{path} is not a Unik image: {source}; build one with `cargo unik build`, or `cargo unik pack` from a static program"
    )]
    Elf {
        /// As given.
        path: PathBuf,
        /// Why.
        source: ElfError,
    },
    /// An ELF file that does not boot.
    #[error(
        "{path} is an ordinary program, not a Unik image: make one with `cargo unik pack {path} -o {path}.unik`"
    )]
    NotBootable {
        /// As given.
        path: PathBuf,
    },
    /// Made by another version.
    #[error(
        "{path} follows version {image} of the Unik contract, this monitor version {monitor}: rebuild the image with `cargo unik build`, or use the unik-vmm of the same release"
    )]
    Version {
        /// As given.
        path: PathBuf,
        /// Version of the image.
        image: u32,
        /// Version of this monitor.
        monitor: u32,
    },
    /// Notes or segments break the contract.
    #[error("{path} is damaged: {what}; rebuild it")]
    Damaged {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A segment of a foreign kernel has no place.
    #[error("{path} wants memory at {at:#x}, {len} bytes: give the guest more memory (--memory)")]
    Place {
        /// As given.
        path: PathBuf,
        /// Guest physical address.
        at: u64,
        /// Bytes.
        len: u64,
    },
}

/// An image file whose headers made sense.
#[derive(Debug)]
pub struct Image {
    /// As given.
    pub path: PathBuf,
    /// The open file.
    pub file: File,
    /// Its length.
    pub len: u64,
    /// 32-bit entry point, physical.
    pub entry: u32,
    /// The manifest of a Unik image; `None` for another PVH kernel.
    pub manifest: Option<Vec<u8>>,
    loads: Vec<Load>,
}

/// So much of an image is read into a huge page of the machine's own instead of being mapped. (KVM's shadow paging maps
/// neighbours of a faulting page only where the host's page is writable, and that is what makes a start fast.) The library OS and
/// most of a small program lie there.
const HUGE: u64 = unik_host::memory::HUGE_PAGE;
const _: () = assert!(layout::IMAGE_PADDR.is_multiple_of(HUGE));
/// So much is read at all: behind the huge page small ones follow, for the end of a small program.
const HOT: u64 = HUGE + (512 << 10);

/// The library OS takes its first tables, stacks and heap from the memory right behind the image.
const FIRST_MEMORY: u64 = 384 << 10;

impl Image {
    /// Opens `path` and finds out what it is.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|source| LoadError::Open {
            path: path.into(),
            source,
        })?;
        let meta = file.metadata().map_err(|source| LoadError::Read {
            path: path.into(),
            source,
        })?;
        if !meta.is_file() {
            let source = std::io::Error::other("it is not a regular file");
            return Err(LoadError::Read {
                path: path.into(),
                source,
            });
        }
        let elf = Elf::read(&file, meta.len()).map_err(|source| LoadError::Elf {
            path: path.into(),
            source,
        })?;
        let entry = entry(path, &elf)?;
        let manifest = manifest(path, &elf)?;
        let image = Self {
            path: path.into(),
            file,
            len: meta.len(),
            entry,
            manifest,
            loads: elf.loads,
        };
        image.check()?;
        Ok(image)
    }

    /// Puts the image into `ram`, but for its start (see [`Self::warm_up`]), and returns the first free physical address after it.
    pub fn load(&self, ram: &mut GuestRam) -> Result<u64, crate::error::Error> {
        let end = self.end();
        if self.manifest.is_some() {
            let hot = self.len.min(HOT);
            ram.map_file_part(&self.file, hot, self.len - hot, layout::IMAGE_PADDR + hot)?;
        } else {
            self.loads
                .iter()
                .try_for_each(|load| self.copy(load, ram))?;
        }
        Ok(end)
    }

    /// Makes ready what every start of this image touches: reads the part that [`Self::load`] left out and backs the first memory
    /// behind the image. On a thread of its own, while KVM is busy creating the machine; to be done before the guest starts.
    pub fn warm_up(&self, warmer: &Warmer) -> Result<(), crate::error::Error> {
        if self.manifest.is_some() {
            let (huge, hot) = (self.len.min(HUGE), self.len.min(HOT));
            warmer.read_file(&self.file, huge, layout::IMAGE_PADDR)?;
            if hot > huge {
                let (at, len) = (layout::IMAGE_PADDR + huge, hot - huge);
                warmer.populate(at, len);
                warmer.read_file_small(&self.file, huge, len, at)?;
            }
        }
        warmer.populate(layout::BOOT_AREA_PADDR, 2 * unik_abi::PAGE_SIZE);
        warmer.populate(self.end(), FIRST_MEMORY);
        Ok(())
    }

    /// The first physical address after everything the image occupies.
    pub fn end(&self) -> u64 {
        let segments = self
            .loads
            .iter()
            .map(|l| l.paddr + l.mem_len)
            .max()
            .unwrap_or(0);
        let file = if self.manifest.is_some() {
            layout::IMAGE_PADDR + self.len
        } else {
            0
        };
        segments.max(file).next_multiple_of(unik_abi::PAGE_SIZE)
    }

    fn check(&self) -> Result<(), LoadError> {
        let damaged = |what| {
            Err(LoadError::Damaged {
                path: self.path.clone(),
                what,
            })
        };
        if self.loads.is_empty() {
            return damaged("it has nothing to load");
        }
        let inside = |l: &Load| {
            u64::from(self.entry) >= l.paddr && u64::from(self.entry) < l.paddr + l.file_len
        };
        if !self.loads.iter().any(inside) {
            return damaged("its entry point lies outside its segments");
        }
        let flat = |l: &Load| l.offset.checked_add(layout::IMAGE_PADDR) == Some(l.paddr);
        if self.manifest.is_some() && !self.loads.iter().all(flat) {
            return damaged("its segments do not lie in memory as they lie in the file");
        }
        // Zero memory behind a segment must not show what the file holds there.
        let tail = |l: &Load| l.mem_len > l.file_len && l.offset + l.file_len < self.len;
        if self.manifest.is_some() && self.loads.iter().any(tail) {
            return damaged("a segment's zero part lies over other parts of the file");
        }
        Ok(())
    }

    /// Copies one segment of a foreign kernel; fresh RAM is zero already.
    fn copy(&self, load: &Load, ram: &GuestRam) -> Result<(), LoadError> {
        const CHUNK: u64 = 1 << 20;
        let place = || LoadError::Place {
            path: self.path.clone(),
            at: load.paddr,
            len: load.mem_len,
        };
        if !unik_host::memory::contains(ram.view(), load.paddr, load.mem_len) {
            return Err(place());
        }
        let mut done = 0;
        while done < load.file_len {
            let mut bytes = vec![0; CHUNK.min(load.file_len - done) as usize];
            self.file
                .read_exact_at(&mut bytes, load.offset + done)
                .map_err(|source| LoadError::Read {
                    path: self.path.clone(),
                    source,
                })?;
            ram.view()
                .write_slice(&bytes, GuestAddress(load.paddr + done))
                .map_err(|_| place())?;
            done += bytes.len() as u64;
        }
        Ok(())
    }
}

fn entry(path: &Path, elf: &Elf) -> Result<u32, LoadError> {
    let Some(desc) = elf.note(b"Xen", XEN_ELFNOTE_PHYS32_ENTRY) else {
        return Err(LoadError::NotBootable { path: path.into() });
    };
    let value = match desc.len() {
        4 => desc.try_into().ok().map(u32::from_le_bytes),
        8 => desc
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
            .and_then(|v| u32::try_from(v).ok()),
        _ => None,
    };
    value.ok_or_else(|| LoadError::Damaged {
        path: path.into(),
        what: "its entry note makes no sense",
    })
}

fn manifest(path: &Path, elf: &Elf) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(desc) = elf.note(&NOTE_OWNER[..NOTE_OWNER.len() - 1], NOTE_VERSION) else {
        return Ok(None);
    };
    let Some((version, manifest)) = desc.split_first_chunk::<4>() else {
        return Err(LoadError::Damaged {
            path: path.into(),
            what: "its Unik note is too short",
        });
    };
    let image = u32::from_le_bytes(*version);
    if image != ABI_VERSION {
        return Err(LoadError::Version {
            path: path.into(),
            image,
            monitor: ABI_VERSION,
        });
    }
    Ok(Some(manifest.to_vec()))
}

#[cfg(test)]
mod tests;
