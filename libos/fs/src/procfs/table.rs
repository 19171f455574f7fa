//! The trees of `/proc` and `/sys`, as tables of [`Entry`].

use alloc::vec::Vec;

use super::ProcFs;
use super::machine as m;
use super::process as p;
use crate::Result;
use crate::inode::{FileType, Link};

/// Makes a text; the number is the thread that the directory is about.
pub type Make = fn(&ProcFs, u32) -> Result<Vec<u8>>;
/// Takes a written text.
pub type Set = fn(&ProcFs, u32, &[u8]) -> Result<()>;

type Children = &'static [(&'static str, Entry)];

/// One entry.
pub enum Entry {
    /// A fixed directory.
    Dir(Children),
    /// `/proc` itself: fixed names, and process ids.
    Root(Children),
    /// `task`.
    Tasks,
    /// `fd`.
    Fds,
    /// `fdinfo`.
    FdInfos,
    /// A text to read, with its permission bits.
    Text(u32, Make),
    /// A text to read and write.
    Setting(Make, Set),
    /// A symbolic link.
    Link(fn(&ProcFs) -> Result<Link>),
}

impl Entry {
    /// Kind.
    pub fn kind(&self) -> FileType {
        match self {
            Self::Text(..) | Self::Setting(..) => FileType::Regular,
            Self::Link(_) => FileType::Symlink,
            _ => FileType::Directory,
        }
    }
}

use Entry::{Dir, Link as To, Setting, Text};

/// `/proc`.
pub static PROC: Entry = Entry::Root(&[
    ("cgroups", Text(0o444, m::cgroups)),
    ("cmdline", Text(0o444, m::kernel_command_line)),
    ("cpuinfo", Text(0o444, m::cpuinfo)),
    ("devices", Text(0o444, m::devices)),
    ("filesystems", Text(0o444, m::filesystems)),
    ("loadavg", Text(0o444, m::loadavg)),
    ("meminfo", Text(0o444, m::meminfo)),
    ("mounts", To(m::mounts_link)),
    ("net", To(m::net_link)),
    ("partitions", Text(0o444, m::partitions)),
    ("self", To(m::self_link)),
    ("stat", Text(0o444, m::stat)),
    ("swaps", Text(0o444, m::swaps)),
    ("sys", Dir(SYSCTL)),
    ("thread-self", To(m::thread_self_link)),
    ("uptime", Text(0o444, m::uptime)),
    ("version", Text(0o444, m::version)),
]);

/// A file of `/proc/net`.
macro_rules! network {
    ($($name:literal),*) => {
        &[$(($name, Text(0o444, |fs, _| Ok(fs.source.network($name).into_bytes())))),*]
    };
}

const NET: Children = network!(
    "arp", "dev", "icmp", "icmp6", "if_inet6", "pnp", "route", "sockstat", "tcp", "tcp6", "udp",
    "udp6"
);

const SYSCTL: Children = &[
    (
        "fs",
        Dir(&[
            ("file-max", Text(0o644, m::file_max)),
            ("file-nr", Text(0o444, m::file_nr)),
            ("nr_open", Text(0o644, m::nr_open)),
            ("pipe-max-size", Text(0o644, m::pipe_max_size)),
        ]),
    ),
    (
        "kernel",
        Dir(&[
            ("cap_last_cap", Text(0o444, m::cap_last_cap)),
            ("hostname", Setting(m::hostname, m::set_hostname)),
            ("ngroups_max", Text(0o444, m::ngroups_max)),
            ("osrelease", Text(0o444, m::osrelease)),
            ("ostype", Text(0o444, m::ostype)),
            ("overflowgid", Text(0o644, m::overflow_id)),
            ("overflowuid", Text(0o644, m::overflow_id)),
            ("pid_max", Text(0o644, m::pid_max)),
            (
                "random",
                Dir(&[
                    ("boot_id", Text(0o444, m::boot_id)),
                    ("entropy_avail", Text(0o444, m::entropy)),
                    ("poolsize", Text(0o444, m::entropy)),
                    ("uuid", Text(0o444, m::uuid)),
                ]),
            ),
            ("randomize_va_space", Text(0o644, m::two)),
            ("threads-max", Text(0o644, m::threads_max)),
            ("version", Text(0o444, m::kernel_version)),
        ]),
    ),
    (
        "vm",
        Dir(&[
            ("max_map_count", Text(0o644, m::max_map_count)),
            ("mmap_min_addr", Text(0o644, m::mmap_min_addr)),
            ("overcommit_memory", Text(0o644, m::overcommit)),
            ("overcommit_ratio", Text(0o644, m::overcommit_ratio)),
            ("swappiness", Text(0o644, m::zero)),
        ]),
    ),
];

/// What a process and its threads have in common.
macro_rules! thread_entries {
    ($($more:expr),* $(,)?) => {
        &[
            ("auxv", Text(0o400, p::auxv)),
            ("cgroup", Text(0o444, p::cgroup)),
            ("cmdline", Text(0o444, p::cmdline)),
            ("comm", Setting(p::comm, p::set_comm)),
            ("cwd", To(p::cwd)),
            ("environ", Text(0o400, p::environ)),
            ("exe", To(p::exe)),
            ("fd", Entry::Fds),
            ("fdinfo", Entry::FdInfos),
            ("io", Text(0o400, p::io)),
            ("limits", Text(0o444, p::limits)),
            ("maps", Text(0o444, p::maps)),
            ("mountinfo", Text(0o444, p::mountinfo)),
            ("mounts", Text(0o444, p::mounts)),
            ("net", Dir(NET)),
            ("oom_adj", Text(0o644, m::zero)),
            ("oom_score", Text(0o444, m::zero)),
            ("oom_score_adj", Setting(p::oom_score_adj, p::set_oom_score_adj)),
            ("personality", Text(0o400, p::personality)),
            ("root", To(p::root)),
            ("schedstat", Text(0o444, p::schedstat)),
            ("smaps", Text(0o444, p::smaps)),
            ("stat", Text(0o444, p::stat)),
            ("statm", Text(0o444, p::statm)),
            ("status", Text(0o444, p::status)),
            ("wchan", Text(0o444, p::wchan)),
            $($more),*
        ]
    };
}

/// `/proc/PID`.
pub static PROCESS: Entry = Dir(thread_entries!(
    ("coredump_filter", Text(0o644, p::coredump_filter)),
    ("smaps_rollup", Text(0o444, p::smaps_rollup)),
    ("task", Entry::Tasks),
));

/// `/proc/PID/task/TID`.
pub static TASK: Entry = Dir(thread_entries!());

/// `/sys`.
pub static SYS: Entry = Dir(&[
    (
        "devices",
        Dir(&[(
            "system",
            Dir(&[(
                "cpu",
                Dir(&[
                    ("kernel_max", Text(0o444, m::cpu_max)),
                    ("online", Text(0o444, m::cpu_list)),
                    ("possible", Text(0o444, m::cpu_list)),
                    ("present", Text(0o444, m::cpu_list)),
                ]),
            )]),
        )]),
    ),
    (
        "kernel",
        Dir(&[(
            "mm",
            Dir(&[(
                "transparent_hugepage",
                Dir(&[
                    ("defrag", Text(0o644, m::thp_defrag)),
                    ("enabled", Text(0o644, m::thp_enabled)),
                    ("hpage_pmd_size", Text(0o444, m::thp_size)),
                    ("shmem_enabled", Text(0o644, m::thp_shmem)),
                ]),
            )]),
        )]),
    ),
]);
