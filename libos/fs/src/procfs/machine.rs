//! Texts about the machine: `/proc/{cpuinfo,meminfo,stat,...}`, `/proc/sys`, `/sys` (formats of proc(5)).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::ProcFs;
use super::source::CpuTimes;
use crate::inode::Link;
use crate::{Errno, Result};

type Text = Result<Vec<u8>>;

/// Nanoseconds of a clock tick (USER_HZ is 100).
pub const TICK: u64 = 10_000_000;

fn line(value: impl ToString) -> Text {
    Ok((value.to_string() + "\n").into_bytes())
}

/// Declares texts that never change.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub fn $name(_: &ProcFs, _: u32) -> Text { line($value) })*
    };
}

fixed! {
    /// No cgroups: only the head of the table.
    cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled";
    /// The kernel's command line is empty.
    kernel_command_line = "";
    /// Character devices.
    devices = "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n\nBlock devices:";
    /// Known file systems.
    filesystems = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\nnodev\tpipefs\nnodev\tsockfs";
    /// No disks.
    partitions = "major minor  #blocks  name";
    /// No swap.
    swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    /// Open files of the system: no limit but descriptors.
    file_max = "9223372036854775807";
    /// Largest RLIMIT_NOFILE.
    nr_open = crate::fdtable::MAX_FDS;
    /// Largest pipe for an unprivileged user.
    pipe_max_size = 1 << 20;
    /// CAP_CHECKPOINT_RESTORE.
    cap_last_cap = 40;
    /// NGROUPS_MAX.
    ngroups_max = 65536;
    /// Always Linux: programs compare it.
    ostype = "Linux";
    /// `nobody`.
    overflow_id = 65534;
    /// Largest id of a thread plus one.
    pid_max = 4_194_304;
    /// Bits of entropy.
    entropy = 256;
    /// Address space randomisation is full.
    two = 2;
    /// Threads that the system allows.
    threads_max = 65_536;
    /// Areas of an address space.
    max_map_count = 65_530;
    /// The first pages are never mapped.
    mmap_min_addr = 65_536;
    /// Heuristic.
    overcommit = 0;
    /// Without meaning in that mode.
    overcommit_ratio = 50;
    /// Zero.
    zero = 0;
    /// Highest index of a vCPU.
    cpu_max = 15;
    /// Large pages are used where they fit.
    thp_enabled = "[always] madvise never";
    /// Never waits for large pages.
    thp_defrag = "always defer defer+madvise madvise [never]";
    /// Not for tmpfs.
    thp_shmem = "always within_size advise [never] deny force";
    /// 2 MiB.
    thp_size = 2 << 20;
}

/// `/proc/sys/fs/file-nr`.
pub fn file_nr(fs: &ProcFs, _: u32) -> Text {
    line(format!(
        "{}\t0\t9223372036854775807",
        fs.vfs()?.fds.open_fds().len()
    ))
}

/// `/proc/sys/kernel/hostname`.
pub fn hostname(fs: &ProcFs, _: u32) -> Text {
    Ok([fs.source.uname().hostname.as_slice(), b"\n"].concat())
}

/// Writing it.
pub fn set_hostname(fs: &ProcFs, _: u32, text: &[u8]) -> Result<()> {
    let name = text.split(|&b| b == b'\n').next().unwrap_or(&[]);
    if name.len() > 64 {
        Err(Errno::EINVAL)
    } else {
        fs.source.set_hostname(name)
    }
}

/// `uname -r`.
pub fn osrelease(fs: &ProcFs, _: u32) -> Text {
    line(fs.source.uname().release)
}

/// `uname -v`.
pub fn kernel_version(fs: &ProcFs, _: u32) -> Text {
    line(fs.source.uname().version)
}

/// `/proc/version`.
pub fn version(fs: &ProcFs, _: u32) -> Text {
    let uname = fs.source.uname();
    line(format!(
        "Linux version {} (unik@unik) (rustc) {}",
        uname.release, uname.version
    ))
}

/// One value for this boot.
pub fn boot_id(fs: &ProcFs, _: u32) -> Text {
    line(&fs.boot_id)
}

/// Another value at every read.
pub fn uuid(fs: &ProcFs, _: u32) -> Text {
    line(super::uuid(&**fs.vfs()?.system()))
}

/// `/proc/self`.
pub fn self_link(fs: &ProcFs) -> Result<Link> {
    Ok(Link::Path(fs.source.pid().to_string().into_bytes()))
}

/// `/proc/thread-self`.
pub fn thread_self_link(fs: &ProcFs) -> Result<Link> {
    Ok(Link::Path(
        format!("{}/task/{}", fs.source.pid(), fs.source.tid()).into_bytes(),
    ))
}

/// `/proc/net`.
pub fn net_link(_: &ProcFs) -> Result<Link> {
    Ok(Link::Path(b"self/net".to_vec()))
}

/// `/proc/mounts`.
pub fn mounts_link(_: &ProcFs) -> Result<Link> {
    Ok(Link::Path(b"self/mounts".to_vec()))
}

/// Processors as `0-3`.
pub fn cpu_list(fs: &ProcFs, _: u32) -> Text {
    let count = fs.source.machine().cpus.len();
    line(if count > 1 {
        format!("0-{}", count - 1)
    } else {
        "0".to_string()
    })
}

/// `/proc/cpuinfo`.
pub fn cpuinfo(fs: &ProcFs, _: u32) -> Text {
    let cpu = fs.source.processor();
    let count = fs.source.machine().cpus.len();
    let (family, model, stepping) = cpu.signature;
    let (physical, linear) = cpu.address_bits;
    let mhz = format!("{}.{:03}", cpu.khz / 1000, cpu.khz % 1000);
    let bogomips = format!("{}.{:02}", cpu.khz / 500, cpu.khz / 5 % 100);
    let name = match cpu.model_name.as_str() {
        "" => "unknown", // as Linux says it
        name => name,
    };
    let mut text = String::new();
    for n in 0..count {
        text += &format!(
            "processor\t: {n}\nvendor_id\t: {}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {}\nstepping\t: {stepping}\n\
             cpu MHz\t\t: {mhz}\nphysical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {n}\ncpu cores\t: {count}\napicid\t\t: {n}\n\
             initial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:\nbogomips\t: {bogomips}\n\
             clflush size\t: {}\ncache_alignment\t: 64\naddress sizes\t: {physical} bits physical, {linear} bits virtual\npower management:\n\n",
            cpu.vendor, name, cpu.flags, cpu.line
        );
    }
    Ok(text.into_bytes())
}

/// `/proc/meminfo`.
pub fn meminfo(fs: &ProcFs, _: u32) -> Text {
    let memory = fs.source.machine_memory();
    let process = fs.source.process_memory();
    let anonymous = process.resident.saturating_sub(process.file);
    let rows = [
        ("MemTotal", memory.total),
        ("MemFree", memory.free),
        ("MemAvailable", memory.available),
        ("Buffers", 0),
        ("Cached", memory.shared),
        ("SwapCached", 0),
        ("Active", anonymous),
        ("Inactive", memory.shared),
        ("Active(anon)", anonymous),
        ("Inactive(anon)", memory.shared),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", anonymous),
        ("Mapped", process.file),
        ("Shmem", memory.shared),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", process.tables),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", memory.total / 2),
        ("Committed_AS", process.size),
        ("VmallocTotal", 34_359_738_367 << 10),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
    ];
    let mut text = String::new();
    for (name, bytes) in rows {
        let label = format!("{name}:");
        text += &format!("{label:<15} {:>8} kB\n", bytes >> 10);
    }
    text += "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n";
    Ok(text.into_bytes())
}

fn cpu_row(label: &str, times: CpuTimes) -> String {
    format!(
        "{label} {} 0 {} {} 0 0 0 0 0 0\n",
        times.user / TICK,
        times.system / TICK,
        times.idle / TICK
    )
}

/// `/proc/stat`.
pub fn stat(fs: &ProcFs, _: u32) -> Text {
    let machine = fs.source.machine();
    let sum = machine
        .cpus
        .iter()
        .fold(CpuTimes::default(), |sum, cpu| CpuTimes {
            user: sum.user + cpu.user,
            system: sum.system + cpu.system,
            idle: sum.idle + cpu.idle,
        });
    let mut text = cpu_row("cpu ", sum);
    for (n, times) in machine.cpus.iter().enumerate() {
        text += &cpu_row(&format!("cpu{n}"), *times);
    }
    text += &format!(
        "intr {}\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        machine.interrupts, machine.switches, machine.boot_time, machine.forks, machine.running
    );
    Ok(text.into_bytes())
}

fn seconds(ns: u64) -> String {
    format!("{}.{:02}", ns / 1_000_000_000, ns / 10_000_000 % 100)
}

/// `/proc/uptime`.
pub fn uptime(fs: &ProcFs, _: u32) -> Text {
    let machine = fs.source.machine();
    let idle: u64 = machine.cpus.iter().map(|cpu| cpu.idle).sum();
    line(format!("{} {}", seconds(machine.uptime_ns), seconds(idle)))
}

/// `/proc/loadavg`.
pub fn loadavg(fs: &ProcFs, _: u32) -> Text {
    let machine = fs.source.machine();
    let threads = fs.source.threads();
    let last = threads.iter().map(|thread| thread.tid).max().unwrap_or(1);
    let [one, five, fifteen] = machine
        .load
        .map(|load| format!("{}.{:02}", load / 100, load % 100));
    line(format!(
        "{one} {five} {fifteen} {}/{} {last}",
        machine.running,
        threads.len()
    ))
}
