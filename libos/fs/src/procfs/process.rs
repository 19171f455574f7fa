//! Texts about the process and its threads: `/proc/self/*` (formats of proc(5) and Linux's `fs/proc/array.c`, `task_mmu.c`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::machine::TICK;
use super::source::{Region, ThreadInfo};
use super::{ProcFs, shown_flags};
use crate::inode::Link;
use crate::{Errno, Result};

type Text = Result<Vec<u8>>;

/// All capabilities that Linux knows (up to `cap_last_cap`).
const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

fn thread(fs: &ProcFs, tid: u32) -> Result<ThreadInfo> {
    fs.source
        .threads()
        .into_iter()
        .find(|thread| thread.tid == tid)
        .ok_or(Errno::ESRCH)
}

/// `auxv`.
pub fn auxv(fs: &ProcFs, _: u32) -> Text {
    Ok(fs.source.auxv())
}

/// `cgroup`: the root of a unified hierarchy.
pub fn cgroup(_: &ProcFs, _: u32) -> Text {
    Ok(b"0::/\n".to_vec())
}

/// `cmdline`.
pub fn cmdline(fs: &ProcFs, _: u32) -> Text {
    Ok(fs.source.cmdline())
}

/// `environ`.
pub fn environ(fs: &ProcFs, _: u32) -> Text {
    Ok(fs.source.environ())
}

/// `comm`.
pub fn comm(fs: &ProcFs, tid: u32) -> Text {
    Ok([thread(fs, tid)?.name.as_slice(), b"\n"].concat())
}

/// Renaming a thread; the name is cut to 15 bytes.
pub fn set_comm(fs: &ProcFs, tid: u32, text: &[u8]) -> Result<()> {
    let name = text.strip_suffix(b"\n").unwrap_or(text);
    fs.source.set_thread_name(tid, &name[..name.len().min(15)])
}

/// `cwd`.
pub fn cwd(fs: &ProcFs) -> Result<Link> {
    Ok(Link::Node(fs.vfs()?.cwd()))
}

/// `root`.
pub fn root(fs: &ProcFs) -> Result<Link> {
    Ok(Link::Node(fs.vfs()?.root()))
}

/// `exe`.
pub fn exe(fs: &ProcFs) -> Result<Link> {
    Ok(Link::Path(fs.source.exe()))
}

/// `io`: nothing is counted, as there are no disks.
pub fn io(_: &ProcFs, _: u32) -> Text {
    Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
}

/// `personality`: PER_LINUX.
pub fn personality(_: &ProcFs, _: u32) -> Text {
    Ok(b"00000000\n".to_vec())
}

/// `wchan`: not told.
pub fn wchan(_: &ProcFs, _: u32) -> Text {
    Ok(b"0".to_vec())
}

/// `coredump_filter`: the default.
pub fn coredump_filter(_: &ProcFs, _: u32) -> Text {
    Ok(b"00000033\n".to_vec())
}

/// `schedstat`: time on a CPU, time waiting, slices.
pub fn schedstat(fs: &ProcFs, tid: u32) -> Text {
    let thread = thread(fs, tid)?;
    Ok(format!(
        "{} 0 {}\n",
        thread.user_ns + thread.system_ns,
        thread.voluntary + thread.involuntary
    )
    .into_bytes())
}

/// `oom_score_adj`.
pub fn oom_score_adj(fs: &ProcFs, _: u32) -> Text {
    Ok(format!("{}\n", fs.oom_score_adj.get()).into_bytes())
}

/// Kept, without effect: there is one process.
pub fn set_oom_score_adj(fs: &ProcFs, _: u32, text: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let value: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    fs.oom_score_adj.set(value);
    Ok(())
}

const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

/// `limits`.
pub fn limits(fs: &ProcFs, _: u32) -> Text {
    let shown = |limit: Option<u64>| {
        limit.map_or_else(|| String::from("unlimited"), |limit| format!("{limit}"))
    };
    let mut text = format!(
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    );
    for ((name, unit), (soft, hard)) in LIMITS.iter().zip(fs.source.limits()) {
        text += &format!(
            "{name:<25} {:<20} {:<20} {unit:<10}\n",
            shown(soft),
            shown(hard)
        );
    }
    Ok(text.into_bytes())
}

fn device(dev: u64) -> (u64, u64) {
    (
        (dev >> 8) & 0xfff | (dev >> 32) & !0xfff,
        dev & 0xff | (dev >> 12) & !0xff,
    )
}

fn map_line(region: &Region) -> Vec<u8> {
    let flag = |on: bool, letter: char| if on { letter } else { '-' };
    let (major, minor) = device(region.dev);
    let mut line = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {major:02x}:{minor:02x} {}",
        region.start,
        region.end,
        flag(region.read, 'r'),
        flag(region.write, 'w'),
        flag(region.execute, 'x'),
        if region.shared { 's' } else { 'p' },
        region.offset,
        region.ino
    )
    .into_bytes();
    if !region.name.is_empty() {
        let width = line.len().max(72) + 1;
        line.resize(width, b' ');
        line.extend(region.name.iter().flat_map(|&b| {
            if b == b'\n' {
                b"\\012".to_vec()
            } else {
                alloc::vec![b]
            }
        }));
    } else {
        line.push(b' ');
    }
    line.push(b'\n');
    line
}

/// `maps`.
pub fn maps(fs: &ProcFs, _: u32) -> Text {
    Ok(fs.source.regions().iter().flat_map(map_line).collect())
}

fn smaps_body(size: Option<u64>, resident: u64, dirty: u64, shared: bool) -> String {
    let kb = |name: &str, bytes: u64| format!("{:<16}{:>8} kB\n", format!("{name}:"), bytes >> 10);
    let mut text = String::new();
    if let Some(size) = size {
        text += &(kb("Size", size) + &kb("KernelPageSize", 4096) + &kb("MMUPageSize", 4096));
    }
    let clean = resident.saturating_sub(dirty);
    let (shared_clean, private_clean) = if shared { (clean, 0) } else { (0, clean) };
    let (shared_dirty, private_dirty) = if shared { (dirty, 0) } else { (0, dirty) };
    for (name, bytes) in [
        ("Rss", resident),
        ("Pss", resident),
        ("Shared_Clean", shared_clean),
        ("Shared_Dirty", shared_dirty),
        ("Private_Clean", private_clean),
        ("Private_Dirty", private_dirty),
        ("Referenced", resident),
        ("Anonymous", private_dirty),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", 0),
    ] {
        text += &kb(name, bytes);
    }
    text
}

/// `smaps`.
pub fn smaps(fs: &ProcFs, _: u32) -> Text {
    let mut text = Vec::new();
    for region in fs.source.regions() {
        text.extend(map_line(&region));
        let (resident, dirty) = fs.source.resident(&region);
        let body = smaps_body(
            Some(region.end - region.start),
            resident,
            dirty,
            region.shared,
        );
        text.extend_from_slice(body.as_bytes());
        let flags = [
            (region.read, "rd "),
            (region.write, "wr "),
            (region.execute, "ex "),
            (region.shared, "sh "),
        ];
        let flags: String = flags
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect();
        text.extend_from_slice(
            format!("THPeligible:    0\nVmFlags: {flags}mr mw me \n").as_bytes(),
        );
    }
    Ok(text)
}

/// `smaps_rollup`.
pub fn smaps_rollup(fs: &ProcFs, _: u32) -> Text {
    let regions = fs.source.regions();
    let (start, end) = (
        regions.first().map_or(0, |r| r.start),
        regions.last().map_or(0, |r| r.end),
    );
    let whole = Region {
        start,
        end,
        name: b"[rollup]".to_vec(),
        ..Region::default()
    };
    let (resident, dirty) = regions.iter().fold((0, 0), |sum, region| {
        let (resident, dirty) = fs.source.resident(region);
        (sum.0 + resident, sum.1 + dirty)
    });
    let mut text = map_line(&whole);
    text.extend_from_slice(smaps_body(None, resident, dirty, false).as_bytes());
    Ok(text)
}

/// `statm`: pages.
pub fn statm(fs: &ProcFs, _: u32) -> Text {
    let memory = fs.source.process_memory();
    let pages = |bytes: u64| bytes >> 12;
    let row = [
        memory.size,
        memory.resident,
        memory.file,
        memory.text,
        0,
        memory.data + memory.stack,
        0,
    ]
    .map(pages);
    let [size, resident, file, text, lib, data, dirty] = row;
    Ok(format!("{size} {resident} {file} {text} {lib} {data} {dirty}\n").into_bytes())
}

/// `stat`: 52 fields.
pub fn stat(fs: &ProcFs, tid: u32) -> Text {
    let source = &fs.source;
    let thread = thread(fs, tid)?;
    let (memory, layout, signals) = (source.process_memory(), source.layout(), source.signals());
    let threads = source.threads();
    let whole = tid == source.pid();
    let (user, system) = if whole {
        threads.iter().fold((0, 0), |(user, system), thread| {
            (user + thread.user_ns, system + thread.system_ns)
        })
    } else {
        (thread.user_ns, thread.system_ns)
    };
    let limit = source
        .limits()
        .get(5)
        .and_then(|limit| limit.0)
        .unwrap_or(u64::MAX);
    let pid = source.pid();
    let head = [format!("{tid} (").as_bytes(), &thread.name, b") "].concat();
    let priority = 20 + thread.nice;
    let tail = format!(
        "{} 0 {pid} {pid} 0 -1 4194304 0 0 0 0 {} {} 0 0 {priority} {} {} 0 {} {} {} {limit} {} {} {} 0 0 {} {} {} {} 0 0 0 17 {} 0 0 0 0 0 {} {} {} {} {} {} {} 0\n",
        thread.state,
        user / TICK,
        system / TICK,
        thread.nice,
        threads.len(),
        thread.start_ns / TICK,
        memory.size,
        memory.resident >> 12,
        layout.start_code,
        layout.end_code,
        layout.start_stack,
        (thread.pending | signals.pending) & 0x7fff_ffff,
        thread.blocked & 0x7fff_ffff,
        signals.ignored & 0x7fff_ffff,
        signals.caught & 0x7fff_ffff,
        thread.cpu,
        layout.start_data,
        layout.end_data,
        layout.start_brk,
        layout.arguments.0,
        layout.arguments.1,
        layout.environment.0,
        layout.environment.1,
    );
    Ok([head.as_slice(), tail.as_bytes()].concat())
}

fn state_name(state: char) -> &'static str {
    match state {
        'R' => "running",
        'D' => "disk sleep",
        'T' => "stopped",
        'Z' => "zombie",
        _ => "sleeping",
    }
}

/// `status`.
pub fn status(fs: &ProcFs, tid: u32) -> Text {
    let source = &fs.source;
    let (thread, pid, vfs) = (thread(fs, tid)?, source.pid(), fs.vfs()?);
    let (cred, threads, cpus) = (
        vfs.cred.borrow().clone(),
        source.threads().len(),
        source.machine().cpus.len(),
    );
    let ids = |id: u32| format!("{id}\t{id}\t{id}\t{id}");
    let groups: String = cred
        .groups
        .iter()
        .map(|group| format!("{group} "))
        .collect();
    let slots = vfs
        .fds
        .open_fds()
        .last()
        .map_or(0, |&fd| fd as usize + 1)
        .next_multiple_of(64)
        .max(64);
    let mut text = Vec::from(b"Name:\t");
    text.extend_from_slice(&thread.name);
    text.extend_from_slice(
        format!(
            "\nUmask:\t{:04o}\nState:\t{} ({})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t0\nTracerPid:\t0\nUid:\t{}\nGid:\t{}\nFDSize:\t{slots}\n\
             Groups:\t{groups}\nNStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{pid}\nNSsid:\t{pid}\n",
            vfs.umask(),
            thread.state,
            state_name(thread.state),
            ids(cred.uid),
            ids(cred.gid),
        )
        .as_bytes(),
    );
    text.extend_from_slice(memory_rows(fs).as_bytes());
    let signals = source.signals();
    let capabilities = if cred.is_root() { ALL_CAPABILITIES } else { 0 };
    text.extend_from_slice(
        format!(
            "CoreDumping:\t0\nTHP_enabled:\t1\nThreads:\t{threads}\nSigQ:\t0/65536\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\n\
             SigCgt:\t{:016x}\nCapInh:\t{:016x}\nCapPrm:\t{capabilities:016x}\nCapEff:\t{capabilities:016x}\nCapBnd:\t{ALL_CAPABILITIES:016x}\nCapAmb:\t{:016x}\n\
             NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\tthread vulnerable\nSpeculationIndirectBranch:\tconditional enabled\n\
             Cpus_allowed:\t{:x}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
            thread.pending,
            signals.pending,
            thread.blocked,
            signals.ignored,
            signals.caught,
            0,
            0,
            (1u64 << cpus) - 1,
            if cpus > 1 { format!("0-{}", cpus - 1) } else { String::from("0") },
            thread.voluntary,
            thread.involuntary,
        )
        .as_bytes(),
    );
    Ok(text)
}

fn memory_rows(fs: &ProcFs) -> String {
    let memory = fs.source.process_memory();
    let rows = [
        ("VmPeak", memory.peak),
        ("VmSize", memory.size),
        ("VmLck", 0),
        ("VmPin", 0),
        ("VmHWM", memory.resident_peak),
        ("VmRSS", memory.resident),
        ("RssAnon", memory.resident.saturating_sub(memory.file)),
        ("RssFile", memory.file),
        ("RssShmem", 0),
        ("VmData", memory.data),
        ("VmStk", memory.stack),
        ("VmExe", memory.text),
        ("VmLib", 0),
        ("VmPTE", memory.tables),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    rows.iter()
        .map(|(name, bytes)| format!("{name}:\t{:>8} kB\n", bytes >> 10))
        .collect()
}

/// A mount as the tables show it.
struct MountRow {
    path: Vec<u8>,
    name: &'static str,
    options: &'static str,
    dev: u64,
}

fn mount_rows(fs: &ProcFs) -> Result<Vec<MountRow>> {
    let vfs = fs.vfs()?;
    let rows = vfs.mounts.list().into_iter().map(|mount| {
        let path = vfs.path_of(&mount.root).unwrap_or_default();
        let options = if mount.read_only {
            "ro,relatime"
        } else {
            "rw,relatime"
        };
        MountRow {
            path,
            name: mount.name,
            options,
            dev: mount.root.dev(),
        }
    });
    Ok(rows.collect())
}

/// `mounts`.
pub fn mounts(fs: &ProcFs, _: u32) -> Text {
    let mut text = Vec::new();
    for MountRow {
        path,
        name,
        options,
        ..
    } in mount_rows(fs)?
    {
        text.extend(
            [
                name.as_bytes(),
                b" ",
                &path,
                b" ",
                name.as_bytes(),
                b" ",
                options.as_bytes(),
                b" 0 0\n",
            ]
            .concat(),
        );
    }
    Ok(text)
}

/// `mountinfo`.
pub fn mountinfo(fs: &ProcFs, _: u32) -> Text {
    let mut text = Vec::new();
    for (
        id,
        MountRow {
            path,
            name,
            options,
            dev,
        },
    ) in (20..).zip(mount_rows(fs)?)
    {
        let parent = if path == b"/" { 1 } else { 20 };
        let (major, minor) = device(dev);
        text.extend(
            [
                format!("{id} {parent} {major}:{minor} / ").as_bytes(),
                &path,
            ]
            .concat(),
        );
        text.extend(format!(" {options} - {name} {name} {}\n", &options[..2]).into_bytes());
    }
    Ok(text)
}

/// `fdinfo/N`.
pub fn fd_info(fs: &ProcFs, fd: i32) -> Text {
    let vfs = fs.vfs()?;
    let file = vfs.fds.get(fd).map_err(|_| Errno::ENOENT)?;
    let flags = shown_flags(&file, vfs.fds.close_on_exec(fd)?);
    Ok(format!(
        "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t20\nino:\t{}\n",
        file.position(),
        file.metadata().ino
    )
    .into_bytes())
}
