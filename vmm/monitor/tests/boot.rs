//! Boots hand-written guests with the real `unik-vmm` on the real KVM.

mod common;
#[path = "common/pty.rs"]
mod pty;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{finish, image, image_with, kvm, vmm};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::tempdir;

#[test]
fn debug_text_and_exit_code_come_back() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let got = finish(&mut vmm(&[], &image(dir.path(), "exit")));
    assert_eq!(
        got,
        (
            Some(42),
            String::new(),
            "first words\nlast words".to_owned()
        )
    );
}

#[test]
fn a_triple_fault_is_reported_with_its_place() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (code, _, errors) = finish(&mut vmm(&[], &image(dir.path(), "triple-fault")));
    assert_eq!(code, Some(70), "{errors}");
    assert!(
        errors.contains("triple-fault crashed: triple fault"),
        "{errors}"
    );
    let place = errors.contains("ring 0, rip") && errors.contains("the_crash+0x0");
    assert!(
        place || errors.contains("this processor does not tell its registers"),
        "{errors}"
    );
}

#[test]
fn the_guest_finds_its_configuration() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let image = image_with(
        dir.path(),
        "module",
        unik_abi::ABI_VERSION,
        "arg=prog\0exe=/bin/prog\0",
    );
    let args = [
        "-e",
        "A=b c",
        "--cpus",
        "2",
        "--hostname",
        "box",
        "--syscall-summary",
        "--",
        "one",
        "--two",
    ];
    let (code, _, text) = finish(vmm(&args, &image).env("TZ", "CET-1"));
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0]
            .starts_with("virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"),
        "{text}"
    );
    for wanted in [
        "arg=prog",
        "arg=one",
        "arg=--two",
        "env=A=b c",
        "hostname=box",
        "cpus=2",
        "syscall_summary=1",
    ] {
        assert!(lines.contains(&wanted), "{wanted} in {text}");
    }
    for key in [
        "tsc_khz=",
        "wall_ns=",
        "wall_tsc=",
        "seed=",
        "monitor=unik",
        "console=0xd0000000",
        "console.err=",
        "tty=",
        "tz=",
    ] {
        assert!(lines.iter().any(|l| l.starts_with(key)), "{key} in {text}");
    }
    let args: Vec<&&str> = lines.iter().filter(|l| l.starts_with("arg=")).collect();
    assert_eq!(args, [&"arg=prog", &"arg=one", &"arg=--two"]);
}

#[test]
fn a_program_on_a_terminal_learns_what_it_can_do() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let manifest = "arg=prog\0env=COLORTERM=image\0";
    let image = image_with(dir.path(), "module", unik_abi::ABI_VERSION, manifest);
    let told = |output: Stdio, args: &[&str]| -> Vec<String> {
        let mut vmm = vmm(args, &image);
        vmm.env_remove("NO_COLOR");
        vmm.env("TERM", "test-256color").env("COLORTERM", "host");
        let (code, _, text) = finish(vmm.stdout(output));
        assert_eq!(code, Some(0), "{text}");
        let known = ["env=", "tty=", "winsize="];
        let lines = text.lines().map(str::to_owned);
        lines
            .filter(|line| known.iter().any(|key| line.starts_with(key)))
            .collect()
    };
    assert_eq!(told(Stdio::piped(), &[]), ["tty="]);
    let (_outside, inside) = pty::pty();
    let size = Winsize {
        ws_row: 44,
        ws_col: 133,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&inside, size).unwrap();
    let terminal = || Stdio::from(inside.try_clone().unwrap());
    let wanted = ["tty=1", "winsize=133x44", "env=TERM=test-256color"];
    assert_eq!(told(terminal(), &[]), wanted);
    // The last one counts.
    let chosen = told(terminal(), &["-e", "TERM=dumb"]);
    assert_eq!(chosen[2..], ["env=TERM=test-256color", "env=TERM=dumb"]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let long = "x".repeat(100_000);
    let mut args = vec!["--"];
    args.extend(std::iter::repeat_n(long.as_str(), 6));
    let (code, _, errors) = finish(&mut vmm(&args, &image(dir.path(), "exit")));
    assert_eq!(code, Some(78), "{errors}");
    assert!(
        errors.starts_with("error: arguments and environment need 600"),
        "{errors}"
    );
}

#[test]
fn input_comes_back_as_output_until_it_ends() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let mut child = vmm(&[], &image(dir.path(), "echo"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let data: Vec<u8> = (0..300_001u32).map(|i| (i / 7) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let feeder = std::thread::spawn(move || stdin.write_all(&sent));
    let mut back = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    feeder.join().unwrap().unwrap();
    assert_eq!(
        child.wait().unwrap().code(),
        Some((data.len() & 0xff) as i32)
    );
    assert!(
        back == data,
        "{} bytes came back of {}",
        back.len(),
        data.len()
    );
}

#[test]
fn input_from_a_file_and_from_nowhere() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let echo = image(dir.path(), "echo");
    std::fs::write(dir.path().join("input"), "from a file").unwrap();
    let file = std::fs::File::open(dir.path().join("input")).unwrap();
    let got = finish(vmm(&[], &echo).stdin(file));
    assert_eq!(got, (Some(11), "from a file".to_owned(), String::new()));
    assert_eq!(finish(&mut vmm(&[], &echo)).0, Some(0));
}

#[test]
fn output_offered_just_before_the_end_is_not_lost() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let burst = image(dir.path(), "burst");
    for _ in 0..20 {
        assert_eq!(
            finish(&mut vmm(&[], &burst)),
            (Some(0), "not lost\n".to_owned(), String::new())
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_flood() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let mut child = vmm(&[], &image(dir.path(), "flood")).spawn().unwrap();
    let mut some = [0; 100_000];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    assert!(some.iter().all(|&b| b == b'a'));
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

#[test]
fn a_device_interrupt_wakes_a_sleeping_vcpu() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let got = finish(&mut vmm(&[], &image(dir.path(), "interrupt")));
    assert_eq!(got, (Some(1), "sleeping\n".to_owned(), String::new()));
}

#[test]
fn many_registers_in_one_exit() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let got = finish(&mut vmm(&[], &image(dir.path(), "batch")));
    assert_eq!(got, (Some(1), String::new(), String::new()));
}

#[test]
fn the_guest_starts_its_second_vcpu() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let image = image(dir.path(), "second-vcpu");
    assert_eq!(finish(&mut vmm(&["--cpus", "4"], &image)).0, Some(107));
}

/// Starts a guest and waits until it says "ready".
fn ready(
    name: &str,
    dir: &std::path::Path,
) -> (std::process::Child, BufReader<std::process::ChildStderr>) {
    // A shell that starts the tests in the background has SIGINT and SIGQUIT ignored, and the monitor leaves that so.
    let mut child = Command::new("env")
        .arg("--default-signal=INT,QUIT")
        .arg(env!("CARGO_BIN_EXE_unik-vmm"))
        .arg("run")
        .arg(image(dir, name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, errors)
}

fn signal(child: &std::process::Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Whether this process, and so its children, was started with the signal ignored.
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let set = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    set >> (signal - 1) & 1 == 1
}

#[test]
fn signals_reach_the_guest() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    for (name, number) in [("-TERM", 15), ("-INT", 2), ("-HUP", 1), ("-QUIT", 3)] {
        if ignores(number) {
            continue; // started by nohup, say: the monitor leaves such a signal alone, as it should
        }
        let (mut child, _errors) = ready("signal", dir.path());
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(128 + number), "{name}");
    }
}

#[test]
fn a_guest_that_does_not_react_is_stopped() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (mut child, mut errors) = ready("spin", dir.path());
    let start = Instant::now();
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let patience = start.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&patience));
    let mut said = String::new();
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(
        said,
        "unik: spin did not end after SIGTERM and was stopped\n"
    );
    let (mut child, _errors) = ready("spin", dir.path());
    let start = Instant::now();
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < patience);
}

#[test]
fn a_reader_that_does_not_read_cannot_keep_the_monitor_alive() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_unik-vmm"))
        .arg("run")
        .arg(image(dir.path(), "flood"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn last_words_are_clamped_and_escaped() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (code, _, errors) = finish(&mut vmm(&[], &image(dir.path(), "last-words")));
    assert_eq!(code, Some(70));
    assert!(
        errors.contains("the library OS panicked: \\u{1b}[31m"),
        "{errors}"
    );
    assert!(!errors.contains('\x1b'));
}

#[test]
fn phases_of_the_guest_are_in_order() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let (code, _, errors) = finish(&mut vmm(&["--timings=json"], &image(dir.path(), "time")));
    assert_eq!(code, Some(0));
    let at = |key: &str| {
        let (_, rest) = errors
            .split_once(&format!("\"{key}_us\":"))
            .unwrap_or_else(|| panic!("{key} in {errors}"));
        rest.split([',', '}'])
            .next()
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    let keys = [
        "monitor_start",
        "vm_ready",
        "image_mapped",
        "guest_entered",
        "library_os_ready",
        "main_reached",
        "exit",
    ];
    let times = keys.map(at);
    assert!(times.is_sorted() && times[6] < 1e6, "{errors}");
}

#[test]
fn memory_around_the_hole() {
    if !kvm() {
        return;
    }
    let dir = tempdir().unwrap();
    let image = image(dir.path(), "exit");
    for memory in ["4M", "3G", "5G", "64G"] {
        assert_eq!(
            finish(&mut vmm(&["--memory", memory], &image)).0,
            Some(42),
            "{memory}"
        );
    }
    for memory in ["2M", "1T"] {
        assert_eq!(
            finish(&mut vmm(&["--memory", memory], &image)).0,
            Some(78),
            "{memory}"
        );
    }
}

#[test]
fn what_is_no_image_is_refused_with_advice() {
    let dir = tempdir().unwrap();
    let other_version = image_with(dir.path(), "exit", 77, "x");
    let text = dir.path().join("text");
    std::fs::write(&text, "#!/bin/sh\n").unwrap();
    let cases = [
        (
            other_version,
            65,
            "follows version 77 of the Unik contract, this monitor version",
        ),
        (
            text,
            65,
            "it is not an ELF file; build one with `cargo unik build`",
        ),
        (
            "/bin/true".into(),
            65,
            "is an ordinary program, not a Unik image: make one with `cargo unik pack",
        ),
        ("/nonexistent".into(), 66, "cannot open /nonexistent"),
        ("/tmp".into(), 66, "is not a regular file"),
    ];
    if !kvm() {
        return;
    }
    for (path, code, words) in cases {
        let (got, _, errors) = finish(&mut vmm(&[], &path));
        assert!(
            got == Some(code) && errors.contains(words) && errors.starts_with("error: "),
            "{got:?} {errors}"
        );
    }
}

#[test]
fn wrong_command_lines_have_their_code() {
    for args in [
        &["run"][..],
        &["run", "x", "--nonsense"],
        &["fly"],
        &["run", "x", "--memory", "much"],
    ] {
        let status = Command::new(env!("CARGO_BIN_EXE_unik-vmm"))
            .args(args)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(64), "{args:?}");
    }
}
