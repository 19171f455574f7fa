//! What `/proc` asks of the kernel: [`ProcSource`] and the plain records it answers with.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Result;

/// One thread.
#[derive(Clone, Debug, Default)]
pub struct ThreadInfo {
    /// Thread id.
    pub tid: u32,
    /// Name (at most 15 bytes).
    pub name: Vec<u8>,
    /// `R`, `S`, `D`, `T`, `Z`.
    pub state: char,
    /// Nanoseconds in the program.
    pub user_ns: u64,
    /// Nanoseconds in the library OS.
    pub system_ns: u64,
    /// Nanoseconds since boot when it started.
    pub start_ns: u64,
    /// Where it last ran.
    pub cpu: u32,
    /// Nice value.
    pub nice: i32,
    /// Pending signals of the thread.
    pub pending: u64,
    /// Blocked signals.
    pub blocked: u64,
    /// Times it gave the CPU up by itself.
    pub voluntary: u64,
    /// Times it was preempted.
    pub involuntary: u64,
}

/// Signals of the process, as masks (bit `n - 1` for signal `n`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalMasks {
    /// Pending for the process.
    pub pending: u64,
    /// Ignored.
    pub ignored: u64,
    /// Handled.
    pub caught: u64,
}

/// An area of the address space.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// End, exclusive.
    pub end: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// MAP_SHARED.
    pub shared: bool,
    /// Byte of the file at `start`.
    pub offset: u64,
    /// Device of the file.
    pub dev: u64,
    /// Inode of the file; 0: no file.
    pub ino: u64,
    /// Path, `[heap]`, `[stack]`, `[vdso]` or nothing.
    pub name: Vec<u8>,
}

/// Memory of the process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessMemory {
    /// Address space in use.
    pub size: u64,
    /// Its peak.
    pub peak: u64,
    /// In memory.
    pub resident: u64,
    /// Peak of that.
    pub resident_peak: u64,
    /// Of it mapped from files.
    pub file: u64,
    /// Program text.
    pub text: u64,
    /// Data and heap.
    pub data: u64,
    /// Main stack.
    pub stack: u64,
    /// Page tables.
    pub tables: u64,
}

/// Where the parts of the process lie (the `/proc/self/stat` fields of the same names).
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// First address of the text.
    pub start_code: u64,
    /// Its end.
    pub end_code: u64,
    /// Bottom of the main stack.
    pub start_stack: u64,
    /// First address of the data.
    pub start_data: u64,
    /// Its end.
    pub end_data: u64,
    /// Start of the heap.
    pub start_brk: u64,
    /// Argument strings.
    pub arguments: (u64, u64),
    /// Environment strings.
    pub environment: (u64, u64),
}

/// Memory of the machine, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineMemory {
    /// All.
    pub total: u64,
    /// Unused.
    pub free: u64,
    /// What a program could still get.
    pub available: u64,
    /// File pages (tmpfs).
    pub shared: u64,
}

/// The processor, for `/proc/cpuinfo`.
#[derive(Clone, Debug, Default)]
pub struct Processor {
    /// CPUID vendor string.
    pub vendor: String,
    /// Brand string.
    pub model_name: String,
    /// Family, model, stepping.
    pub signature: (u32, u32, u32),
    /// Frequency in kHz.
    pub khz: u64,
    /// Names of its features, in Linux's words.
    pub flags: String,
    /// Cache line size for clflush, bytes.
    pub line: u32,
    /// Physical and virtual address bits.
    pub address_bits: (u32, u32),
}

/// Nanoseconds a vCPU spent.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    /// In the program.
    pub user: u64,
    /// In the library OS.
    pub system: u64,
    /// Halted.
    pub idle: u64,
}

/// The machine over all.
#[derive(Clone, Debug, Default)]
pub struct MachineInfo {
    /// Nanoseconds since boot.
    pub uptime_ns: u64,
    /// Seconds since 1970 at boot.
    pub boot_time: u64,
    /// For each vCPU.
    pub cpus: Vec<CpuTimes>,
    /// Context switches since boot.
    pub switches: u64,
    /// Interrupts since boot.
    pub interrupts: u64,
    /// Threads made since boot.
    pub forks: u64,
    /// Load averages over 1, 5 and 15 minutes, in hundredths.
    pub load: [u32; 3],
    /// Threads that run or could.
    pub running: u32,
}

/// `uname` of the system.
#[derive(Clone, Debug, Default)]
pub struct Uname {
    /// `release`: a Linux version.
    pub release: String,
    /// `version`: the build.
    pub version: String,
    /// Host name.
    pub hostname: Vec<u8>,
}

/// A resource limit, `None` for unlimited.
pub type Limit = (Option<u64>, Option<u64>);

/// The kernel, as `/proc` shows it.
pub trait ProcSource {
    /// The text of `/proc/net/NAME`.
    fn network(&self, name: &str) -> String;
    /// Process id.
    fn pid(&self) -> u32;
    /// The calling thread's id.
    fn tid(&self) -> u32;
    /// All threads, by id.
    fn threads(&self) -> Vec<ThreadInfo>;
    /// Renames a thread (`comm`).
    fn set_thread_name(&self, tid: u32, name: &[u8]) -> Result<()>;
    /// Arguments, each ended by NUL.
    fn cmdline(&self) -> Vec<u8>;
    /// Environment as it was at start, each ended by NUL.
    fn environ(&self) -> Vec<u8>;
    /// The auxiliary vector, as bytes.
    fn auxv(&self) -> Vec<u8>;
    /// Path of the program.
    fn exe(&self) -> Vec<u8>;
    /// The address space, in order.
    fn regions(&self) -> Vec<Region>;
    /// Bytes of a region that are in memory, and how many of them were changed (for `smaps` alone: it may take a while).
    fn resident(&self, region: &Region) -> (u64, u64);
    /// Memory figures of the process.
    fn process_memory(&self) -> ProcessMemory;
    /// Addresses of its parts.
    fn layout(&self) -> Layout;
    /// Memory figures of the machine.
    fn machine_memory(&self) -> MachineMemory;
    /// The processor.
    fn processor(&self) -> Processor;
    /// Times and counts.
    fn machine(&self) -> MachineInfo;
    /// System names.
    fn uname(&self) -> Uname;
    /// Changes the host name.
    fn set_hostname(&self, _name: &[u8]) -> Result<()> {
        Err(crate::Errno::EPERM)
    }
    /// Limits in the order of `RLIMIT_*` (16 of them).
    fn limits(&self) -> Vec<Limit>;
    /// Signal masks of the process.
    fn signals(&self) -> SignalMasks;
}
