//! How the guest ended, as words and as an exit code. Nothing the guest says is believed: text is clamped and escaped.

use unik_abi::control::ExitReport;

use crate::control::LastWords;
use crate::exit_codes;
use crate::machine::vcpus::{CrashCause, Ending};

/// Words for standard error and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Lines for the user; empty when the program ended by itself.
    pub text: String,
    /// The process's exit code.
    pub code: u8,
}

/// Puts `ending` into words.
pub fn report(ending: &Ending, words: &LastWords, name: &str) -> Report {
    match ending {
        Ending::Exit(value) => exit(*value, words, name),
        Ending::Crash {
            vcpu,
            cause,
            registers,
        } => {
            let text = format!(
                "unik: {name} crashed: {} (vCPU {vcpu})\n{}",
                crash(cause),
                dump(registers)
            );
            Report {
                text,
                code: exit_codes::CRASH,
            }
        }
        Ending::Stopped(signal) => Report {
            text: format!("unik: {name} did not react to signal {signal} and was stopped\n"),
            code: exit_codes::signal(*signal),
        },
        Ending::Vanished => Report {
            text: format!("unik: {name} stopped without a report\n"),
            code: exit_codes::CRASH,
        },
        Ending::Host(error) => Report {
            text: format!("error: {error}\n"),
            code: exit_codes::HOST,
        },
    }
}

fn exit(value: u32, words: &LastWords, name: &str) -> Report {
    let said = &words.message;
    let (text, code) = match ExitReport::from_u32(value) {
        Some(ExitReport::Exited(code)) => (String::new(), code),
        Some(ExitReport::Signaled(signal)) => (
            format!("unik: {name} was killed by signal {signal}\n"),
            exit_codes::signal(signal),
        ),
        Some(ExitReport::Panic) => (
            format!("unik: {name}: the library OS panicked: {said}\n"),
            exit_codes::CRASH,
        ),
        Some(ExitReport::OutOfMemory) => (
            format!(
                "unik: {name} was killed because the guest's memory ran out (--memory gives more): {said}\n"
            ),
            exit_codes::OUT_OF_MEMORY,
        ),
        Some(ExitReport::NucleusFault) => (nucleus_fault(words, name), exit_codes::CRASH),
        Some(ExitReport::Refused) => (
            format!("unik: {name}: the library OS refused to start: {said}\n"),
            exit_codes::CONFIG,
        ),
        None => (
            format!("unik: {name} ended with the unknown report {value:#x}\n"),
            exit_codes::CRASH,
        ),
    };
    Report { text, code }
}

fn nucleus_fault(words: &LastWords, name: &str) -> String {
    let LastWords {
        vector,
        error,
        rip,
        rsp,
        addr,
        message,
        ..
    } = words;
    format!(
        "unik: {name}: exception {vector} in ring 0, error code {error:#x}, rip {rip:#x}, rsp {rsp:#x}, address {addr:#x} {message}\n",
    )
}

fn crash(cause: &CrashCause) -> String {
    match cause {
        CrashCause::TripleFault => "triple fault (an exception that no handler took)".into(),
        CrashCause::Internal(error) if error.suberror == 1 => {
            format!(
                "KVM cannot emulate the instruction {:02x?} in ring 0",
                error.instruction
            )
        }
        CrashCause::Internal(error) => format!("KVM internal error {}", error.suberror),
        CrashCause::Entry(reason) => {
            format!("the processor refused to run the guest (reason {reason:#x})")
        }
        CrashCause::Unexpected(number) => format!("unexpected KVM exit {number}"),
    }
}

fn dump(r: &unik_host::vcpu::Registers) -> String {
    const NAMES: [&str; 16] = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    let mut out = format!(
        "  rip={:#x} rflags={:#x} cs={:#x} efer={:#x}\n",
        r.rip, r.rflags, r.cs, r.efer
    );
    out += &format!(
        "  cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x}\n",
        r.cr[0], r.cr[1], r.cr[2], r.cr[3]
    );
    for (names, values) in NAMES.chunks(4).zip(r.general.chunks(4)) {
        let line: Vec<String> = names
            .iter()
            .zip(values)
            .map(|(n, v)| format!("{n}={v:#018x}"))
            .collect();
        out += &format!("  {}\n", line.join(" "));
    }
    out += &format!("  fs={:#x} gs={:#x}\n", r.fs_gs[0], r.fs_gs[1]);
    out
}
