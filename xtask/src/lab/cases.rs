//! The tests of stock Linux guests: which kernel and devices, what happens around the guest, what must come out.

/// A test: a script of [`super::guest::TESTS`] under the monitor with these flags.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The script.
    pub script: &'static str,
    /// The kernel's form: `vmlinuz` or `vmlinux`.
    pub kernel: &'static str,
    /// vCPUs.
    pub cpus: u32,
    /// Further flags.
    pub flags: &'static [&'static str],
    /// Further words for the kernel's command line.
    pub words: &'static str,
    /// What happens around the guest: a shell script whose arguments are the monitor's command. Empty: nothing.
    pub around: &'static str,
    /// Gets a fresh disk, with this behind its name; it is checked afterwards.
    pub disk: Option<&'static str>,
    /// Wanted exit code.
    pub code: u64,
    /// What standard output (the guest's console) or standard error must contain.
    pub console: &'static [&'static str],
}

const UP: Test = Test {
    script: "nothing",
    kernel: "vmlinuz",
    cpus: 1,
    flags: &[],
    words: "",
    around: "",
    disk: None,
    code: 0,
    console: &["guest: up", "guest: nothing ended with 0"],
};

/// All of them.
pub fn all() -> Vec<Test> {
    let mut tests = Vec::new();
    for cpus in [1, 2] {
        tests.push(Test { cpus, ..UP });
        tests.push(Test {
            kernel: "vmlinux",
            cpus,
            flags: &["--entry", "pvh"],
            ..UP
        });
        tests.push(Test {
            kernel: "vmlinux",
            cpus,
            flags: &["--entry", "linux64"],
            ..UP
        });
        tests.push(Test {
            script: "devices",
            kernel: "vmlinux",
            cpus,
            console: &["kvm-clock", "virtio_rng", "64", "devices ended with 0"],
            ..UP
        });
    }
    tests.push(Test {
        script: "reboot",
        kernel: "vmlinux",
        code: 75,
        console: &["guest: up"],
        ..UP
    });
    tests.push(Test {
        script: "reboot",
        kernel: "vmlinux",
        flags: &["--bare-cmdline"],
        code: 75,
        console: &["guest: up"],
        ..UP
    });
    tests.push(Test {
        script: "panic",
        kernel: "vmlinux",
        code: 70,
        console: &["guest: up", "sysrq triggered crash"],
        ..UP
    });
    for cpus in [1, 2] {
        let disk = Test {
            kernel: "vmlinux",
            cpus,
            disk: Some(""),
            ..UP
        };
        tests.push(Test {
            script: "disk",
            console: &[
                "hello from the disk",
                "unik0",
                "/mnt/big: OK",
                "trimmed",
                "disk ended with 0",
            ],
            ..disk
        });
        tests.push(Test {
            script: "root",
            console: &["guest: root is /dev/vda / ext4", "/home/file"],
            ..disk
        });
    }
    tests.push(Test {
        script: "read-only",
        kernel: "vmlinux",
        disk: Some(":ro"),
        console: &["hello from the disk", "read-only ended with 0"],
        ..UP
    });
    for cpus in [1, 2] {
        tests.push(Test {
            script: "vsock",
            kernel: "vmlinux",
            cpus,
            flags: &["--vsock", "/tmp/vsock"],
            around: VSOCK,
            console: &[
                "probe: 1000001 bytes came back",
                "probe: 3 bytes came back",
                "probe: 1000000 bytes came back",
                "vsock ended with 0",
            ],
            ..UP
        });
    }
    for cpus in [1, 2] {
        for (flags, around) in [
            (
                &["--net", "user,host-loopback", "-p", "8080:80"][..],
                NET_USER,
            ),
            (&["--net", "tap=tap0"], NET_TAP),
        ] {
            tests.push(Test {
                script: "net",
                kernel: "vmlinux",
                cpus,
                flags,
                around,
                console: &[
                    "guest: reaches 10.",
                    "guest: fetched",
                    "around: the same file",
                    "net ended with 0",
                ],
                ..UP
            });
        }
    }
    tests.push(Test {
        script: "zeroes",
        kernel: "vmlinux",
        flags: &["--disk", "/tmp/raw"],
        around: ZEROES,
        // The same sum twice, bytes that nobody touched, and the space given back.
        console: &[
            "b2d1236c286a3c0704224fe4105eca49",
            "0\r\n",
            "kept 6144 KiB",
            "zeroes ended with 0",
        ],
        ..UP
    });
    tests.push(Test {
        script: "killed",
        kernel: "vmlinux",
        disk: Some(""),
        around: KILLED,
        console: &["nothing lost"],
        ..UP
    });
    tests.push(Test {
        kernel: "vmlinux",
        cpus: 16,
        console: &["guest: up, 16 cpus"],
        ..UP
    });
    // No driver told of the panic: it looks like any reset.
    tests.push(Test {
        kernel: "vmlinux",
        words: "rdinit=/nonexistent",
        code: 75,
        console: &["Kernel panic - not syncing"],
        ..UP
    });
    tests.push(Test {
        script: "balloon",
        kernel: "vmlinux",
        flags: &["--control", "/tmp/control", "--memory", "256M"],
        around: BALLOON,
        console: &[
            "guest: gave up 100 MiB",
            "guest: has all again",
            "given back: yes",
            "reported: yes",
            "balloon ended with 0",
        ],
        ..UP
    });
    tests.push(Test {
        script: "oom",
        kernel: "vmlinux",
        flags: &["--control", "/tmp/control", "--memory", "256M"],
        around: INFLATE,
        console: &[
            "guest: filled 150 MiB, 0 killed",
            "guest: took at least 20 MiB back",
            "oom ended with 0",
        ],
        ..UP
    });
    tests
}

/// Inflates the balloon to 100 MiB and empties it again, with a look at the monitor's resident memory before and after.
const BALLOON: &str = r#"
"$@" & vm=$!
resident() { awk '/VmRSS/ { print int($2 / 1024) }' /proc/$vm/status; }
say() { lab-probe say /tmp/control "$1"; }
until [ -e /tmp/control ] && say stats | grep -q guest_total_bytes; do sleep 0.1; done
until [ $(resident) -ge 150 ]; do sleep 0.1; done
before=$(resident)
free() { say stats | sed 's/.*guest_free_bytes":\([0-9]*\).*/\1/'; }
until [ $(free) -ge 120000000 ]; do sleep 0.1; done
say "balloon 100M" >&2
until say stats | grep -q '"balloon_bytes":104857600'; do sleep 0.1; done
while [ $((before - $(resident))) -lt 80 ]; do sleep 0.1; done
echo "given back: yes, $before MiB resident became $(resident)" >&2
until say stats | grep -q '"reported_free_bytes":[1-9]'; do sleep 0.1; done
echo "reported: yes" >&2
say stats >&2
say "balloon 0" >&2
wait $vm
"#;

/// Inflates the balloon to 100 MiB and leaves it so.
const INFLATE: &str = r#"
"$@" & vm=$!
until [ -e /tmp/control ] && lab-probe say /tmp/control stats | grep -q guest_total_bytes; do sleep 0.1; done
lab-probe say /tmp/control "balloon 100M" >&2
wait $vm
"#;

/// Serves a file, runs the guest, fetches the file from it and tells it to end. What stands before says where the guest's server is reached
/// (`guest`) and whose process to end with it (`dhcp`).
macro_rules! around_net {
    ($before:literal) => {
        concat!(
            $before,
            r#"
mkdir -p /tmp/w; rm -f /tmp/w/*
dd if=/dev/urandom of=/tmp/w/big bs=64k count=128 2>/dev/null
httpd -f -p 8000 -h /tmp/w & server=$!
{
  until wget -q -O /tmp/got http://$guest/big && cmp /tmp/got /tmp/w/big; do sleep 0.3; done
  echo "around: the same file"
  echo > /tmp/w/done
} >&2 & fetch=$!
"$@"; code=$?
kill $server $fetch $dhcp 2>/dev/null
exit $code
"#
        )
    };
}

const NET_USER: &str = around_net!("guest=127.0.0.1:8080; dhcp=");

const NET_TAP: &str = around_net!(
    r#"
guest=10.9.0.20:80
tunctl -t tap0 >/dev/null 2>&1
ip addr add 10.9.0.1/24 dev tap0 2>/dev/null
ip link set tap0 up
cat > /tmp/udhcpd.conf <<'END'
start 10.9.0.20
end 10.9.0.20
interface tap0
lease_file /tmp/leases
pidfile /tmp/udhcpd.pid
option subnet 255.255.255.0
option router 10.9.0.1
END
: > /tmp/leases
udhcpd -f /tmp/udhcpd.conf & dhcp=$!
"#
);

/// A disk without holes, some of which must be there afterwards.
const ZEROES: &str = r#"
tr '\0' x < /dev/zero | head -c 8388608 > /tmp/raw
"$@"; code=$?
echo "kept $(du -k /tmp/raw | cut -f1) KiB"
exit $code
"#;

/// Kills the monitor in the middle of writes; what was flushed must be there at the next start.
const KILLED: &str = r#"
"$@" > /tmp/out & vm=$!
until grep -q 'flushed 20' /tmp/out; do sleep 0.1; done
kill -9 $vm; wait $vm
flushed=$(grep -o 'flushed [0-9]*' /tmp/out | sed '$d' | tail -1 | cut -d' ' -f2)
"$@" > /tmp/out; code=$?
kept=$(sed -n 's/.*kept \([0-9]*\).*/\1/p' /tmp/out)
echo "$flushed lines were flushed, $kept were kept"
[ "$flushed" -ge 19 ] && [ "$kept" -ge "$flushed" ] && echo "nothing lost"
exit $code
"#;

/// Echoes what the guest says to port 1234, and asks its port 5000.
const VSOCK: &str = r#"
lab-probe unix-echo /tmp/vsock_1234 1 & echo=$!
{ lab-probe unix-ask /tmp/vsock 5000 3 && lab-probe unix-ask /tmp/vsock 5000 1000000; } >&2 & ask=$!
"$@"; code=$?
wait $ask $echo; rm /tmp/vsock_1234
[ -e /tmp/vsock ] && echo "the socket was left behind" && exit 1
exit $code
"#;
