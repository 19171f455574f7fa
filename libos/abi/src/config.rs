//! The run configuration: what a monitor hands over as the first PVH module, and what the image's manifest holds.
//!
//! A sequence of `key=value` records, each ended by a NUL byte, in any order; unknown keys are ignored.
//! The library OS reads the manifest first and the module over it: `arg` records of the module replace all of the manifest's,
//! `env` records add to them (same name: the later wins), other keys replace.
//!
//! | key | value | example |
//! |---|---|---|
//! | `arg` | one program argument, argv\[0\] first | `arg=hello` |
//! | `env` | one environment variable | `env=RUST_BACKTRACE=1` |
//! | `exe` | path of the program inside the guest (`/proc/self/exe`) | `exe=/bin/hello` |
//! | `cwd` | working directory | `cwd=/` |
//! | `hostname` | host name | `hostname=hello` |
//! | `cpus` | number of vCPUs, APIC ids 0.. | `cpus=2` |
//! | `memory` | wanted memory in bytes (manifest only: read by the monitor) | `memory=268435456` |
//! | `tsc_khz` | frequency of the time stamp counter | `tsc_khz=2300000` |
//! | `wall_ns` | CLOCK_REALTIME in nanoseconds when `wall_tsc` was read | `wall_ns=...` |
//! | `wall_tsc` | guest TSC at that moment; absent: "now" | |
//! | `seed` | 64 hex digits of fresh entropy | |
//! | `monitor` | `unik` under Unik's own monitor, else absent or the monitor's name | `monitor=unik` |
//! | `console` | `ADDR`: physical address of the virtio-console window of standard input and output | `console=0xd0000000` |
//! | `console.err` | the same for standard error | |
//! | `console.eof` | hex digits of bytes that end the input when they appear in it (a monitor that cannot return a buffer of length 0) | `console.eof=5f...` |
//! | `net` | one network card, `ADDR[;KEY=VALUE]...`, once a card: below | `net=0xd0003000;ip=10.0.2.15/24;gw=10.0.2.2` |
//! | `batch` | port that performs many register accesses in one exit (`control::PORT_BATCH`) | `batch=0xf8` |
//! | `tty` | which of 0, 1, 2 are terminals on the host | `tty=012` |
//! | `winsize` | `COLSxROWS` of that terminal | `winsize=80x24` |
//! | `tz` | POSIX TZ string or zone name for /etc/localtime | `tz=UTC` |
//! | `syscall_summary` | `1`: list unimplemented and used system calls at exit | |
//!
//! `net`: `ADDR` is the physical address of the card's virtio-mmio window; MAC address and MTU stand in its configuration space. The keys, those of
//! them that repeat in any number: `ip=` (repeats) an IPv4 or IPv6 address with its prefix length, `dhcp` (DHCPv4) or `auto` (SLAAC); `gw=` (repeats) a router of either
//! family; `dns=` (repeats) a resolver. With no `ip` at all the card has `dhcp` and `auto`.

/// Iterates over the `(key, value)` records of `bytes`. Records without `=` are skipped; a last record without its NUL counts.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    bytes.split(|&b| b == 0).filter_map(|record| {
        let at = record.iter().position(|&b| b == b'=')?;
        Some((&record[..at], &record[at + 1..]))
    })
}
