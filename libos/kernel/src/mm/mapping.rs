//! What an area of the program's address space is backed by.

use alloc::rc::Rc;
use unik_core::areas::Payload;
use unik_fs::Inode;

/// What lies under an area.
#[derive(Clone)]
pub enum Backing {
    /// Zero memory.
    Anonymous,
    /// The heap that brk moves.
    Heap,
    /// The first thread's stack.
    Stack,
    /// The vDSO's pages inside the image, from this physical address on.
    Vdso(u64),
    /// A segment of the program inside the image, from this physical address on.
    Image(u64),
    /// The program's zero-initialised data (named like the image in /proc/self/maps).
    Bss,
    /// A file, from this byte on.
    File(Rc<FileMapping>),
}

/// A mapped file: kept open as long as any part of the mapping lives.
pub struct FileMapping {
    /// The file.
    pub node: Rc<dyn Inode>,
    /// Its path for /proc/self/maps.
    pub path: alloc::vec::Vec<u8>,
    /// File opened for writing (mprotect may add PROT_WRITE to a shared mapping).
    pub writable: bool,
}

/// An area.
#[derive(Clone)]
pub struct Vma {
    /// `PROT_*`.
    pub prot: u32,
    /// Backing.
    pub backing: Backing,
    /// Byte of the file at the start of the area (files only).
    pub offset: u64,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_STACK, MAP_GROWSDOWN or the main stack: used from the top, backed in small pieces.
    pub stack: bool,
    /// MAP_NORESERVE: never backed ahead of use.
    pub noreserve: bool,
}

impl Vma {
    /// Private zero memory.
    pub fn anonymous(prot: u32) -> Self {
        Self {
            prot,
            backing: Backing::Anonymous,
            offset: 0,
            shared: false,
            stack: false,
            noreserve: false,
        }
    }

    /// Whether pages come from zero memory.
    pub fn is_anonymous(&self) -> bool {
        matches!(
            self.backing,
            Backing::Anonymous | Backing::Heap | Backing::Stack | Backing::Bss
        )
    }
}

impl Payload for Vma {
    fn split(&self, offset: u64) -> Self {
        let mut tail = self.clone();
        match &mut tail.backing {
            Backing::Image(paddr) | Backing::Vdso(paddr) => *paddr += offset,
            Backing::File(_) => tail.offset += offset,
            _ => {}
        }
        tail
    }

    fn continues(&self, len: u64, next: &Self) -> bool {
        let attributes = |v: &Self| (v.prot, v.shared, v.stack, v.noreserve);
        attributes(self) == attributes(next)
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => !self.shared,
                (Backing::Heap, Backing::Heap) | (Backing::Bss, Backing::Bss) => true,
                (Backing::Image(a), Backing::Image(b)) => a + len == *b,
                (Backing::File(a), Backing::File(b)) => {
                    Rc::ptr_eq(a, b) && self.offset + len == next.offset
                }
                _ => false,
            }
    }
}
