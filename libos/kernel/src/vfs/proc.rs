//! What `/proc` shows of the process and the machine: [`Source`].

use crate::arch::smp;
use crate::errno::{Errno, Result};
use crate::mm::mapping::{Backing, Vma};
use crate::mm::space::SPACE;
use crate::mm::{PAGE, frames, pagetable};
use crate::process::{self, PID};
use crate::sched::thread::{State, Thread};
use crate::{config, net, sched, signal, sys, time};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use linux_raw_sys::general as linux;
use unik_core::areas::Area;
use unik_fs::procfs::source::{
    CpuTimes, Layout, Limit, MachineInfo, MachineMemory, ProcSource, ProcessMemory, Processor,
    Region, SignalMasks, ThreadInfo, Uname,
};
use unik_fs::vfs::AT_FDCWD;

/// The kernel as `/proc` sees it.
pub struct Source;

fn name_of(thread: &Thread) -> Vec<u8> {
    let name = thread.name.get();
    name[..name.iter().position(|&b| b == 0).unwrap_or(name.len())].to_vec()
}

fn describe(thread: &Thread) -> ThreadInfo {
    let state = match thread.state.get() {
        State::Running | State::Ready => 'R',
        State::Blocked => 'S',
        State::Dead => 'Z',
    };
    ThreadInfo {
        tid: thread.tid,
        name: name_of(thread),
        state,
        user_ns: time::ticks_to_ns(thread.cpu_ticks()),
        cpu: thread.cpu.get() as u32,
        nice: thread.nice.get(),
        blocked: thread.signals.borrow().blocked,
        ..ThreadInfo::default()
    }
}

/// Strings, each ended by NUL.
fn joined(strings: &[Vec<u8>]) -> Vec<u8> {
    strings
        .iter()
        .flat_map(|text| text.iter().copied().chain([0]))
        .collect()
}

/// Device and inode of the program's file, when it is packed.
fn program_file() -> (u64, u64) {
    let node = super::vfs()
        .find(AT_FDCWD, &config::get().exe, 0)
        .and_then(unik_fs::walk::Target::into_node);
    node.map_or((0, 1), |node| (node.dev(), node.ino()))
}

fn region(area: &Area<&Vma>, base: u64, program: (u64, u64)) -> Region {
    let vma = area.payload;
    let has = |prot: u32| vma.prot & prot != 0;
    let mut region = Region {
        start: area.start,
        end: area.end,
        read: has(linux::PROT_READ),
        write: has(linux::PROT_WRITE),
        execute: has(linux::PROT_EXEC),
        shared: vma.shared,
        ..Region::default()
    };
    match &vma.backing {
        Backing::Anonymous | Backing::Bss => {}
        Backing::Heap => region.name = b"[heap]".to_vec(),
        Backing::Stack => region.name = b"[stack]".to_vec(),
        Backing::Vdso(_) => region.name = b"[vdso]".to_vec(),
        Backing::Image(_) => {
            region.name.clone_from(&config::get().exe);
            region.offset = area.start.saturating_sub(base);
            (region.dev, region.ino) = program;
        }
        Backing::File(file) => {
            region.name.clone_from(&file.path);
            region.offset = vma.offset;
            (region.dev, region.ino) = (file.node.dev(), file.node.ino());
        }
    }
    region
}

/// Sum of the lengths of the areas that `wanted` holds for.
fn bytes_of(wanted: impl Fn(&Vma) -> bool) -> u64 {
    SPACE
        .get()
        .areas()
        .filter(|area| wanted(area.payload))
        .map(|area| area.end - area.start)
        .sum()
}

impl ProcSource for Source {
    fn network(&self, name: &str) -> String {
        net::report(name)
    }

    fn pid(&self) -> u32 {
        PID
    }

    fn tid(&self) -> u32 {
        sched::current().tid
    }

    fn threads(&self) -> Vec<ThreadInfo> {
        sched::threads()
            .iter()
            .map(|thread| describe(thread))
            .collect()
    }

    fn set_thread_name(&self, tid: u32, name: &[u8]) -> Result<()> {
        let thread = sched::find(tid).ok_or(Errno::ESRCH)?;
        let mut bytes = [0; 16];
        let len = name.len().min(15);
        bytes[..len].copy_from_slice(&name[..len]);
        thread.name.set(bytes);
        Ok(())
    }

    fn cmdline(&self) -> Vec<u8> {
        joined(&config::get().args)
    }

    fn environ(&self) -> Vec<u8> {
        joined(&config::get().env)
    }

    fn auxv(&self) -> Vec<u8> {
        process::get().auxv.clone()
    }

    fn exe(&self) -> Vec<u8> {
        config::get().exe.clone()
    }

    fn regions(&self) -> Vec<Region> {
        let program = program_file();
        let space = SPACE.get();
        let base = space
            .areas()
            .find(|area| matches!(area.payload.backing, Backing::Image(_)))
            .map_or(0, |area| area.start);
        space
            .areas()
            .map(|area| region(&area, base, program))
            .collect()
    }

    fn resident(&self, region: &Region) -> (u64, u64) {
        let (mut resident, mut own) = (0, 0);
        let mut page = region.start;
        while page < region.end {
            let Some(leaf) = pagetable::lookup(page) else {
                page += PAGE;
                continue;
            };
            let len = if leaf.large {
                crate::mm::LARGE.min(region.end - page)
            } else {
                PAGE
            };
            resident += len;
            own += if leaf.entry & pagetable::OWNED != 0 {
                len
            } else {
                0
            };
            page += len;
        }
        (resident, own)
    }

    fn process_memory(&self) -> ProcessMemory {
        let size = bytes_of(|_| true);
        let resident = SPACE.get().resident();
        ProcessMemory {
            size,
            peak: size,
            resident,
            resident_peak: resident,
            file: 0,
            text: bytes_of(|vma| {
                matches!(vma.backing, Backing::Image(_)) && vma.prot & linux::PROT_EXEC != 0
            }),
            data: bytes_of(|vma| {
                vma.is_anonymous()
                    && vma.prot & linux::PROT_WRITE != 0
                    && !matches!(vma.backing, Backing::Stack)
            }),
            stack: bytes_of(|vma| matches!(vma.backing, Backing::Stack)),
            tables: 0,
        }
    }

    fn layout(&self) -> Layout {
        let space = SPACE.get();
        let bounds = |wanted: &dyn Fn(&Vma) -> bool| {
            let (mut start, mut end) = (0, 0);
            for area in space.areas().filter(|area| wanted(area.payload)) {
                start = if start == 0 { area.start } else { start };
                end = area.end;
            }
            (start, end)
        };
        let image = |vma: &Vma| matches!(vma.backing, Backing::Image(_));
        let (start_code, end_code) = bounds(&|vma| image(vma) && vma.prot & linux::PROT_EXEC != 0);
        let (start_data, end_data) = bounds(&|vma| image(vma) && vma.prot & linux::PROT_WRITE != 0);
        let (_, start_stack) = bounds(&|vma| matches!(vma.backing, Backing::Stack));
        Layout {
            start_code,
            end_code,
            start_data,
            end_data,
            start_stack,
            start_brk: space.heap().0,
            ..Layout::default()
        }
    }

    fn machine_memory(&self) -> MachineMemory {
        let (free, total) = frames::stats();
        let (free, total) = (free as u64 * PAGE, total as u64 * PAGE);
        MachineMemory {
            total,
            free,
            available: free,
            shared: 0,
        }
    }

    fn processor(&self) -> Processor {
        processor()
    }

    fn machine(&self) -> MachineInfo {
        let uptime_ns = time::now();
        let busy = process::cpu_time();
        let count = smp::count() as u64;
        let idle = (uptime_ns * count).saturating_sub(busy) / count;
        let cpus = (0..count)
            .map(|_| CpuTimes {
                user: busy / count,
                system: 0,
                idle,
            })
            .collect();
        let running = sched::threads()
            .iter()
            .filter(|thread| matches!(thread.state.get(), State::Running | State::Ready))
            .count();
        MachineInfo {
            uptime_ns,
            boot_time: time::boot_realtime() / 1_000_000_000,
            cpus,
            forks: sched::thread_count() as u64,
            running: running as u32,
            ..MachineInfo::default()
        }
    }

    fn uname(&self) -> Uname {
        Uname {
            release: sys::misc::RELEASE.to_string(),
            version: "#1 SMP Unik".to_string(),
            hostname: sys::misc::hostname(),
        }
    }

    fn set_hostname(&self, name: &[u8]) -> Result<()> {
        sys::misc::set_hostname(name);
        Ok(())
    }

    fn limits(&self) -> Vec<Limit> {
        super::limits()
    }

    fn signals(&self) -> SignalMasks {
        let set = |wanted: &dyn Fn(u64) -> bool| {
            (1..=64)
                .filter(|&n| wanted(signal::action(n).handler))
                .fold(0, |set, n| set | signal::bit(n))
        };
        SignalMasks {
            pending: 0,
            ignored: set(&|handler| handler == 1),
            caught: set(&|handler| handler > 1),
        }
    }
}

/// Names of feature bits (Linux's `cpufeatures.h`): (leaf, register, bit, name).
const FEATURES: &[(u32, u8, u32, &str)] = &[
    (1, b'd', 0, "fpu"),
    (1, b'd', 4, "tsc"),
    (1, b'd', 5, "msr"),
    (1, b'd', 8, "cx8"),
    (1, b'd', 9, "apic"),
    (1, b'd', 15, "cmov"),
    (1, b'd', 19, "clflush"),
    (1, b'd', 23, "mmx"),
    (1, b'd', 24, "fxsr"),
    (1, b'd', 25, "sse"),
    (1, b'd', 26, "sse2"),
    (1, b'c', 0, "pni"),
    (1, b'c', 1, "pclmulqdq"),
    (1, b'c', 9, "ssse3"),
    (1, b'c', 12, "fma"),
    (1, b'c', 13, "cx16"),
    (1, b'c', 19, "sse4_1"),
    (1, b'c', 20, "sse4_2"),
    (1, b'c', 21, "x2apic"),
    (1, b'c', 22, "movbe"),
    (1, b'c', 23, "popcnt"),
    (1, b'c', 24, "tsc_deadline_timer"),
    (1, b'c', 25, "aes"),
    (1, b'c', 26, "xsave"),
    (1, b'c', 28, "avx"),
    (1, b'c', 29, "f16c"),
    (1, b'c', 30, "rdrand"),
    (1, b'c', 31, "hypervisor"),
    (7, b'b', 0, "fsgsbase"),
    (7, b'b', 3, "bmi1"),
    (7, b'b', 5, "avx2"),
    (7, b'b', 8, "bmi2"),
    (7, b'b', 9, "erms"),
    (7, b'b', 16, "avx512f"),
    (7, b'b', 17, "avx512dq"),
    (7, b'b', 18, "rdseed"),
    (7, b'b', 19, "adx"),
    (7, b'b', 29, "sha_ni"),
    (7, b'b', 30, "avx512bw"),
    (7, b'b', 31, "avx512vl"),
    (0x8000_0001, b'd', 11, "syscall"),
    (0x8000_0001, b'd', 20, "nx"),
    (0x8000_0001, b'd', 26, "pdpe1gb"),
    (0x8000_0001, b'd', 27, "rdtscp"),
    (0x8000_0001, b'd', 29, "lm"),
    (0x8000_0001, b'c', 0, "lahf_lm"),
    (0x8000_0001, b'c', 5, "abm"),
];

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes)
        .trim_matches(['\0', ' '])
        .to_string()
}

fn processor() -> Processor {
    let leaf = |number| crate::boot::cpuid(number, 0).unwrap_or_default();
    let (first, one, sizes) = (leaf(0), leaf(1), leaf(0x8000_0008));
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .map(leaf)
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .collect();
    let (family, model) = (one.eax >> 8 & 15, one.eax >> 4 & 15);
    let extended = family == 15 || family == 6;
    let signature = (
        if family == 15 {
            family + (one.eax >> 20 & 0xff)
        } else {
            family
        },
        if extended {
            model | (one.eax >> 12 & 0xf0)
        } else {
            model
        },
        one.eax & 15,
    );
    let flags: Vec<&str> = FEATURES
        .iter()
        .filter(|(number, register, bit, _)| {
            let answer = leaf(*number);
            let word = match register {
                b'b' => answer.ebx,
                b'c' => answer.ecx,
                _ => answer.edx,
            };
            word >> bit & 1 == 1
        })
        .map(|feature| feature.3)
        .collect();
    Processor {
        vendor: text(&[first.ebx, first.edx, first.ecx]),
        model_name: text(&brand),
        signature,
        khz: time::khz(),
        flags: flags.join(" "),
        line: (one.ebx >> 8 & 0xff) * 8,
        address_bits: (sizes.eax & 0xff, sizes.eax >> 8 & 0xff),
    }
}
