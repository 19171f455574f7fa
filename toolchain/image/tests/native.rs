//! Rewritten programs run right: natively on the host, with the real trampolines.
//!
//! A rewritten program gets a start stub that points `gs` to a block with two small handlers: one makes the real
//! system call and returns through `rcx`, the other runs `cpuid` and returns through `r11`, as the library OS does. Output and
//! exit code must be those of the original program. A run that went through no trampoline fails.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use iced_x86::code_asm::*;
use unik_abi::gs;
use unik_image::bind::{self, Bound};
use unik_image::program::Program;

const SYS_MMAP: u32 = 9;
const SYS_RT_SIGRETURN: i32 = 15;
const SYS_CLONE: i32 = 56;
const SYS_ARCH_PRCTL: u32 = 158;
const SYS_EXIT_GROUP: i32 = 231;
const SYS_CLONE3: i32 = 435;
const ARCH_SET_GS: u32 = 0x1001;
const ENOSYS: i64 = -38;
/// Slot of the block, used by this test alone: calls that came through a trampoline.
const COUNTER: u32 = 64;
const RED_ZONE: i32 = 128;

#[test]
fn rewritten_programs_do_what_the_originals_do() {
    let folder = tempfile::tempdir().unwrap();
    for path in common::programs(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        let program = Program::read(&bytes).unwrap();
        let bound = bind::bind(&program, program.end());
        let report = &bound.report;
        eprintln!(
            "{}: syscall {:?} cpuid {:?}",
            path.display(),
            report.syscall,
            report.cpuid
        );
        let unplaced: Vec<_> = report
            .unbound
            .iter()
            .filter(|u| u.reason != unik_image::Reason::SignalReturn)
            .collect();
        // A number that happens to look like an address may cost a site; more is a mistake.
        assert!(
            unplaced.len() * 20 <= report.syscall.bound(),
            "{}: {unplaced:x?}",
            path.display()
        );

        let rewritten = path.with_extension("rewritten");
        std::fs::write(&rewritten, rewrite(&bytes, &program, &bound)).unwrap();
        std::fs::set_permissions(&rewritten, std::fs::metadata(&path).unwrap().permissions())
            .unwrap();
        let (wanted, seen) = (run(&path), run(&rewritten));
        assert_eq!(seen, wanted, "{}", path.display());
        assert!(!wanted.stdout.is_empty(), "{}", path.display());
    }
}

/// `timeout` because a wrongly moved instruction may well loop.
fn run(path: &Path) -> Output {
    Command::new("timeout")
        .arg("60")
        .arg(path)
        .output()
        .unwrap()
}

/// The program file with patches, trampolines and the start stub.
fn rewrite(bytes: &[u8], program: &Program<'_>, bound: &Bound) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for patch in &bound.patches {
        let segment = program
            .segments
            .iter()
            .find(|s| s.file_range().contains(&patch.vaddr))
            .unwrap();
        let at = segment.data.as_ptr() as usize - bytes.as_ptr() as usize
            + (patch.vaddr - segment.vaddr) as usize;
        out[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    let vaddr = program.end();
    let stub_at = vaddr + bound.trampolines.len() as u64;
    let mut code = bound.trampolines.clone();
    code.extend(stub(stub_at, program.entry).unwrap());
    out.resize(out.len().next_multiple_of(4096), 0);
    let offset = out.len() as u64;
    out.extend(&code);
    add_segment(&mut out, offset, vaddr, code.len() as u64);
    out[24..32].copy_from_slice(&stub_at.to_le_bytes());
    out
}

/// Turns PT_NOTE (or PT_GNU_STACK), which nobody needs here, into PT_LOAD and moves it behind the last PT_LOAD.
fn add_segment(out: &mut [u8], offset: u64, vaddr: u64, len: u64) {
    let at = u64::from_le_bytes(out[32..40].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes(out[56..58].try_into().unwrap()));
    let mut phdrs: Vec<Vec<u8>> = out[at..at + 56 * count]
        .chunks(56)
        .map(<[u8]>::to_vec)
        .collect();
    let kind = |p: &[u8]| u32::from_le_bytes(p[..4].try_into().unwrap());
    let victim = phdrs
        .iter()
        .position(|p| kind(p) == 4)
        .or(phdrs.iter().position(|p| kind(p) == 0x6474_e551))
        .unwrap();
    phdrs.remove(victim);
    let last = phdrs.iter().rposition(|p| kind(p) == 1).unwrap();
    let mut load = [1u32, 5].map(u32::to_le_bytes).concat();
    load.extend(
        [offset, vaddr, vaddr, len, len, 4096]
            .map(u64::to_le_bytes)
            .concat(),
    );
    phdrs.insert(last + 1, load);
    out[at..at + 56 * count].copy_from_slice(&phdrs.concat());
}

/// The start stub and the two handlers.
fn stub(at: u64, entry: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut on_syscall, mut on_cpuid) = (a.create_label(), a.create_label());
    a.push(rdx)?;
    a.mov(eax, SYS_MMAP)?;
    a.xor(edi, edi)?;
    a.mov(esi, 4096)?;
    a.mov(edx, 3)?; // PROT_READ | PROT_WRITE
    a.mov(r10d, 0x22)?; // MAP_PRIVATE | MAP_ANONYMOUS
    a.mov(r8, -1i64)?;
    a.xor(r9d, r9d)?;
    a.syscall()?;
    a.mov(rsi, rax)?;
    a.lea(rcx, ptr(on_syscall))?;
    a.mov(qword_ptr(rsi + gs::SYSCALL_ENTRY), rcx)?;
    a.lea(rcx, ptr(on_cpuid))?;
    a.mov(qword_ptr(rsi + gs::CPUID_ENTRY), rcx)?;
    a.mov(edi, ARCH_SET_GS)?;
    a.mov(eax, SYS_ARCH_PRCTL)?;
    a.syscall()?;
    a.pop(rdx)?;
    a.jmp(entry)?;
    syscall_handler(&mut a, &mut on_syscall)?;
    a.set_label(&mut on_cpuid)?;
    a.cpuid()?;
    a.jmp(r11)?;
    a.assemble(at)
}

fn syscall_handler(a: &mut CodeAssembler, entry: &mut CodeLabel) -> Result<(), IcedError> {
    let (mut clone, mut raw, mut refuse, mut exit) = (
        a.create_label(),
        a.create_label(),
        a.create_label(),
        a.create_label(),
    );
    a.set_label(entry)?;
    a.lock().inc(qword_ptr(u64::from(COUNTER)).gs())?;
    for (number, label) in [
        (SYS_CLONE, clone),
        (SYS_RT_SIGRETURN, raw),
        (SYS_CLONE3, refuse),
        (SYS_EXIT_GROUP, exit),
    ] {
        a.cmp(eax, number)?;
        a.je(label)?;
    }
    a.lea(rsp, ptr(rsp - RED_ZONE))?;
    a.push(rcx)?;
    a.syscall()?;
    a.pop(rcx)?;
    a.lea(rsp, ptr(rsp + RED_ZONE))?;
    a.jmp(rcx)?;

    // The child finds the return address on its own stack.
    a.set_label(&mut clone)?;
    a.lea(rsi, ptr(rsi - RED_ZONE - 8))?;
    a.mov(qword_ptr(rsi), rcx)?;
    a.lea(rsp, ptr(rsp - RED_ZONE))?;
    a.push(rcx)?;
    a.syscall()?;
    a.pop(rcx)?;
    a.lea(rsp, ptr(rsp + RED_ZONE))?;
    a.lea(rsi, ptr(rsi + RED_ZONE + 8))?;
    a.jmp(rcx)?;

    // clone3 has its stack in a structure: libc falls back to clone.
    a.set_label(&mut refuse)?;
    a.mov(rax, ENOSYS)?;
    a.jmp(rcx)?;

    a.set_label(&mut exit)?;
    a.cmp(qword_ptr(u64::from(COUNTER)).gs(), 2)?;
    a.jae(raw)?;
    a.ud2()?;
    a.set_label(&mut raw)?;
    a.syscall()?;
    a.ud2()
}
