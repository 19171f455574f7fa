//! What a kernel finds in memory: zero page or PVH start info, command line, memory map, page tables, descriptor table.

use linux_loader::bootparam::{boot_e820_entry, boot_params};
use unik_abi::pvh::{E820_RAM, START_MAGIC};
use unik_host::memory::Region;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;
use crate::loader::linux::{Initrd, Loaded, Protocol};

/// E820 type of memory that is not RAM for general use.
const E820_RESERVED: u32 = 2;

/// Descriptors at the places that the boot protocol names: 0x10 is code, 0x18 is data.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// What lies at the reset vector: `mov dx, RESET; mov al, RESET_VALUE; out dx, al; hlt`.
const RESET_CODE: [u8; 7] = [
    0xba,
    layout::RESET as u8,
    (layout::RESET >> 8) as u8,
    0xb0,
    layout::RESET_VALUE,
    0xee,
    0xf4,
];

/// A loader without a number of its own.
const LOADER_TYPE: u8 = 0xff;

/// What to hand over.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// RAM as the machine has it.
    pub regions: &'a [Region],
    /// The kernel in memory.
    pub kernel: &'a Loaded,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// Where the RSDP is.
    pub rsdp: u64,
}

impl Handover<'_> {
    /// Writes everything that the kernel's protocol asks for.
    pub fn write(&self, mem: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
        mem.write_slice(self.cmdline.as_bytes(), GuestAddress(layout::COMMAND_LINE))?;
        mem.write_obj(
            0u8,
            GuestAddress(layout::COMMAND_LINE + self.cmdline.len() as u64),
        )?;
        mem.write_slice(&RESET_CODE, GuestAddress(layout::RESET_VECTOR))?;
        match self.kernel.protocol {
            Protocol::Linux64 => {
                mem.write_obj(self.zero_page(), GuestAddress(layout::ZERO_PAGE))?;
                write_words(mem, layout::GDT, &GDT)?;
                write_page_tables(mem)
            }
            Protocol::Pvh => self.write_start_info(mem),
        }
    }

    fn zero_page(&self) -> boot_params {
        let mut params = boot_params {
            hdr: self.kernel.header,
            acpi_rsdp_addr: self.rsdp,
            ..Default::default()
        };
        params.hdr.type_of_loader = LOADER_TYPE;
        params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
        params.hdr.cmdline_size = self.cmdline.len() as u32;
        if let Some(initrd) = self.initrd {
            params.hdr.ramdisk_image = initrd.start as u32;
            params.hdr.ramdisk_size = initrd.len as u32;
        }
        let map = memory_map(self.regions);
        params.e820_entries = map.len() as u8;
        for (entry, &(addr, size, kind)) in params.e820_table.iter_mut().zip(&map) {
            *entry = boot_e820_entry {
                addr,
                size,
                r#type: kind,
            };
        }
        params
    }

    /// Start info, one module, memory map (Xen `public/arch-x86/hvm/start_info.h`).
    fn write_start_info(&self, mem: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
        let (modules, map_at) = (layout::ZERO_PAGE + 0x40, layout::ZERO_PAGE + 0x80);
        let map = memory_map(self.regions);
        let count = u64::from(self.initrd.is_some());
        let words = [
            u64::from(START_MAGIC) | 1 << 32,
            count << 32,
            if count > 0 { modules } else { 0 },
            layout::COMMAND_LINE,
            self.rsdp,
            map_at,
            map.len() as u64,
        ];
        write_words(mem, layout::ZERO_PAGE, &words)?;
        let Initrd { start, len } = self.initrd.unwrap_or_default();
        write_words(mem, modules, &[start, len, 0, 0])?;
        let entries: Vec<u64> = map
            .iter()
            .flat_map(|&(addr, size, kind)| [addr, size, kind.into()])
            .collect();
        write_words(mem, map_at, &entries)
    }
}

/// Address, length and type of each piece of the first 4 GiB and more that holds memory.
fn memory_map(regions: &[Region]) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, layout::LOW_END, E820_RAM),
        (
            layout::LOW_END,
            layout::HIGH_START - layout::LOW_END,
            E820_RESERVED,
        ),
    ];
    for region in regions {
        let (start, end) = (region.gpa.max(layout::HIGH_START), region.gpa + region.len);
        if start < end {
            map.push((start, end - start, E820_RAM));
        }
    }
    map
}

fn write_words(mem: &GuestMemoryMmap, at: u64, words: &[u64]) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    mem.write_slice(&bytes, GuestAddress(at))
}

/// Four GiB in pages of 2 MiB, each at its own address.
fn write_page_tables(mem: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    const TABLE: u64 = 0x3; // present, writable
    const LARGE: u64 = 0x83; // and a large page
    let (root, pointers, directories) = (
        layout::PAGE_TABLES,
        layout::PAGE_TABLES + 0x1000,
        layout::PAGE_TABLES + 0x2000,
    );
    write_words(mem, root, &[pointers | TABLE])?;
    let tables: Vec<u64> = (0..4).map(|i| (directories + i * 0x1000) | TABLE).collect();
    write_words(mem, pointers, &tables)?;
    let pages: Vec<u64> = (0..4 * 512).map(|i| i << 21 | LARGE).collect();
    write_words(mem, directories, &pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_loader::bootparam::setup_header;

    fn kernel(protocol: Protocol) -> Loaded {
        let header = setup_header::default();
        Loaded {
            entry: 0x100_0200,
            protocol,
            header,
            end: 0x200_0000,
            initrd_max: 0x7fff_ffff,
            cmdline_max: 2047,
        }
    }

    fn written(protocol: Protocol) -> GuestMemoryMmap {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        let regions = [Region {
            gpa: 0,
            len: 64 << 20,
            host: 0,
        }];
        let initrd = Some(Initrd {
            start: 0x300_0000,
            len: 77,
        });
        let handover = Handover {
            regions: &regions,
            kernel: &kernel(protocol),
            cmdline: "a=b",
            initrd,
            rsdp: layout::ACPI,
        };
        handover.write(&mem).unwrap();
        mem
    }

    #[test]
    fn the_zero_page_is_as_the_boot_protocol_says() {
        let mem = written(Protocol::Linux64);
        let at = |offset: u64| {
            mem.read_obj::<u32>(GuestAddress(layout::ZERO_PAGE + offset))
                .unwrap()
        };
        assert_eq!(
            (at(0x228), at(0x218), at(0x21c)),
            (layout::COMMAND_LINE as u32, 0x300_0000, 77)
        );
        assert_eq!((at(0x70), at(0x1e8) & 0xff), (layout::ACPI as u32, 3));
        let word = |at: u64| mem.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(word(layout::GDT + 0x10), GDT[2]);
        assert_eq!(word(layout::PAGE_TABLES + 0x5000 + 511 * 8), 0xffe0_0083);
    }

    #[test]
    fn start_info_leads_to_everything() {
        let mem = written(Protocol::Pvh);
        let word = |at: u64| mem.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(word(layout::ZERO_PAGE) as u32, START_MAGIC);
        assert_eq!(word(word(layout::ZERO_PAGE + 16)), 0x300_0000);
        assert_eq!(word(layout::ZERO_PAGE + 32), layout::ACPI);
        assert_eq!(
            (
                word(word(layout::ZERO_PAGE + 40) + 8),
                word(layout::ZERO_PAGE + 48)
            ),
            (layout::LOW_END, 3)
        );
    }
}
