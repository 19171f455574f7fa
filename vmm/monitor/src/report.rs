//! How the guest ended, as words and as an exit code. Nothing the guest says is believed; its text arrives here clamped and
//! escaped ([`LastWords`]).

use unik_abi::control::ExitReport;
use unik_host::vcpu::Registers;

use crate::control::LastWords;
use crate::exit_codes;
use crate::machine::vcpus::{CrashCause, Ending};
use crate::signal_names;

/// Words for standard error and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whole lines for the user; empty when the program ended by itself.
    pub text: String,
    /// The process's exit code.
    pub code: u8,
}

/// What a report needs to know.
pub struct Context<'a> {
    /// The program's name.
    pub name: &'a str,
    /// What the guest left.
    pub words: &'a LastWords,
    /// The function at an address, as `name+0x12`.
    pub symbol: &'a dyn Fn(u64) -> Option<String>,
    /// Leave out what a program's own end by a signal would not show either.
    pub quiet: bool,
}

/// Signals whose senders do not want to read about them, as under a shell.
const SILENT: [u8; 2] = [2, 13];

impl Context<'_> {
    /// Puts `ending` into words.
    pub fn report(&self, ending: &Ending) -> Report {
        let name = self.name;
        match ending {
            Ending::Exit(value) => self.exit(*value),
            Ending::Crash {
                vcpu,
                cause,
                registers,
            } => crashed(format!(
                "{name} crashed: {}\n{}",
                cause_text(cause),
                self.state(*vcpu, registers)
            )),
            Ending::Stopped(signal) => Report {
                text: format!(
                    "unik: {name} did not end after {} and was stopped\n",
                    signal_names::signal(*signal).0
                ),
                code: exit_codes::signal(*signal),
            },
            Ending::Vanished => crashed(format!("{name} stopped without a report\n")),
            Ending::Host(error) => Report {
                text: format!("error: {error}\n"),
                code: error.exit_code(),
            },
        }
    }

    fn exit(&self, value: u32) -> Report {
        let (name, said) = (self.name, &self.words.message);
        match ExitReport::from_u32(value) {
            Some(ExitReport::Exited(code)) => Report {
                text: String::new(),
                code,
            },
            Some(ExitReport::Signaled(signal)) => self.signaled(signal),
            Some(ExitReport::Panic) => {
                crashed(format!("{name}: the library OS panicked: {said}\n"))
            }
            Some(ExitReport::OutOfMemory) => Report {
                text: format!(
                    "unik: {name} was killed: the guest's memory ran out (--memory gives more){}\n",
                    after_colon(said)
                ),
                code: exit_codes::OUT_OF_MEMORY,
            },
            Some(ExitReport::NucleusFault) => crashed(self.nucleus_fault()),
            Some(ExitReport::Refused) => Report {
                text: format!("unik: {name}: the library OS refused to start: {said}\n"),
                code: exit_codes::CONFIG,
            },
            None => crashed(format!(
                "{name} ended with an unknown report ({value:#x})\n"
            )),
        }
    }

    fn signaled(&self, signal: u8) -> Report {
        let (signal_name, meaning) = signal_names::signal(signal);
        let silent = self.quiet || SILENT.contains(&signal);
        let text = format!(
            "unik: {} was killed by {signal_name} ({meaning}){}{}\n",
            self.name,
            self.location(signal),
            after_colon(&self.words.message)
        );
        Report {
            text: if silent { String::new() } else { text },
            code: exit_codes::signal(signal),
        }
    }

    /// Where a signal that an instruction caused came from.
    fn location(&self, signal: u8) -> String {
        let LastWords { rip, addr, .. } = *self.words;
        match signal {
            4 | 5 | 8 | 31 if rip != 0 => format!(", {}", self.rip(rip)),
            7 | 11 if rip != 0 => format!(" at {addr:#x}, {}", self.rip(rip)),
            _ => String::new(),
        }
    }

    fn rip(&self, rip: u64) -> String {
        match (self.symbol)(rip) {
            Some(symbol) => format!("rip {rip:#x} {symbol}"),
            None => format!("rip {rip:#x}"),
        }
    }

    fn nucleus_fault(&self) -> String {
        let LastWords {
            vector,
            error,
            rip,
            rsp,
            addr,
            message,
            ..
        } = self.words;
        format!(
            "{}: {} in ring 0 (vector {vector}, error code {error:#x}), {}, rsp {rsp:#x}, address {addr:#x}{}\n",
            self.name,
            signal_names::exception(*vector),
            self.rip(*rip),
            after_colon(message)
        )
    }

    fn state(&self, vcpu: u8, r: &Registers) -> String {
        if r.are_reset() {
            return format!("  vCPU {vcpu}; this processor does not tell its registers\n");
        }
        const NAMES: [&str; 16] = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ];
        let ring = r.cs & 3;
        let [cr0, cr2, cr3, cr4] = r.cr;
        let mut out = format!(
            "  vCPU {vcpu}, ring {ring}, {}\n  rflags {:#x}  cs {:#x}  cr0 {cr0:#x}  cr2 {cr2:#x}  cr3 {cr3:#x}  cr4 {cr4:#x}  efer {:#x}\n",
            self.rip(r.rip),
            r.rflags,
            r.cs,
            r.efer
        );
        for (names, values) in NAMES.chunks(4).zip(r.general.chunks(4)) {
            let line: Vec<String> = names
                .iter()
                .zip(values)
                .map(|(n, v)| format!("{n:>3} {v:016x}"))
                .collect();
            out += &format!("  {}\n", line.join("  "));
        }
        out += &format!("  fs {:#x}  gs {:#x}\n", r.fs_gs[0], r.fs_gs[1]);
        out
    }
}

fn crashed(text: String) -> Report {
    Report {
        text: format!("unik: {text}"),
        code: exit_codes::CRASH,
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

fn cause_text(cause: &CrashCause) -> String {
    match cause {
        CrashCause::TripleFault => "triple fault (an exception that no handler took)".into(),
        CrashCause::Internal(error) => match (error.suberror, error.instruction.as_slice()) {
            (1, []) => "KVM cannot emulate an instruction".into(),
            (1, bytes) => {
                let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                format!(
                    "KVM cannot emulate the instruction at rip ({})",
                    hex.join(" ")
                )
            }
            (2, _) => "an exception came while another was being delivered".into(),
            (number, _) => format!("KVM reports its internal error {number}"),
        },
        CrashCause::Entry(reason) => {
            format!("the processor refused to run the guest (reason {reason:#x})")
        }
        CrashCause::Unexpected(number) => format!("KVM stopped it for the unknown reason {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(message: &str) -> LastWords {
        LastWords {
            phases: [0; 5],
            rip: 0x4010a2,
            addr: 0,
            vector: 14,
            error: 2,
            rsp: 0x1000,
            program_base: 0,
            message: message.to_owned(),
        }
    }

    fn report(ending: Ending, message: &str, quiet: bool) -> Report {
        let words = words(message);
        let symbol = |addr| (addr == 0x4010a2).then(|| "main+0x12".to_owned());
        Context {
            name: "hello",
            words: &words,
            symbol: &symbol,
            quiet,
        }
        .report(&ending)
    }

    #[test]
    fn a_program_that_ends_says_nothing() {
        for code in [0, 1, 101, 255] {
            let got = report(Ending::Exit(code), "old words", false);
            assert_eq!((got.text.as_str(), got.code), ("", code as u8));
        }
    }

    #[test]
    fn signals_are_named_and_placed() {
        let got = report(Ending::Exit(0x10b), "", false);
        let wanted = "unik: hello was killed by SIGSEGV (invalid memory reference) at 0x0, rip 0x4010a2 main+0x12\n";
        assert_eq!((got.text.as_str(), got.code), (wanted, 139));
        let got = report(Ending::Exit(0x106), "", false);
        assert_eq!(
            (got.text.as_str(), got.code),
            ("unik: hello was killed by SIGABRT (abort)\n", 134)
        );
        for (value, quiet) in [(0x102, false), (0x10d, false), (0x10b, true)] {
            assert_eq!(report(Ending::Exit(value), "", quiet).text, "");
        }
    }

    #[test]
    fn every_ending_of_the_library_os_has_words_and_a_code() {
        let codes = [0x200, 0x300, 0x400, 0x500, 0x600, 0x100, 0xffff_ffff]
            .map(|value| report(Ending::Exit(value), "because", true));
        assert!(codes[..4].iter().all(|r| r.text.contains("because")));
        assert!(
            codes
                .iter()
                .all(|r| r.text.starts_with("unik: hello") && r.text.ends_with('\n'))
        );
        assert_eq!(codes.map(|r| r.code), [70, 137, 70, 78, 70, 70, 70]);
    }

    #[test]
    fn a_crash_shows_registers() {
        let registers = Box::new(Registers {
            rip: 0x4010a2,
            cs: 0x33,
            ..Registers::default()
        });
        let cause = CrashCause::TripleFault;
        let got = report(
            Ending::Crash {
                vcpu: 1,
                cause,
                registers,
            },
            "",
            true,
        );
        assert!(
            got.text.contains("vCPU 1, ring 3, rip 0x4010a2 main+0x12"),
            "{}",
            got.text
        );
        assert_eq!(got.code, 70);
    }

    #[test]
    fn registers_that_were_reset_are_not_shown() {
        let registers = Box::new(Registers {
            rip: 0xfff0,
            cs: 0xf000,
            ..Registers::default()
        });
        let cause = CrashCause::TripleFault;
        let ending = Ending::Crash {
            vcpu: 0,
            cause,
            registers,
        };
        let text = report(ending, "", true).text;
        assert!(
            text.ends_with("vCPU 0; this processor does not tell its registers\n"),
            "{text}"
        );
    }
}
