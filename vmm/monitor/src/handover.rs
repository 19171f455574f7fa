//! What the guest finds in the boot area: PVH start info, memory map, command line and modules.
//!
//! ```text
//! BOOT_AREA_PADDR   start info | modules | memory map | command line | module bytes ...        stack | BOOT_AREA_END
//! ```

use unik_abi::layout::{BOOT_AREA_END, BOOT_AREA_PADDR};
use unik_abi::pvh::{E820_RAM, MemmapEntry, Module, START_MAGIC, StartInfo};
use unik_host::memory::Region;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes at the end of the boot area that the first vCPU may use as its stack.
const STACK_LEN: u64 = 4096;

/// First address after the low memory that a PC leaves to its firmware's tables.
const LOW_END: u64 = BOOT_AREA_END;

/// Where RAM goes on after the hole for video memory and firmware.
const HIGH_START: u64 = 0x10_0000;

/// Why the boot area could not be written.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Arguments and environment are too long.
    #[error(
        "arguments and environment need {need} bytes, the guest's boot area holds {room}: pass less, for example by a file packed into the image"
    )]
    TooLong {
        /// Bytes wanted.
        need: u64,
        /// Bytes there are.
        room: u64,
    },
    /// The guest has less memory than the boot area needs.
    #[error("the guest has too little memory to start: give it more (--memory)")]
    NoRoom,
}

/// What to hand over.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// RAM as the machine has it.
    pub regions: &'a [Region],
    /// Kernel command line.
    pub cmdline: &'a str,
    /// The first module.
    pub module: &'a [u8],
}

/// Where things ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// For `ebx`.
    pub start_info: u32,
    /// For `esp`.
    pub stack: u32,
}

impl Handover<'_> {
    /// Writes everything into the boot area of `mem`.
    pub fn write(&self, mem: &GuestMemoryMmap) -> Result<Placed, HandoverError> {
        let memmap = memory_map(self.regions);
        let modlist = BOOT_AREA_PADDR + size_of::<StartInfo>() as u64;
        let map_at = modlist + size_of::<Module>() as u64;
        let cmdline_at = map_at + (memmap.len() * size_of::<MemmapEntry>()) as u64;
        let module_at = (cmdline_at + self.cmdline.len() as u64 + 1).next_multiple_of(8);
        let end = module_at + self.module.len() as u64;
        if end > BOOT_AREA_END - STACK_LEN {
            let room = BOOT_AREA_END - STACK_LEN - module_at.min(BOOT_AREA_END - STACK_LEN);
            return Err(HandoverError::TooLong {
                need: self.module.len() as u64,
                room,
            });
        }
        let start = StartInfo {
            magic: START_MAGIC,
            version: 1,
            nr_modules: 1,
            modlist_paddr: modlist,
            cmdline_paddr: cmdline_at,
            memmap_paddr: map_at,
            memmap_entries: memmap.len() as u32,
            ..Default::default()
        };
        let mut bytes = start_info_bytes(&start);
        let module = Module {
            paddr: module_at,
            size: self.module.len() as u64,
            ..Default::default()
        };
        bytes.extend(
            [
                module.paddr,
                module.size,
                module.cmdline_paddr,
                module.reserved,
            ]
            .map(u64::to_le_bytes)
            .concat(),
        );
        memmap
            .iter()
            .for_each(|entry| bytes.extend(memmap_bytes(entry)));
        bytes.extend_from_slice(self.cmdline.as_bytes());
        bytes.resize((module_at - BOOT_AREA_PADDR) as usize, 0);
        bytes.extend_from_slice(self.module);
        mem.write_slice(&bytes, GuestAddress(BOOT_AREA_PADDR))
            .map_err(|_| HandoverError::NoRoom)?;
        Ok(Placed {
            start_info: BOOT_AREA_PADDR as u32,
            stack: (BOOT_AREA_END - 16) as u32,
        })
    }
}

/// The memory map of a PC with this RAM: the low 640 KiB and the megabyte boundary respected, holes not listed.
pub fn memory_map(regions: &[Region]) -> Vec<MemmapEntry> {
    let mut map = Vec::new();
    let mut add = |start: u64, end: u64| {
        if start < end {
            map.push(MemmapEntry {
                addr: start,
                size: end - start,
                kind: E820_RAM,
                reserved: 0,
            });
        }
    };
    for region in regions {
        let end = region.gpa + region.len;
        add(region.gpa, end.min(LOW_END));
        add(region.gpa.max(HIGH_START), end);
    }
    map
}

fn start_info_bytes(s: &StartInfo) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    [s.magic, s.version, s.flags, s.nr_modules]
        .iter()
        .for_each(|v| bytes.extend(v.to_le_bytes()));
    [
        s.modlist_paddr,
        s.cmdline_paddr,
        s.rsdp_paddr,
        s.memmap_paddr,
    ]
    .iter()
    .for_each(|v| bytes.extend(v.to_le_bytes()));
    [s.memmap_entries, s.reserved]
        .iter()
        .for_each(|v| bytes.extend(v.to_le_bytes()));
    bytes
}

fn memmap_bytes(entry: &MemmapEntry) -> Vec<u8> {
    let mut bytes = [entry.addr, entry.size].map(u64::to_le_bytes).concat();
    bytes.extend([entry.kind, entry.reserved].map(u32::to_le_bytes).concat());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(len: u64) -> (GuestMemoryMmap, Vec<Region>) {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len as usize)]).unwrap();
        (
            mem,
            vec![Region {
                gpa: 0,
                len,
                host: 0,
            }],
        )
    }

    #[test]
    fn everything_is_where_start_info_says() {
        let (mem, regions) = ram(4 << 20);
        let placed = Handover {
            regions: &regions,
            cmdline: "a b",
            module: b"arg=x\0",
        }
        .write(&mem)
        .unwrap();
        let at = |offset| {
            mem.read_obj::<u64>(GuestAddress(u64::from(placed.start_info) + offset))
                .unwrap()
        };
        assert_eq!(at(0) as u32, START_MAGIC);
        let (modlist, cmdline, memmap) = (at(16), at(24), at(40));
        let mut text = [0; 4];
        mem.read_slice(&mut text, GuestAddress(cmdline)).unwrap();
        assert_eq!(&text, b"a b\0");
        let [paddr, size] = [0, 8].map(|o| mem.read_obj::<u64>(GuestAddress(modlist + o)).unwrap());
        let mut module = vec![0; size as usize];
        mem.read_slice(&mut module, GuestAddress(paddr)).unwrap();
        assert_eq!(module, b"arg=x\0");
        assert_eq!(
            mem.read_obj::<u64>(GuestAddress(memmap + 24)).unwrap(),
            HIGH_START
        );
        assert_eq!(at(48) as u32, 2);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (mem, regions) = ram(4 << 20);
        let module = vec![b'x'; (BOOT_AREA_END - BOOT_AREA_PADDR) as usize];
        let error = Handover {
            regions: &regions,
            cmdline: "",
            module: &module,
        }
        .write(&mem)
        .unwrap_err();
        assert!(matches!(error, HandoverError::TooLong { .. }));
        let (mem, regions) = ram(0x8000);
        let error = Handover {
            regions: &regions,
            cmdline: "",
            module: b"",
        }
        .write(&mem)
        .unwrap_err();
        assert!(matches!(error, HandoverError::NoRoom));
    }

    #[test]
    fn the_memory_map_leaves_holes_out() {
        let regions = [
            Region {
                gpa: 0,
                len: 3 << 30,
                host: 0,
            },
            Region {
                gpa: 4 << 30,
                len: 1 << 30,
                host: 0,
            },
        ];
        let map: Vec<_> = memory_map(&regions)
            .iter()
            .map(|e| (e.addr, e.size))
            .collect();
        assert_eq!(
            map,
            [
                (0, LOW_END),
                (HIGH_START, (3 << 30) - HIGH_START),
                (4 << 30, 1 << 30)
            ]
        );
    }
}
