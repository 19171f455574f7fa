//! The one process: its program, its first thread, its end.

use crate::arch::fpu;
use crate::arch::frame::Frame;
use crate::config::Config;
use crate::errno::Errno;
use crate::lock::Locked;
use crate::mm::mapping::{Backing, Vma};
use crate::mm::space::SPACE;
use crate::mm::{PAGE, user};
use crate::sched::{self, thread::Thread};
use crate::{power, random, sys, time, vfs};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use linux_raw_sys::{auxvec, general as linux};
use unik_abi::control::ExitReport;
use unik_abi::image::{ImageInfo, SEG_W, SEG_X, Segment};
use unik_abi::layout::USER_TOP;
use unik_fs::fdtable::FdTable;

/// Process id, which is also the first thread's id.
pub const PID: u32 = 1;

/// Size of the first thread's stack (RLIMIT_STACK).
pub const STACK_SIZE: u64 = 8 << 20;

/// What Linux keeps per process.
pub struct Process {
    /// CPU time of threads that are gone, TSC ticks.
    pub past_ticks: Cell<u64>,
    /// Auxiliary vector, for /proc/self/auxv.
    pub auxv: Vec<u8>,
    /// Soft and hard limits (getrlimit), by resource.
    pub limits: [Cell<(u64, u64)>; 16],
}

static PROCESS: Locked<Option<Rc<Process>>> = Locked::new(None);

/// The process.
pub fn get() -> Rc<Process> {
    PROCESS
        .get()
        .clone()
        .expect("set at start, before any program code")
}

/// The table of open files.
pub fn fds() -> Rc<FdTable> {
    vfs::fds()
}

/// Path of a file, for /proc/self/maps.
pub fn path_of(node: &unik_fs::Node) -> Vec<u8> {
    vfs::path_of(node)
}

/// CPU time of all threads, nanoseconds.
pub fn cpu_time() -> u64 {
    let running: u64 = sched::threads()
        .iter()
        .map(|thread| thread.cpu_ticks())
        .sum();
    time::ticks_to_ns(running + get().past_ticks.get())
}

fn random_pages(bits: u32) -> u64 {
    (random::number() & ((1 << bits) - 1)) * PAGE
}

fn protection(segment: &Segment) -> u32 {
    let mut prot = linux::PROT_READ;
    if segment.flags & SEG_W != 0 {
        prot |= linux::PROT_WRITE;
    }
    if segment.flags & SEG_X != 0 {
        prot |= linux::PROT_EXEC;
    }
    prot
}

/// Maps the program's segments where they are in the image.
fn map_segments(info: &ImageInfo, base: u64) -> Result<(), Errno> {
    let mut space = SPACE.get();
    for segment in &info.segments[..info.segment_count as usize] {
        let (start, middle, end) = (
            base + segment.vaddr,
            base + segment.vaddr + segment.image_len,
            base + segment.vaddr + segment.mem_len,
        );
        let vma = Vma::anonymous(protection(segment));
        if segment.image_len > 0 {
            space.map(
                start,
                middle,
                Vma {
                    backing: Backing::Image(segment.paddr),
                    ..vma.clone()
                },
                false,
            )?;
        }
        if end > middle {
            space.map(
                middle,
                end,
                Vma {
                    backing: Backing::Bss,
                    ..vma
                },
                false,
            )?;
        }
    }
    Ok(())
}

/// The new stack: grows down from `top`.
struct StackBuilder {
    at: u64,
}

impl StackBuilder {
    fn bytes(&mut self, bytes: &[u8]) -> Result<u64, Errno> {
        self.at -= bytes.len() as u64;
        user::slice_mut(self.at, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(self.at)
    }

    fn string(&mut self, text: &[u8]) -> Result<u64, Errno> {
        self.bytes(&[0])?;
        self.bytes(text)
    }

    fn strings(&mut self, list: &[Vec<u8>]) -> Result<Vec<u64>, Errno> {
        list.iter().map(|text| self.string(text)).collect()
    }
}

/// Loads the program and makes its first thread ready. Whatever goes wrong here ends the machine with a sentence.
pub fn start(info: &ImageInfo, config: &Config, hwcap: u32) {
    if let Err(errno) = load(info, config, hwcap) {
        power::die(
            ExitReport::Refused,
            &alloc::format!("cannot load the program: {errno}; does --memory leave room for it?"),
        );
    }
}

fn load(info: &ImageInfo, config: &Config, hwcap: u32) -> Result<(), Errno> {
    let base = match info.pie {
        0 => 0,
        _ => (0x5555_5555_4000 + random_pages(28)).next_multiple_of(info.align.max(PAGE)),
    };
    let stack_top = USER_TOP - PAGE - random_pages(22);
    let stack_bottom = stack_top - STACK_SIZE;
    let mmap_top = stack_bottom - (1 << 20) - random_pages(16);
    SPACE
        .get()
        .init(mmap_top, base + info.program_end + random_pages(13));
    map_segments(info, base)?;
    let stack = Vma {
        backing: Backing::Stack,
        stack: true,
        ..Vma::anonymous(linux::PROT_READ | linux::PROT_WRITE)
    };
    SPACE.get().map(stack_bottom, stack_top, stack, false)?;
    let vdso = map_vdso(info)?;
    let (rsp, auxv) = build_stack(info, config, hwcap, base, vdso, stack_top)?;
    let limits = core::array::from_fn(|resource| Cell::new(default_limit(resource as u32)));
    *PROCESS.get() = Some(Rc::new(Process {
        past_ticks: Cell::new(0),
        auxv,
        limits,
    }));
    // SAFETY: the control page is mapped for ever; the monitor only reads this.
    unsafe { (&raw mut (*power::control_page()).program_base).write_volatile(base) };
    let thread = Thread::new(
        sched::new_tid(),
        Frame::start(base + info.entry, rsp),
        0,
        fpu::State::new(),
    )
    .ok_or(Errno::ENOMEM)?;
    let mut name = [0; 16];
    let exe = config.exe.rsplit(|&b| b == b'/').next().unwrap_or_default();
    name[..exe.len().min(15)].copy_from_slice(&exe[..exe.len().min(15)]);
    thread.name.set(name);
    sched::add(Rc::new(thread));
    Ok(())
}

fn default_limit(resource: u32) -> (u64, u64) {
    match resource {
        linux::RLIMIT_STACK => (STACK_SIZE, u64::MAX),
        linux::RLIMIT_NOFILE => (1024, 1 << 20),
        linux::RLIMIT_CORE => (0, u64::MAX),
        linux::RLIMIT_NPROC | linux::RLIMIT_SIGPENDING => (32768, 32768),
        linux::RLIMIT_MEMLOCK => (u64::MAX, u64::MAX),
        linux::RLIMIT_MSGQUEUE => (819_200, 819_200),
        linux::RLIMIT_NICE | linux::RLIMIT_RTPRIO => (0, 0),
        _ => (u64::MAX, u64::MAX),
    }
}

fn map_vdso(info: &ImageInfo) -> Result<u64, Errno> {
    if info.vdso_len == 0 {
        return Ok(0);
    }
    let mut space = SPACE.get();
    let len = info.vdso_len.next_multiple_of(PAGE);
    let start = space.find_room(0, len, false)?;
    let vma = Vma {
        backing: Backing::Vdso(info.vdso_paddr),
        ..Vma::anonymous(linux::PROT_READ | linux::PROT_EXEC)
    };
    space.map(start, start + len, vma, false)?;
    Ok(start)
}

/// argc, argv, envp, auxv and the strings, as the System V ABI lays them out. Returns rsp and the auxiliary vector's bytes.
fn build_stack(
    info: &ImageInfo,
    config: &Config,
    hwcap: u32,
    base: u64,
    vdso: u64,
    top: u64,
) -> Result<(u64, Vec<u8>), Errno> {
    let mut stack = StackBuilder { at: top - 8 };
    let exec_name = stack.string(&config.exe)?;
    let env = stack.strings(&config.env)?;
    let args = stack.strings(&config.args)?;
    let platform = stack.string(b"x86_64")?;
    let mut entropy = [0; 16];
    random::fill(&mut entropy);
    let entropy = stack.bytes(&entropy)?;
    let min_signal_stack = 512 + fpu::size() as u64 + 1024;
    let auxv: Vec<[u64; 2]> = [
        (auxvec::AT_SYSINFO_EHDR, vdso),
        (auxvec::AT_HWCAP, hwcap as u64),
        (auxvec::AT_PAGESZ, PAGE),
        (auxvec::AT_CLKTCK, 100),
        (auxvec::AT_PHDR, base + info.phdr_vaddr),
        (auxvec::AT_PHENT, info.phent as u64),
        (auxvec::AT_PHNUM, info.phnum as u64),
        (auxvec::AT_BASE, 0),
        (auxvec::AT_FLAGS, 0),
        (auxvec::AT_ENTRY, base + info.entry),
        (auxvec::AT_UID, 0),
        (auxvec::AT_EUID, 0),
        (auxvec::AT_GID, 0),
        (auxvec::AT_EGID, 0),
        (auxvec::AT_SECURE, 0),
        (auxvec::AT_RANDOM, entropy),
        (auxvec::AT_HWCAP2, 2),
        (auxvec::AT_EXECFN, exec_name),
        (auxvec::AT_PLATFORM, platform),
        (AT_MINSIGSTKSZ, min_signal_stack),
        (auxvec::AT_NULL, 0),
    ]
    .into_iter()
    .filter(|&(kind, value)| kind != auxvec::AT_SYSINFO_EHDR || value != 0)
    .map(|(kind, value)| [kind as u64, value])
    .collect();
    let words = 1 + args.len() + 1 + env.len() + 1 + auxv.len() * 2;
    let rsp = (stack.at - words as u64 * 8) & !15;
    let mut all = Vec::with_capacity(words);
    all.push(args.len() as u64);
    all.extend(args);
    all.push(0);
    all.extend(env);
    all.push(0);
    all.extend(auxv.iter().flatten());
    for (index, word) in all.iter().enumerate() {
        user::put(rsp + index as u64 * 8, *word)?;
    }
    Ok((
        rsp,
        auxv.iter()
            .flatten()
            .flat_map(|word| word.to_le_bytes())
            .collect(),
    ))
}

const AT_MINSIGSTKSZ: u32 = 51;

/// What must happen however the process ends.
pub fn at_exit() {
    sys::print_summary();
}

/// exit_group(2).
pub fn exit(code: u8) -> ! {
    at_exit();
    power::exit(ExitReport::Exited(code))
}
