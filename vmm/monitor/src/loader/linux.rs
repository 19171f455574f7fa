//! Linux kernels: bzImage by its 64-bit entry, ELF by PVH or by the 64-bit entry (Linux `Documentation/arch/x86/boot.rst`).
//!
//! [`Kernel::open`] says what a file is, by its content alone; [`Kernel::load`] puts it into guest RAM. ELF segments are copied, by
//! threads beside whatever else there is to do ([`super::filling`]): kernels write to most of their own text while they start, so that a
//! mapping costs two faults for each of its pages, where huge pages of a copy cost nothing (measured: a third of the whole boot).
//! The initial RAM disk is mapped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, KernelLoader};
use unik_abi::PAGE_SIZE;
use unik_abi::pvh::XEN_ELFNOTE_PHYS32_ENTRY;
use unik_host::memory::{self, GuestRam, HUGE_PAGE};
use vm_memory::GuestAddress;

use super::elf::{Elf, ElfError, Load};
use super::filling::Filling;
use crate::error::Error;
use crate::machine::vcpus::Alarm;

/// Where kernels lie at the earliest: the first megabyte belongs to tables.
const LOWEST: u64 = 0x10_0000;

/// Where a boot sector's setup header lies, and its magic number in it.
const SETUP_HEADER: u64 = 0x1f1;
const HEADER_MAGIC: u64 = 0x202;

/// The 64-bit entry point of a bzImage from where it was loaded.
const ENTRY_64: u64 = 0x200;

/// `xloadflags`: the kernel has that entry point.
const XLF_KERNEL_64: u16 = 1;

/// Highest address of an initial RAM disk for kernels that do not say.
const INITRD_MAX: u64 = 0x7fff_ffff;

/// Bytes that an ELF kernel of unknown needs gets behind its segments.
const BREATHING_SPACE: u64 = 8 << 20;

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file cannot be opened or read.
    #[error("cannot read {what} {path}: {source}")]
    Read {
        /// Which file.
        what: &'static str,
        /// As given.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// Neither bzImage nor ELF.
    #[error(
        "{path} is no kernel that can be booted: {why}; give a bzImage (vmlinuz) or an ELF vmlinux for x86-64"
    )]
    Foreign {
        /// As given.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// Damaged.
    #[error("the kernel {path} is cut short or damaged: {why}")]
    Damaged {
        /// As given.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The kernel does not fit.
    #[error(
        "the kernel {path} needs {need} MiB of guest memory to start, it has {have} MiB: give it more (--memory {need}M)"
    )]
    Memory {
        /// As given.
        path: PathBuf,
        /// MiB needed.
        need: u64,
        /// MiB there are.
        have: u64,
    },
    /// The initial RAM disk does not fit behind the kernel.
    #[error(
        "the initrd {path} of {len} bytes does not fit between the kernel's end at {start:#x} and {end:#x}: {advice}"
    )]
    Initrd {
        /// As given.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// First free address.
        start: u64,
        /// First address that cannot be used.
        end: u64,
        /// What helps.
        advice: &'static str,
    },
    /// The command line is too long.
    #[error(
        "the kernel command line has {len} bytes, this kernel takes at most {most}: shorten --cmdline"
    )]
    CommandLine {
        /// Its length.
        len: usize,
        /// The most.
        most: usize,
    },
}

/// How a kernel wants to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 64-bit mode, the zero page in `rsi`.
    Linux64,
    /// 32-bit mode, PVH start info in `ebx`.
    Pvh,
}

/// What is in the file.
#[derive(Debug)]
enum Form {
    BzImage(Box<setup_header>),
    Elf {
        loads: Vec<Load>,
        pvh: Option<u32>,
        entry: u64,
    },
}

/// A kernel file whose headers made sense.
#[derive(Debug)]
pub struct Kernel {
    path: PathBuf,
    file: File,
    len: u64,
    form: Form,
}

/// A kernel in memory.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Entry point, physical.
    pub entry: u64,
    /// How to enter it.
    pub protocol: Protocol,
    /// The setup header for the zero page.
    pub header: setup_header,
    /// First address behind all that the kernel needs at its start.
    pub end: u64,
    /// Highest address that the end of an initial RAM disk may have.
    pub initrd_max: u64,
    /// Most bytes of a command line.
    pub cmdline_max: usize,
}

/// A kernel on its way into memory.
pub struct Loading {
    /// What it will be.
    pub loaded: Loaded,
    filling: Option<Filling>,
}

impl Loading {
    /// Waits until the guest may start.
    pub fn finish(self) -> Result<Loaded, Error> {
        self.filling.map_or(Ok(()), Filling::finish)?;
        Ok(self.loaded)
    }
}

impl Kernel {
    /// Opens `path` and finds out what it is.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let (file, len) = open("the kernel", path)?;
        let mut magic = [0; 4];
        let is_bzimage = file.read_exact_at(&mut magic, HEADER_MAGIC).is_ok() && &magic == b"HdrS";
        let form = if is_bzimage {
            bzimage(path, &file, len)?
        } else {
            elf(path, &file, len)?
        };
        Ok(Self {
            path: path.into(),
            file,
            len,
            form,
        })
    }

    /// Whether the kernel can be entered in this way.
    pub fn offers(&self, protocol: Protocol) -> bool {
        match (&self.form, protocol) {
            (Form::BzImage(_), protocol) => protocol == Protocol::Linux64,
            (Form::Elf { pvh, .. }, Protocol::Pvh) => pvh.is_some(),
            (Form::Elf { loads, entry, .. }, Protocol::Linux64) => loads
                .iter()
                .any(|l| (l.paddr..l.paddr + l.file_len).contains(entry)),
        }
    }

    /// Begins to put the kernel into `ram`. With an `alarm` that may go on when the guest runs already, where the host allows it.
    pub fn load(
        &self,
        ram: &GuestRam,
        protocol: Protocol,
        alarm: Option<Alarm>,
    ) -> Result<Loading, Error> {
        match &self.form {
            Form::BzImage(header) => Ok(Loading {
                loaded: self.load_bzimage(header, ram)?,
                filling: None,
            }),
            Form::Elf { loads, pvh, entry } => {
                let loaded = self.plan_elf(loads, *pvh, *entry, ram, protocol)?;
                let file = self.file.try_clone().map_err(|e| self.unreadable(e))?;
                let filling = Filling::begin(file, loads, ram, alarm)?;
                Ok(Loading {
                    loaded,
                    filling: Some(filling),
                })
            }
        }
    }

    fn load_bzimage(&self, header: &setup_header, ram: &GuestRam) -> Result<Loaded, KernelError> {
        let start = header.pref_address.max(LOWEST);
        let end = start.saturating_add(u64::from(header.init_size));
        self.check_memory(end, ram)?;
        let mut file = self
            .file
            .try_clone()
            .map_err(|source| self.unreadable(source))?;
        let loaded = BzImage::load(ram.view(), Some(GuestAddress(start)), &mut file, None)
            .map_err(|error| KernelError::Damaged {
                path: self.path.clone(),
                why: error.to_string(),
            })?;
        Ok(Loaded {
            entry: start + ENTRY_64,
            protocol: Protocol::Linux64,
            header: loaded.setup_header.unwrap_or(*header),
            end: end.max(loaded.kernel_end),
            initrd_max: match u64::from(header.initrd_addr_max) {
                0 => INITRD_MAX,
                max => max,
            },
            cmdline_max: header.cmdline_size as usize,
        })
    }

    fn plan_elf(
        &self,
        loads: &[Load],
        pvh: Option<u32>,
        entry: u64,
        ram: &GuestRam,
        protocol: Protocol,
    ) -> Result<Loaded, KernelError> {
        let end = loads.iter().map(|l| l.paddr + l.mem_len).max().unwrap_or(0);
        self.check_memory(end.saturating_add(BREATHING_SPACE), ram)?;
        self.check_segments(loads, ram)?;
        let entry = match (protocol, pvh) {
            (Protocol::Pvh, Some(address)) => address.into(),
            _ => entry,
        };
        let header = setup_header {
            header: u32::from_le_bytes(*b"HdrS"),
            version: 0x20f,
            ..Default::default()
        };
        Ok(Loaded {
            entry,
            protocol,
            header,
            // It is filled by whole huge pages.
            end: end.next_multiple_of(HUGE_PAGE),
            initrd_max: INITRD_MAX,
            cmdline_max: 2047,
        })
    }

    /// Segments lie in memory, and no two of them in the same place.
    fn check_segments(&self, loads: &[Load], ram: &GuestRam) -> Result<(), KernelError> {
        let damaged = |load: &Load, what| KernelError::Damaged {
            path: self.path.clone(),
            why: format!("a segment at {:#x} lies {what}", load.paddr),
        };
        let mut sorted: Vec<_> = loads.iter().collect();
        sorted.sort_by_key(|load| load.paddr);
        let inside = |l: &&&Load| memory::contains(ram.view(), l.paddr, l.mem_len);
        if let Some(load) = sorted.iter().find(|load| !inside(load)) {
            return Err(damaged(load, "outside memory"));
        }
        let overlap = |pair: &&[&Load]| pair[0].paddr + pair[0].mem_len > pair[1].paddr;
        match sorted.windows(2).find(overlap) {
            Some(pair) => Err(damaged(pair[1], "in another")),
            None => Ok(()),
        }
    }

    fn unreadable(&self, source: std::io::Error) -> KernelError {
        KernelError::Read {
            what: "the kernel",
            path: self.path.clone(),
            source,
        }
    }

    fn check_memory(&self, end: u64, ram: &GuestRam) -> Result<(), KernelError> {
        let low = ram.regions().first().map_or(0, |region| region.len);
        if memory::contains(ram.view(), LOWEST, end.saturating_sub(LOWEST)) && end > LOWEST {
            return Ok(());
        }
        Err(KernelError::Memory {
            path: self.path.clone(),
            need: end.div_ceil(1 << 20),
            have: low >> 20,
        })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// A kernel file is never empty; for completeness.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Opens a regular file.
fn open(what: &'static str, path: &Path) -> Result<(File, u64), KernelError> {
    let fail = |source| KernelError::Read {
        what,
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_file() {
        Ok((file, meta.len()))
    } else {
        Err(fail(std::io::Error::other("it is not a regular file")))
    }
}

fn bzimage(path: &Path, file: &File, len: u64) -> Result<Form, KernelError> {
    let foreign = |why: &str| KernelError::Foreign {
        path: path.into(),
        why: why.into(),
    };
    let mut bytes = [0; size_of::<setup_header>()];
    file.read_exact_at(&mut bytes, SETUP_HEADER)
        .map_err(|_| KernelError::Damaged {
            path: path.into(),
            why: "the setup header is not complete".into(),
        })?;
    let header = *vm_memory::ByteValued::from_slice(&bytes).unwrap_or(&setup_header::default());
    if header.version < 0x20c || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(foreign(
            "it is a bzImage without a 64-bit entry point (32 bits, or older than Linux 3.8)",
        ));
    }
    // Sectors of real-mode code (0 stands for 4) and the boot sector, then paragraphs of the kernel proper.
    let sectors = 1 + match u64::from(header.setup_sects) {
        0 => 4,
        count => count,
    };
    let needed = sectors * 512 + u64::from(header.syssize) * 16;
    if len < needed {
        return Err(KernelError::Damaged {
            path: path.into(),
            why: format!("it has {len} bytes of {needed}"),
        });
    }
    Ok(Form::BzImage(Box::new(header)))
}

fn elf(path: &Path, file: &File, len: u64) -> Result<Form, KernelError> {
    let elf = Elf::read(file, len).map_err(|error| match error {
        ElfError::NotElf | ElfError::Machine(_) => KernelError::Foreign {
            path: path.into(),
            why: error.to_string(),
        },
        error => KernelError::Damaged {
            path: path.into(),
            why: error.to_string(),
        },
    })?;
    let mut header = [0; 8];
    file.read_exact_at(&mut header, 24)
        .map_err(|source| KernelError::Read {
            what: "the kernel",
            path: path.into(),
            source,
        })?;
    let pvh = elf
        .note(b"Xen", XEN_ELFNOTE_PHYS32_ENTRY)
        .and_then(|desc| desc.get(..4)?.try_into().ok())
        .map(u32::from_le_bytes);
    let loads: Vec<_> = elf.loads.into_iter().filter(|l| l.mem_len > 0).collect();
    if loads.iter().any(|l| l.paddr < LOWEST) || loads.is_empty() {
        return Err(KernelError::Foreign {
            path: path.into(),
            why: "it is a program, not a kernel (it has segments below 1 MiB, or none)".into(),
        });
    }
    Ok(Form::Elf {
        loads,
        pvh,
        entry: u64::from_le_bytes(header),
    })
}

/// An initial RAM disk in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Maps the initial RAM disk as high as the kernel allows.
pub fn load_initrd(path: &Path, kernel: &Loaded, ram: &mut GuestRam) -> Result<Initrd, Error> {
    let (file, len) = open("the initrd", path)?;
    let low = ram.regions().first().map_or(0, |region| region.len);
    let end = low.min(kernel.initrd_max.saturating_add(1)) / PAGE_SIZE * PAGE_SIZE;
    let start = end
        .checked_sub(len.next_multiple_of(PAGE_SIZE))
        .filter(|&start| start >= kernel.end);
    let Some(start) = start else {
        return Err(KernelError::Initrd {
            path: path.into(),
            len,
            start: kernel.end,
            end,
            advice: match end < low / PAGE_SIZE * PAGE_SIZE {
                true => "the kernel takes none that ends higher, so give a smaller one",
                false => "give the guest more memory (--memory) or a smaller initrd",
            },
        }
        .into());
    };
    ram.map_file(&file, len, start)?;
    Ok(Initrd { start, len })
}
