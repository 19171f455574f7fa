//! From the first ring-3 instruction to the idle loop.

use crate::arch::cpuid::Table;
use crate::arch::nucleus::{self, CpuidQuery};
use crate::arch::vcpu::{self, VCPU_BLOCKS};
use crate::arch::{apic, fpu, kvmclock, smp};
use crate::mm::{frames, heap, pagetable};
use crate::sched::idle;
use crate::{config, lock, net, power, process, random, time};
use unik_abi::ABI_VERSION;
use unik_abi::control::{ExitReport, Phase};
use unik_abi::image::{IMAGE_MAGIC, ImageInfo};
use unik_abi::layout::PHYSMAP_VADDR;
use unik_abi::pvh::{E820_RAM, MemmapEntry, Module, START_MAGIC, StartInfo};
use unik_core::frames::FrameAllocator;

/// Filled by the image linker.
#[unsafe(no_mangle)]
#[used]
#[unsafe(link_section = ".data.image_info")]
static UNIK_IMAGE_INFO: InfoSlot =
    InfoSlot(core::cell::UnsafeCell::new([0; size_of::<ImageInfo>()]));

#[repr(C, align(16))]
struct InfoSlot(core::cell::UnsafeCell<[u8; size_of::<ImageInfo>()]>);
// SAFETY: written by the image linker only, never at run time.
unsafe impl Sync for InfoSlot {}

/// What the image linker says.
pub fn image_info() -> &'static ImageInfo {
    // SAFETY: an ImageInfo is plain integers; the slot is large and aligned enough and never changes at run time. (In a cell so that
    // the compiler does not take the zeros of the source for granted.)
    unsafe { &*(UNIK_IMAGE_INFO.0.get() as *const ImageInfo) }
}

static CPUID: lock::Locked<Table> = lock::Locked::new(Table::new());
/// Bytes for the heap's first memory: the tables of the frame allocator and the page
/// directories of memory beyond 4 GiB come out of it. What is not used is never touched.
fn first_heap(limit: u64) -> u64 {
    (128 << 10) + (limit >> 21) * 160 + (limit >> 30).saturating_sub(3) * 8192
}

/// What CPUID says for a leaf, from the table that was filled at start.
pub fn cpuid(leaf: u32, subleaf: u32) -> Option<crate::arch::nucleus::CpuidQuery> {
    CPUID.get().get(leaf, subleaf)
}

/// Entry from `entry.s` on every vCPU, with upcalls masked.
#[unsafe(no_mangle)]
extern "C" fn kernel_start(start_info: u64, index: usize, entry_tsc: u64) -> ! {
    let ring3_tsc = crate::arch::rdtsc();
    if index == 0 {
        first(start_info, entry_tsc, ring3_tsc)
    } else {
        further(index)
    }
}

fn further(index: usize) -> ! {
    let first = &VCPU_BLOCKS[0];
    let this = &VCPU_BLOCKS[index];
    this.init(index as u32, first.cpuid_table(), apic::is_xapic());
    smp::here_i_am(index);
    lock::acquire();
    idle::install(vcpu::boot_stack(index));
    idle::run()
}

fn first(start_info: u64, entry_tsc: u64, ring3_tsc: u64) -> ! {
    lock::acquire();
    let vcpu = &VCPU_BLOCKS[0];
    let info = image_info();
    let table = CPUID.as_ptr() as u64;
    vcpu.init(0, table, false);
    power::stamp(Phase::Entered, entry_tsc);
    power::stamp(Phase::LibosStart, ring3_tsc);
    if info.magic != IMAGE_MAGIC || info.abi_version != ABI_VERSION {
        power::die(
            ExitReport::Refused,
            "this library OS was not linked by a matching image linker; build the image again",
        );
    }
    pagetable::init(info.pml4_paddr);
    let start = read_start_info(start_info);
    set_up_memory(info, &start);
    let features = set_up_processor();
    let manifest = physical(info.manifest_paddr, info.manifest_len).to_vec();
    let module = module(&start).to_vec();
    let config = config::init(&manifest, &module, command_line(&start));
    set_up_clock(config, entry_tsc);
    random::init(&config.seed, features.rdrand);
    apic::init(features.leaf1_ecx);
    vcpu.init(0, table, apic::is_xapic());
    idle::install(vcpu::first_stack_top());
    net::setup::start();
    process::start(info, config, features.hwcap);
    if config.cpus > 1 {
        smp::start(config.cpus);
    }
    power::stamp(Phase::LibosReady, crate::arch::rdtsc());
    idle::run()
}

/// `len` bytes of physical memory.
pub fn physical(paddr: u64, len: u64) -> &'static [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the image or the monitor put the bytes there; the physmap maps them for ever. Nothing writes them.
    unsafe { core::slice::from_raw_parts(frames::virt(paddr), len as usize) }
}

/// Reads a plain structure from physical memory.
fn read<T: Copy>(paddr: u64) -> T {
    // SAFETY: T is plain integers (PVH structures), and any bytes are one.
    unsafe { (frames::virt(paddr) as *const T).read_unaligned() }
}

fn read_start_info(paddr: u64) -> StartInfo {
    let info: StartInfo = read(paddr & 0xffff_ffff);
    if info.magic != START_MAGIC || info.version < 1 {
        power::die(
            ExitReport::Refused,
            "the monitor gave no PVH start information of version 1 or later; use a monitor that boots PVH",
        );
    }
    info
}

fn module(start: &StartInfo) -> &'static [u8] {
    if start.nr_modules == 0 {
        return &[];
    }
    let module: Module = read(start.modlist_paddr);
    physical(module.paddr, module.size)
}

fn command_line(start: &StartInfo) -> &'static [u8] {
    if start.cmdline_paddr == 0 {
        return &[];
    }
    let text = physical(start.cmdline_paddr, 4096);
    &text[..text.iter().position(|&b| b == 0).unwrap_or(text.len())]
}

/// The heap's first memory lies right after the image; all other RAM goes to the frame allocator, without what the monitor handed over.
fn set_up_memory(info: &ImageInfo, start: &StartInfo) {
    let entries = || {
        (0..start.memmap_entries as u64)
            .map(|i| read::<MemmapEntry>(start.memmap_paddr + i * size_of::<MemmapEntry>() as u64))
    };
    let ram = || entries().filter(|entry| entry.kind == E820_RAM);
    let limit = ram()
        .map(|entry| entry.addr + entry.size)
        .max()
        .unwrap_or(0)
        .min(512 << 30);
    let first_heap = first_heap(limit).next_multiple_of(4096);
    // SAFETY: free memory after the image, which the frame allocator does not get.
    unsafe {
        heap::start(
            (PHYSMAP_VADDR + info.phys_end) as *mut u8,
            first_heap as usize,
        )
    };
    map_high_memory(limit);
    let mut allocator = FrameAllocator::new(limit);
    let module = if start.nr_modules > 0 {
        read::<Module>(start.modlist_paddr)
    } else {
        Module::default()
    };
    let module_end = (module.paddr + module.size).next_multiple_of(4096);
    let used = [
        (0, 0x10_0000),
        (unik_abi::layout::IMAGE_PADDR, info.phys_end + first_heap),
        (module.paddr & !4095, module_end),
    ];
    for entry in ram() {
        add_without(
            &mut allocator,
            entry.addr,
            (entry.addr + entry.size).min(limit),
            &used,
        );
    }
    frames::install(allocator);
}

/// Continues the physmap beyond the 4 GiB that the image brings along, with page directories from the heap.
fn map_high_memory(limit: u64) {
    for gib in 4..limit.div_ceil(1 << 30) {
        // SAFETY: a page-sized, page-aligned piece of the heap that becomes a page table for ever.
        let directory = unsafe {
            alloc::alloc::alloc_zeroed(core::alloc::Layout::from_size_align_unchecked(4096, 4096))
        } as u64;
        if directory == 0 {
            power::die(
                ExitReport::Refused,
                "no memory for page tables; use less --memory",
            );
        }
        pagetable::map_physmap_gib(gib, directory - PHYSMAP_VADDR);
    }
}

/// Adds `start..end` but for the ranges in `used`.
fn add_without(allocator: &mut FrameAllocator, start: u64, end: u64, used: &[(u64, u64)]) {
    match used.split_first() {
        None if start < end => allocator.add(start, end),
        None => {}
        Some((&(from, to), rest)) => {
            add_without(allocator, start, end.min(from), rest);
            add_without(allocator, start.max(to), end, rest);
        }
    }
}

struct Features {
    leaf1_ecx: u32,
    hwcap: u32,
    rdrand: bool,
}

fn set_up_processor() -> Features {
    let mut table = CPUID.get();
    table.fill();
    let leaf1 = table.get(1, 0).unwrap_or_default();
    let osxsave = leaf1.ecx >> 26 & 1 == 1;
    let size = table.get(0xd, 0).map_or(512, |leaf| leaf.ebx);
    fpu::init(osxsave, size);
    Features {
        leaf1_ecx: leaf1.ecx,
        hwcap: leaf1.edx,
        rdrand: leaf1.ecx >> 30 & 1 == 1,
    }
}

fn set_up_clock(config: &config::Config, entry_tsc: u64) {
    if config.tsc_khz > 0 {
        return time::init(
            entry_tsc,
            config.tsc_khz,
            config.wall_ns,
            config.wall_tsc.unwrap_or(entry_tsc),
        );
    }
    if let Some(clock) = kvmclock::read() {
        return time::init(entry_tsc, clock.khz, clock.wall_ns, clock.tsc);
    }
    let Some(khz) = crystal_khz() else {
        power::die(
            ExitReport::Refused,
            "the frequency of the time stamp counter is unknown: this monitor offers neither a configuration, nor kvmclock, nor CPUID leaf 0x15",
        );
    };
    time::init(
        entry_tsc,
        khz,
        config.wall_ns,
        config.wall_tsc.unwrap_or(entry_tsc),
    );
}

/// The frequency by CPUID leaf 0x15 (Intel SDM volume 2).
fn crystal_khz() -> Option<u64> {
    let mut leaf = [CpuidQuery {
        leaf: 0x15,
        ..CpuidQuery::default()
    }];
    if CPUID.get().get(0, 0)?.eax < 0x15 {
        return None;
    }
    nucleus::cpuid(&mut leaf);
    let [leaf] = leaf;
    let khz = (leaf.ecx as u64 * leaf.ebx as u64).checked_div(leaf.eax as u64)? / 1000;
    (khz > 0).then_some(khz)
}
