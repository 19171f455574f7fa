//! How the guest ended, as words and as an exit code. Nothing the guest says is believed: text is clamped and escaped.

use unik_abi::control::{ControlPage, ExitReport, MESSAGE_LEN};
use unik_abi::layout::CONTROL_PAGE_PADDR;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

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

/// What the control page of a stopped guest says.
#[derive(Clone, Debug)]
pub struct Control {
    words: [u64; WORDS],
    /// The message, at most [`MESSAGE_LEN`] bytes.
    message: Vec<u8>,
}

/// 8-byte fields before the message.
const WORDS: usize = core::mem::offset_of!(ControlPage, message) / 8;

impl Control {
    /// Reads the page once.
    pub fn read(mem: &GuestMemoryMmap) -> Self {
        let mut words = [0u64; WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            *word = mem
                .read_obj(GuestAddress(CONTROL_PAGE_PADDR + 8 * i as u64))
                .unwrap_or(0);
        }
        let len =
            words[word_of(core::mem::offset_of!(ControlPage, message_len))].min(MESSAGE_LEN as u64);
        let mut message = vec![0; len as usize];
        let at = CONTROL_PAGE_PADDR + core::mem::offset_of!(ControlPage, message) as u64;
        let _ = mem.read_slice(&mut message, GuestAddress(at));
        Self { words, message }
    }

    /// The guest's TSC at each phase.
    pub fn phases(&self) -> &[u64] {
        &self.words[..unik_abi::control::PHASES]
    }

    fn field(&self, offset: usize) -> u64 {
        self.words[word_of(offset)]
    }

    /// The message with everything but printable characters and line ends escaped.
    fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.message);
        let mut out = String::with_capacity(text.len());
        for c in text.trim_end().chars() {
            match c {
                '\n' => out.push_str("\n  "),
                '\t' => out.push('\t'),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        out
    }
}

const fn word_of(offset: usize) -> usize {
    offset / 8
}

/// Puts `ending` into words.
pub fn report(ending: &Ending, control: &Control, name: &str) -> Report {
    match ending {
        Ending::Exit(value) => exit(*value, control, name),
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
        Ending::Host(error) => Report {
            text: format!("error: {error}\n"),
            code: exit_codes::HOST,
        },
    }
}

fn exit(value: u32, control: &Control, name: &str) -> Report {
    let said = control.message();
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
        Some(ExitReport::NucleusFault) => (nucleus_fault(control, name, &said), exit_codes::CRASH),
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

fn nucleus_fault(control: &Control, name: &str, said: &str) -> String {
    use core::mem::offset_of;
    format!(
        "unik: {name}: exception {} in ring 0, error code {:#x}, rip {:#x}, rsp {:#x}, address {:#x} {said}\n",
        control.field(offset_of!(ControlPage, fault_vector)),
        control.field(offset_of!(ControlPage, fault_error)),
        control.field(offset_of!(ControlPage, fault_rip)),
        control.field(offset_of!(ControlPage, fault_rsp)),
        control.field(offset_of!(ControlPage, fault_addr)),
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
