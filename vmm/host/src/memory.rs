//! Guest RAM: one anonymous mapping that costs nothing until it is touched, and files mapped over parts of it.
//!
//! [`GuestRam`] cuts the mapping into at most two regions: RAM below the hole for devices and RAM from 4 GiB on.
//! The mapping is never undone while the process lives, so views of it ([`GuestMemoryMmap`]) can be handed to any thread.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

/// Size of the host pages that back guest RAM at best, and the alignment of the mapping.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Why guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is 0, not a multiple of the page size, or more than the address space.
    #[error(
        "a guest cannot have {0} bytes of memory: give a multiple of 4096 between 4096 and 512 GiB"
    )]
    Size(u64),
    /// The host refused the mapping.
    #[error(
        "the host refused to reserve {0} bytes of guest memory: {1}; ask for less with --memory"
    )]
    Reserve(u64, io::Error),
    /// A file could not be mapped.
    #[error("cannot map {len} bytes of the file to guest address {gpa:#x}: {source}")]
    MapFile {
        /// Guest physical address.
        gpa: u64,
        /// Bytes asked for.
        len: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The range does not lie in one region of RAM.
    #[error("guest memory has no {len} bytes at {gpa:#x}: it needs more memory (--memory)")]
    Outside {
        /// Guest physical address.
        gpa: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// The regions were not accepted.
    #[error("guest memory layout refused: {0}")]
    Layout(String),
}

/// A region of RAM: where the guest sees it and where it lies in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address, page-aligned.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// Address in this process.
    pub host: u64,
}

/// The RAM of one virtual machine.
pub struct GuestRam {
    mem: GuestMemoryMmap,
    regions: Vec<Region>,
}

impl GuestRam {
    /// Reserves `size` bytes: RAM from 0 up to `hole_start`, the rest from `hole_end` on. Nothing is allocated before the
    /// first touch, and the host's overcommit accounting is not charged.
    pub fn reserve(size: u64, hole_start: u64, hole_end: u64) -> Result<Self, MemoryError> {
        if size == 0 || !size.is_multiple_of(4096) || size > 512 << 30 {
            return Err(MemoryError::Size(size));
        }
        let base = reserve_aligned(size)?;
        let low = size.min(hole_start);
        let mut regions = vec![Region {
            gpa: 0,
            len: low,
            host: base,
        }];
        if size > low {
            regions.push(Region {
                gpa: hole_end,
                len: size - low,
                host: base + low,
            });
        }
        let views = regions
            .iter()
            .map(region_view)
            .collect::<Result<Vec<_>, _>>()?;
        let mem = GuestMemoryMmap::from_regions(views)
            .map_err(|error| MemoryError::Layout(error.to_string()))?;
        Ok(Self { mem, regions })
    }

    /// The checked view that devices and loaders use. Clones share the memory.
    pub fn view(&self) -> &GuestMemoryMmap {
        &self.mem
    }

    /// The regions in address order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Maps the first `len` bytes of `file` to `gpa`, privately: the guest's writes never reach the file, and pages that
    /// nobody writes are shared by every virtual machine through the page cache. The rest of the last page reads as zero.
    /// A file that somebody shortens while it is mapped kills the process at the next access, as it does any program's text.
    pub fn map_file(&mut self, file: &File, len: u64, gpa: u64) -> Result<(), MemoryError> {
        self.map_file_part(file, 0, len, gpa)
    }

    /// As [`Self::map_file`], from `offset` (a multiple of the page size) on.
    pub fn map_file_part(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        gpa: u64,
    ) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        let whole = len.next_multiple_of(4096);
        let aligned = gpa.is_multiple_of(4096).then_some(gpa);
        let host = self.host_range(aligned.ok_or(MemoryError::Outside { gpa, len })?, whole)?;
        // SAFETY: the target range lies inside a mapping that this type owns and is page-aligned (checked by
        // `host_range`), so MAP_FIXED replaces pages of guest RAM and nothing else. All access to guest RAM is volatile.
        let result = unsafe {
            libc::mmap(
                host as *mut libc::c_void,
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(MemoryError::MapFile {
                gpa,
                len,
                source: io::Error::last_os_error(),
            });
        }
        Ok(())
    }

    /// Asks for huge pages for all RAM from the first 2 MiB boundary at or after `gpa`. Only advice: refusal is no error.
    pub fn advise_huge_from(&self, gpa: u64) {
        let start = gpa.next_multiple_of(HUGE_PAGE);
        for region in &self.regions {
            let first = start.max(region.gpa);
            let end = region.gpa + region.len;
            if first < end {
                let host = region.host + (first - region.gpa);
                advise_huge(host, end - first);
            }
        }
    }

    /// A handle for another thread that backs parts of the memory ahead of use.
    pub fn warmer(&self) -> Warmer {
        Warmer {
            regions: self.regions.clone(),
        }
    }

    pub(crate) fn host_range(&self, gpa: u64, len: u64) -> Result<u64, MemoryError> {
        host_range(&self.regions, gpa, len)
    }
}

/// Fills and backs memory ahead of use, from another thread. Valid for as long as the process lives, as the mapping is.
pub struct Warmer {
    regions: Vec<Region>,
}

impl Warmer {
    /// Reads the first `len` bytes of `file` to `gpa`, into a huge page where the host has one.
    pub fn read_file(&self, file: &File, len: u64, gpa: u64) -> Result<(), MemoryError> {
        self.read_file_part(file, 0, len, gpa)
    }

    /// As [`Self::read_file`], from `offset` on. Several threads may read to places of their own.
    pub fn read_file_part(
        &self,
        file: &File,
        offset: u64,
        len: u64,
        gpa: u64,
    ) -> Result<(), MemoryError> {
        let host = host_range(&self.regions, gpa, len)?;
        // Memory starts at a boundary of huge pages, so this is still ours.
        let page = host / HUGE_PAGE * HUGE_PAGE;
        let whole = (host + len - page).next_multiple_of(HUGE_PAGE);
        // The mapping goes on for a huge page behind the last region.
        advise_huge(page, whole);
        self.read_file_small(file, offset, len, gpa)
    }

    /// As [`Self::read_file_part`], but no more memory is used than the bytes need.
    pub fn read_file_small(
        &self,
        file: &File,
        offset: u64,
        len: u64,
        gpa: u64,
    ) -> Result<(), MemoryError> {
        let host = host_range(&self.regions, gpa, len)?;
        // SAFETY: the range is inside a mapping that is never undone; nobody else uses it before the guest starts, and bytes may
        // hold anything.
        let target = unsafe { std::slice::from_raw_parts_mut(host as *mut u8, len as usize) };
        file.read_exact_at(target, offset)
            .map_err(|source| MemoryError::MapFile { gpa, len, source })
    }

    /// Backs `len` bytes from `gpa` on with pages of this process's own, ready to be written, in one call. Faults one by one cost the
    /// guest several times as much. Only advice: what is not in RAM or cannot be backed now is backed by faults later.
    pub fn populate(&self, gpa: u64, len: u64) {
        let (len, gpa) = (len.next_multiple_of(4096), gpa / 4096 * 4096);
        if let Ok(host) = host_range(&self.regions, gpa, len) {
            // SAFETY: the range is inside a mapping that is never undone; MADV_POPULATE_WRITE changes no contents.
            let _ = unsafe {
                libc::madvise(
                    host as *mut libc::c_void,
                    len as usize,
                    libc::MADV_POPULATE_WRITE,
                )
            };
        }
    }
}

fn host_range(regions: &[Region], gpa: u64, len: u64) -> Result<u64, MemoryError> {
    let fits =
        |r: &&Region| gpa >= r.gpa && gpa.checked_add(len).is_some_and(|end| end <= r.gpa + r.len);
    regions
        .iter()
        .find(fits)
        .map(|r| r.host + (gpa - r.gpa))
        .ok_or(MemoryError::Outside { gpa, len })
}

/// Asks for huge pages for `len` bytes of this process at `host`.
pub(crate) fn advise_huge(host: u64, len: u64) {
    // SAFETY: MADV_HUGEPAGE is advice: it changes no contents, wherever it points, and refusal is no error.
    let _ = unsafe { libc::madvise(host as *mut libc::c_void, len as usize, libc::MADV_HUGEPAGE) };
}

/// Reserves `size` bytes at a 2 MiB boundary and returns the address.
pub(crate) fn reserve_aligned(size: u64) -> Result<u64, MemoryError> {
    let total = size + HUGE_PAGE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            total as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(MemoryError::Reserve(size, io::Error::last_os_error()));
    }
    Ok((raw as u64).next_multiple_of(HUGE_PAGE))
}

fn region_view(region: &Region) -> Result<GuestRegionMmap, MemoryError> {
    // SAFETY: `reserve_aligned` mapped these bytes and nothing ever unmaps them.
    let view: MmapRegion = unsafe {
        MmapRegionBuilder::new(region.len as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .with_raw_mmap_pointer(region.host as *mut u8)
            .build()
    }
    .map_err(|error| MemoryError::Layout(error.to_string()))?;
    GuestRegionMmap::new(view, GuestAddress(region.gpa))
        .ok_or_else(|| MemoryError::Layout(format!("region at {:#x} wraps around", region.gpa)))
}

/// Gives whole pages of guest RAM back to the kernel; the guest finds zeroes there, or what a file mapped there holds. What is not RAM
/// is left out.
pub fn give_back(view: &GuestMemoryMmap, gpa: u64, len: u64) {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    for slice in view.get_slices(GuestAddress(gpa), len).flatten() {
        let start = slice.ptr_guard_mut().as_ptr() as usize;
        let (first, end) = (
            start.next_multiple_of(4096),
            (start + slice.len()) / 4096 * 4096,
        );
        if first < end {
            // SAFETY: the range lies inside guest RAM, which stays mapped; all access to it is volatile, and bytes may hold anything.
            let _ = unsafe {
                libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED)
            };
        }
    }
}

/// Bytes of RAM that `view` covers.
pub fn total_len(view: &GuestMemoryMmap) -> u64 {
    view.iter().map(GuestMemoryRegion::len).sum()
}

/// Whether all of `len` bytes at `gpa` are RAM.
pub fn contains(view: &GuestMemoryMmap, gpa: u64, len: u64) -> bool {
    view.check_range(
        GuestAddress(gpa),
        usize::try_from(len).unwrap_or(usize::MAX),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;

    const HOLE: (u64, u64) = (0xc000_0000, 0x1_0000_0000);

    #[test]
    fn small_ram_is_one_aligned_region() {
        let ram = GuestRam::reserve(64 << 20, HOLE.0, HOLE.1).unwrap();
        assert_eq!(ram.regions().len(), 1);
        assert_eq!(ram.regions()[0].host % HUGE_PAGE, 0);
        assert_eq!(total_len(ram.view()), 64 << 20);
    }

    #[test]
    fn large_ram_goes_around_the_hole_and_costs_nothing() {
        let ram = GuestRam::reserve(40 << 30, HOLE.0, HOLE.1).unwrap();
        let [low, high] = ram.regions() else {
            panic!("two regions wanted")
        };
        assert_eq!((low.gpa, low.len), (0, HOLE.0));
        assert_eq!((high.gpa, high.len), (HOLE.1, (40 << 30) - HOLE.0));
        ram.view()
            .write_obj(7u64, GuestAddress(HOLE.1 + high.len - 8))
            .unwrap();
        assert!(ram.view().write_obj(7u64, GuestAddress(HOLE.0)).is_err());
    }

    #[test]
    fn a_file_is_seen_and_never_changed() {
        let path = std::env::temp_dir().join(format!("unik-host-map-{}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all(&[7u8; 5000]).unwrap();
        let mut ram = GuestRam::reserve(8 << 20, HOLE.0, HOLE.1).unwrap();
        ram.map_file(&file, 5000, 0x20_0000).unwrap();
        let mut bytes = [0u8; 8192];
        ram.view()
            .read_slice(&mut bytes, GuestAddress(0x20_0000))
            .unwrap();
        assert!(bytes[..5000].iter().all(|&b| b == 7) && bytes[5000..].iter().all(|&b| b == 0));
        ram.view()
            .write_slice(&[9; 10], GuestAddress(0x20_0000))
            .unwrap();
        assert!(std::fs::read(&path).unwrap().iter().all(|&b| b == 7));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn memory_given_back_is_zero_and_the_rest_is_not() {
        let ram = GuestRam::reserve(8 << 20, HOLE.0, HOLE.1).unwrap();
        ram.view()
            .write_slice(&[7; 4 * 4096], GuestAddress(0))
            .unwrap();
        give_back(ram.view(), 4000, 4096 + 200);
        give_back(ram.view(), (8 << 20) - 4096, u64::MAX);
        let mut bytes = vec![0; 4 * 4096];
        ram.view().read_slice(&mut bytes, GuestAddress(0)).unwrap();
        let zeroes = |page: usize| bytes[page * 4096..][..4096].iter().all(|&b| b == 0);
        assert_eq!([0, 1, 2, 3].map(zeroes), [false, true, false, false]);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let file = File::open("/dev/zero").unwrap();
        let mut ram = GuestRam::reserve(8 << 20, HOLE.0, HOLE.1).unwrap();
        for (gpa, len) in [
            (8 << 20, 1),
            (7 << 20, 2 << 20),
            (u64::MAX - 4095, 4096),
            (0x1001, 4096),
        ] {
            assert!(
                matches!(
                    ram.map_file(&file, len, gpa),
                    Err(MemoryError::Outside { .. })
                ),
                "{gpa:#x}"
            );
        }
        assert!(matches!(
            GuestRam::reserve(0, HOLE.0, HOLE.1),
            Err(MemoryError::Size(0))
        ));
        assert!(matches!(
            GuestRam::reserve(4097, HOLE.0, HOLE.1),
            Err(MemoryError::Size(4097))
        ));
    }
}
