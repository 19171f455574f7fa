//! What our monitor boots inside the laboratory: the stock kernel in two forms, and a small user space.

use super::cpio::Archive;
use super::debian::{Debian, Kernel};
use super::modules::Modules;
use crate::sh;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;

/// Modules of the inner guest.
const MODULES: [&str; 7] = [
    "virtio-mmio",
    "virtio-blk",
    "virtio-rng",
    "virtio-balloon",
    "vmw-vsock-virtio-transport",
    "virtio-net",
    "pvpanic-mmio",
];

/// The inner guest's first process: loads modules, says that it is up, runs the word after `lab.run=` on the command line.
/// The boot timer's address is the monitor's (`unik-vmm linux --boot-timer`).
const INIT: &str = r#"#!/bin/busybox sh
echo "guest: init"
/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox devmem 0xcffff000 8 123
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
while read -r module; do insmod "$module"; done < /etc/lab-modules
echo "guest: up, $(nproc) cpus, $(uname -r)"
for word in $(cat /proc/cmdline); do
  case "$word" in lab.run=*) test="${word#lab.run=}" ;; esac
done
if [ "$test" = root ]; then
  mount -t ext4 /dev/vda /mnt && exec switch_root /mnt /sbin/init
fi
sh "/tests/$test"
echo "guest: $test ended with $?"
poweroff -f
"#;

/// Uses memory and frees it, then watches the balloon come and go.
const BALLOON: &str = r#"
pages() { awk "/balloon_$1 / { print \$2 }" /proc/vmstat; }
dd if=/dev/zero of=/tmp/fill bs=1M count=150 2>/dev/null
echo "guest: filled"
sleep 1
rm /tmp/fill
until [ $(pages inflate) -ge 25600 ]; do sleep 0.2; done
echo "guest: gave up $(($(pages inflate) / 256)) MiB"
until [ $(pages deflate) -ge 25600 ]; do sleep 0.2; done
echo "guest: has all again"
"#;

/// Needs more memory than the balloon leaves: it must shrink before anybody is killed.
const OOM: &str = r#"
pages() { awk "/balloon_$1 / { print \$2 }" /proc/vmstat; }
until [ $(pages inflate) -ge 25600 ]; do sleep 0.2; done
mkdir /tmp/large
mount -t tmpfs -o size=200M tmp /tmp/large
dd if=/dev/zero of=/tmp/large/fill bs=1M count=150 2>/dev/null
echo "guest: filled $(du -m /tmp/large/fill | cut -f1) MiB, $(dmesg | grep -c 'Killed process') killed"
[ $(pages deflate) -ge 5120 ] && echo "guest: took at least 20 MiB back"
"#;

/// An address by DHCP, a file fetched from the outer machine, and a server for it until it says that it is done.
const NET: &str = r#"
set -e
ip link set lo up
ip link set eth0 up
cat > /tmp/lease <<'END'
if [ "$1" = bound ]; then
  ip addr add $ip/$mask dev $interface
  ip route add default via $router
  echo $router > /tmp/router
fi
END
chmod +x /tmp/lease
udhcpc -i eth0 -n -q -f -s /tmp/lease
router=$(cat /tmp/router)
echo "guest: reaches $router with MTU $(cat /sys/class/net/eth0/mtu)"
mkdir /tmp/www
wget -q -O /tmp/www/big http://$router:8000/big
echo "guest: fetched $(md5sum < /tmp/www/big)"
httpd -p 80 -h /tmp/www
until wget -q -O /dev/null http://$router:8000/done; do sleep 0.2; done
"#;

/// The first time writes line after line, each flushed before it is told, until somebody kills the machine; the second time
/// counts the lines.
const KILLED: &str = r#"
mount -t ext4 /dev/vda /mnt
if [ -e /mnt/log ]; then
  echo "guest: kept $(wc -l < /mnt/log)"
  umount /mnt
  exit
fi
i=0
while true; do
  i=$((i + 1))
  echo "line $i" >> /mnt/log
  sync /mnt/log
  echo "guest: flushed $i"
done
"#;

/// Scripts that run inside the inner guest.
pub const TESTS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("reboot", "reboot -f; sleep 10"),
    ("panic", "echo c > /proc/sysrq-trigger; sleep 10"),
    (
        "devices",
        "set -e\ncat /proc/iomem /proc/interrupts /proc/cpuinfo | grep -E 'LNRO|virtio|ttyS|Local timer|model name|flags' | cut -c1-100\ncat /sys/devices/system/clocksource/clocksource0/current_clocksource\ncat /sys/class/misc/hw_random/rng_current\nhead -c 64 /dev/hwrng | wc -c",
    ),
    (
        "disk",
        "set -e\nls -l /sys/block\ncat /sys/block/vda/serial; echo\nmount -t ext4 /dev/vda /mnt\ncat /mnt/hello\ndd if=/dev/urandom of=/mnt/big bs=1M count=8 2>/dev/null\nsync\nmd5sum /mnt/big > /mnt/sum\numount /mnt\necho 3 > /proc/sys/vm/drop_caches\nmount -t ext4 /dev/vda /mnt\nmd5sum -c /mnt/sum\nfstrim -v /mnt\numount /mnt",
    ),
    (
        "vsock",
        "set -e\nlab-probe vsock-echo 5000 2 & echo=$!\nlab-probe vsock-ask 1234 1000001\nwait $echo",
    ),
    ("sleep", "echo 'guest: sleeping'\nsleep 1000"),
    (
        "io",
        "lab-probe read random /dev/vda 4096 8 4000\nlab-probe read sequential /dev/vda 131072 4 1024",
    ),
    ("balloon", BALLOON),
    ("oom", OOM),
    ("killed", KILLED),
    (
        "zeroes",
        "set -e\nq=/sys/block/vda/queue\n[ $(cat $q/write_zeroes_max_bytes) -gt 0 ] && [ $(cat $q/discard_max_bytes) -gt 0 ]\nlab-probe zero /dev/vda 1048576 2097152\nblkdiscard -o 4194304 -l 2097152 /dev/vda\nsync\ndd if=/dev/vda bs=1M skip=1 count=2 2>/dev/null | md5sum\ndd if=/dev/zero bs=1M count=2 2>/dev/null | md5sum\ndd if=/dev/vda bs=1M skip=3 count=1 2>/dev/null | tr -d x | wc -c",
    ),
    ("net", NET),
    (
        "read-only",
        "set -e\ncat /sys/block/vda/ro\n! dd if=/dev/zero of=/dev/vda bs=512 count=1\nmount -t ext4 -o ro,noload /dev/vda /mnt\ncat /mnt/hello",
    ),
];

/// The first process of a guest whose root is on a disk.
const ROOT_INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
echo "guest: root is $(grep ' / ' /proc/mounts | tail -1)"
dd if=/dev/zero bs=64k count=100 2>/dev/null | tr '\0' x > /home/file
md5sum /home/file
sync
mount -o remount,ro /
poweroff -f
"#;

/// Makes an ext4 disk of `mib` MiB with busybox, a first process and a file `hello`.
pub fn disk(debian: &Debian, path: &Path, mib: u64) -> Result<()> {
    let tree = tempfile::tempdir()?;
    for folder in ["bin", "sbin", "proc", "dev", "home"] {
        std::fs::create_dir(tree.path().join(folder))?;
    }
    std::fs::copy(&debian.busybox, tree.path().join("bin/busybox"))?;
    std::fs::write(tree.path().join("hello"), "hello from the disk\n")?;
    let init = tree.path().join("sbin/init");
    std::fs::write(&init, ROOT_INIT)?;
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    File::create(path)?.set_len(mib << 20)?;
    let mut make = Command::new("mke2fs");
    make.env("PATH", sh::path());
    sh::run(
        make.args(["-q", "-t", "ext4", "-d"])
            .arg(tree.path())
            .arg(path),
    )
}

/// Takes the ELF kernel out of a bzImage. Debian packs with LZ4's legacy frame: a magic number, then blocks, each after its
/// length as 4 bytes; each unpacks to at most 8 MiB.
pub fn vmlinux(kernel: &Kernel) -> Result<Vec<u8>> {
    const MAGIC: [u8; 4] = 0x184c_2102u32.to_le_bytes();
    const BLOCK: usize = 8 << 20;
    let image =
        std::fs::read(&kernel.bzimage).with_context(|| kernel.bzimage.display().to_string())?;
    let word = |at: usize| {
        image
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_le_bytes)
            .context("a bzImage that is too short")
    };
    let setup = (usize::from(*image.get(0x1f1).context("a bzImage that is too short")?) + 1) * 512;
    let start = setup + word(0x248)? as usize;
    // The last 4 bytes are the unpacked length.
    let end = start + word(0x24c)? as usize - 4;
    ensure!(
        image.get(start..start + 4) == Some(&MAGIC[..]),
        "Debian's kernel is no longer packed with LZ4: the laboratory cannot unpack it"
    );
    let (mut at, mut out) = (start + 4, Vec::with_capacity(word(end)? as usize));
    while at + 4 <= end {
        let len = word(at)? as usize;
        let block = image
            .get(at + 4..at + 4 + len)
            .context("a block of the kernel is cut short")?;
        out.extend(
            lz4_flex::block::decompress(block, BLOCK).context("the kernel cannot be unpacked")?,
        );
        at += 4 + len;
    }
    ensure!(
        out.starts_with(b"\x7fELF"),
        "what is packed in the kernel is no ELF file"
    );
    Ok(out)
}

/// Writes the inner guest's RAM disk.
pub fn initrd(debian: &Debian, probe: &Path, path: &Path) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for folder in ["proc", "sys", "dev", "tmp"] {
        archive.folder(folder)?;
    }
    archive.copy("bin/busybox", 0o755, &debian.busybox)?;
    archive.copy("bin/lab-probe", 0o755, probe)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    let mut list = String::new();
    for module in Modules::find(&debian.kernel.modules)?.ordered(&MODULES)? {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        archive.copy(&format!("modules/{name}"), 0o644, &module)?;
        list.push_str(&format!("/modules/{name}\n"));
    }
    archive.file("etc/lab-modules", 0o644, list.as_bytes())?;
    for (name, script) in TESTS {
        archive.file(&format!("tests/{name}"), 0o755, script.as_bytes())?;
    }
    archive.finish()?;
    Ok(())
}
