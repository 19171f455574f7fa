//! The rules of binding, one small piece of code each.

mod common;

use common::{Elf, Segment};
use unik_image::bind::{Bound, bind};
use unik_image::program::Program;
use unik_image::{Counts, Reason};

const TEXT: u64 = 0x40_1000;
const DATA: u64 = 0x60_0000;

/// Binds a program with this code and data; trampolines lie at 0x70_0000.
fn bound_at(code: &[u8], data: &[u8], trampolines: u64) -> Bound {
    let mut elf = Elf::program();
    elf.segments = vec![Segment::load(5, TEXT, code), Segment::load(6, DATA, data)];
    bind(&Program::read(&elf.bytes()).unwrap(), trampolines)
}

fn bound(code: &[u8], data: &[u8]) -> Bound {
    bound_at(code, data, 0x70_0000)
}

fn counts(before: usize, after: usize, unbound: usize) -> Counts {
    Counts {
        before,
        after,
        unbound,
    }
}

const MOV_EAX: &[u8] = b"\xb8\x27\0\0\0"; // mov $39, %eax
const SYSCALL: &[u8] = b"\x0f\x05";
const RET: &[u8] = b"\xc3";
const XOR_EDI: &[u8] = b"\x31\xff";

#[test]
fn the_instruction_before_moves_and_the_site_stays() {
    let seen = bound(&[MOV_EAX, SYSCALL, RET].concat(), b"x");
    assert_eq!(seen.report.syscall, counts(1, 0, 0));
    assert_eq!(
        (
            seen.patches[0].vaddr,
            seen.patches[0].bytes[0],
            seen.patches[0].bytes.len()
        ),
        (TEXT, 0xe9, 5)
    );
    let distance = i32::from_le_bytes(seen.patches[0].bytes[1..].try_into().unwrap());
    assert_eq!(TEXT + 5 + distance as u64, 0x70_0000);
    assert_eq!(&seen.trampolines[..5], MOV_EAX);
    // lea: back to the address after the site
    let distance = i32::from_le_bytes(seen.trampolines[8..12].try_into().unwrap());
    assert_eq!(
        (0x70_0000u64 + 12).wrapping_add_signed(distance.into()),
        TEXT + 7
    );
    assert_eq!(&seen.trampolines[12..20], b"\x65\xff\x24\x25\0\0\0\0");
}

#[test]
fn a_pair_inside_an_instruction_is_no_site() {
    let seen = bound(&[b"\xb8\x0f\x05\0\0", RET].concat(), b"x"); // mov $0x50f, %eax
    assert_eq!(seen.report.syscall, counts(0, 0, 0));
    assert!(seen.patches.is_empty() && seen.trampolines.is_empty());
}

#[test]
fn a_site_that_is_jumped_to_moves_with_what_follows() {
    // mov; L: syscall; cmp $-4, %eax; je L; ret
    let code = [MOV_EAX, SYSCALL, b"\x83\xf8\xfc", b"\x74\xf9", RET].concat();
    let seen = bound(&code, b"x");
    assert_eq!(seen.report.syscall, counts(0, 1, 0));
    assert_eq!(
        (seen.patches[0].vaddr, seen.patches[0].bytes.len()),
        (TEXT + 5, 5)
    );
    let back = 7 + 8;
    assert_eq!(&seen.trampolines[back..back + 5], b"\x0f\x05\x83\xf8\xfc");
    assert_eq!(seen.trampolines[back + 5], 0xe9);
}

#[test]
fn a_pointer_in_data_keeps_its_place() {
    let code = [XOR_EDI, MOV_EAX, SYSCALL, b"\x48\x89\xc3\x90", RET].concat();
    let middle = (TEXT + 7).to_le_bytes(); // the syscall itself
    assert_eq!(bound(&code, &middle).report.syscall, counts(0, 1, 0));
    assert_eq!(bound(&code, b"no pointer").report.syscall, counts(1, 0, 0));
}

#[test]
fn a_jump_table_of_distances_keeps_its_places() {
    // lea table(%rip), %rdx; jmp *%rdx; mov; L: syscall; mov %rax, %rbx; nop; ret
    let mut code = b"\x48\x8d\x15\0\0\0\0\xff\xe2".to_vec();
    code[3..7].copy_from_slice(&((DATA - TEXT - 7) as i32).to_le_bytes());
    code.extend([MOV_EAX, SYSCALL, b"\x48\x89\xc3\x90", RET].concat());
    let entry = |vaddr: u64| (vaddr as i64 - DATA as i64) as i32;
    let table = [entry(TEXT + 9), entry(TEXT + 14)]
        .map(i32::to_le_bytes)
        .concat();
    assert_eq!(bound(&code, &table).report.syscall, counts(0, 1, 0));
    assert_eq!(bound(&code, &[0; 8]).report.syscall, counts(1, 0, 0));
}

#[test]
fn no_room_no_change() {
    let seen = bound(&[b"\xeb\0", SYSCALL, RET].concat(), b"x"); // jmp L; L: syscall; ret
    assert_eq!(seen.report.syscall, counts(0, 0, 1));
    assert_eq!(
        (seen.report.unbound[0].vaddr, seen.report.unbound[0].reason),
        (TEXT + 2, Reason::NoWindow)
    );
    let far = bound_at(&[MOV_EAX, SYSCALL, RET].concat(), b"x", TEXT + (1 << 32));
    assert_eq!(far.report.unbound[0].reason, Reason::OutOfReach);
    assert!(far.patches.is_empty() && far.trampolines.is_empty());
}

#[test]
fn a_signal_return_keeps_the_bytes_that_unwinders_know() {
    let seen = bound(b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05\x0f\x0b", b"x");
    assert_eq!(seen.report.unbound[0].reason, Reason::SignalReturn);
}

#[test]
fn a_moved_rip_relative_operand_means_the_same_address() {
    // mov %eax, data(%rip); syscall; ret
    let mut code = b"\x89\x05\0\0\0\0\x0f\x05\xc3".to_vec();
    code[2..6].copy_from_slice(&((DATA - TEXT - 6) as i32).to_le_bytes());
    let seen = bound(&code, &[0; 8]);
    assert_eq!(seen.report.syscall, counts(1, 0, 0));
    let distance = i32::from_le_bytes(seen.trampolines[2..6].try_into().unwrap());
    assert_eq!(
        (0x70_0000u64 + 6).wrapping_add_signed(distance.into()),
        DATA
    );
}

#[test]
fn two_sites_side_by_side_do_not_share_bytes() {
    let seen = bound(&[MOV_EAX, SYSCALL, SYSCALL, MOV_EAX, RET].concat(), b"x");
    assert_eq!(seen.report.syscall.bound(), 2);
    let (first, second) = (&seen.patches[0], &seen.patches[1]);
    assert!(first.vaddr + first.bytes.len() as u64 <= second.vaddr);
}

#[test]
fn a_bound_cpuid_gives_back_r11() {
    let seen = bound(&[MOV_EAX, b"\x0f\xa2", RET].concat(), b"x");
    assert_eq!(seen.report.cpuid, counts(1, 0, 0));
    let code = &seen.trampolines[5..];
    assert_eq!(&code[..9], b"\x65\xc6\x04\x25\x10\0\0\0\x01");
    assert_eq!(&code[9..18], b"\x65\x4c\x89\x1c\x25\x18\0\0\0");
    assert_eq!(&code[18..25], b"\x4c\x8d\x1d\x08\0\0\0");
    assert_eq!(&code[25..33], b"\x65\xff\x24\x25\x08\0\0\0");
    assert_eq!(&code[33..42], b"\x65\x4c\x8b\x1c\x25\x18\0\0\0");
    assert_eq!(&code[42..51], b"\x65\xc6\x04\x25\x10\0\0\0\0");
    assert_eq!(code[51], 0xe9);
}
