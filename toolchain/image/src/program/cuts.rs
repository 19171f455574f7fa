//! Where code is and where instructions start: sections, symbols, the table of unwinding information.
//!
//! Sections and symbols may be missing (stripped programs); then segments and the unwinding table remain, then the entry point.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{ProgramHeader, SectionHeader};

use super::{ElfError, Program, sections};

/// Fills `code`, `symbols` and `cuts`.
pub fn find<'a>(
    program: &mut Program<'a>,
    header: &FileHeader64<LE>,
    phdrs: &[ProgramHeader64<LE>],
    bytes: &'a [u8],
) -> Result<(), ElfError> {
    let sections = sections::table(header, bytes)?;
    program.code = code(program, sections);
    program.symbols = sections::symbols(sections, bytes)?;
    let mut cuts: Vec<u64> = program.code.iter().map(|r| r.start).collect();
    cuts.extend(program.symbols.iter().map(|s| s.vaddr));
    cuts.extend(function_starts(program, phdrs));
    cuts.push(program.entry);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|cut| program.code.iter().any(|r| r.contains(cut)));
    program.cuts = cuts;
    Ok(())
}

/// Executable sections inside executable segments; the segments themselves where there are none.
fn code(program: &Program<'_>, sections: &[SectionHeader64<LE>]) -> Vec<std::ops::Range<u64>> {
    let segments = || {
        program
            .segments
            .iter()
            .filter(|s| s.executable())
            .map(|s| s.file_range())
    };
    let wanted = |s: &&SectionHeader64<LE>| {
        let flags = s.sh_flags(LE).0;
        s.sh_type(LE) != elf::SHT_NOBITS
            && flags & elf::SHF_EXECINSTR.0 != 0
            && flags & elf::SHF_ALLOC.0 != 0
    };
    let range =
        |s: &SectionHeader64<LE>| s.sh_addr(LE)..s.sh_addr(LE).saturating_add(s.sh_size(LE));
    let inside = |r: &std::ops::Range<u64>| {
        !r.is_empty() && segments().any(|s| s.start <= r.start && r.end <= s.end)
    };
    let mut ranges: Vec<_> = sections
        .iter()
        .filter(wanted)
        .map(range)
        .filter(inside)
        .collect();
    ranges.sort_by_key(|r| (r.start, r.end));
    ranges.dedup_by(|next, last| next.start < last.end);
    if ranges.is_empty() {
        segments().collect()
    } else {
        ranges
    }
}

/// Function starts from the binary search table of `.eh_frame_hdr` (LSB Core, "Exception Frames").
fn function_starts(program: &Program<'_>, phdrs: &[ProgramHeader64<LE>]) -> Vec<u64> {
    /// Version 1, pc-relative 4-byte frame pointer, 4-byte count, table of data-relative signed 4-byte pairs.
    const USUAL: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
    let Some(p) = phdrs.iter().find(|p| p.p_type(LE) == elf::PT_GNU_EH_FRAME) else {
        return Vec::new();
    };
    let base = p.p_vaddr(LE);
    let Some(bytes) = usize::try_from(p.p_filesz(LE))
        .ok()
        .and_then(|len| program.bytes_at(base, len))
    else {
        return Vec::new();
    };
    let Some((head, table)) = bytes.split_first_chunk::<12>() else {
        return Vec::new();
    };
    if head[..4] != USUAL {
        return Vec::new();
    }
    let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    let near = |word: &[u8]| {
        let distance = word.first_chunk().map_or(0, |w| i32::from_le_bytes(*w));
        base.wrapping_add_signed(i64::from(distance))
    };
    let (entries, _) = table.as_chunks::<8>();
    entries
        .iter()
        .take(count)
        .filter(|entry| !of_signal_frame(program, near(&entry[4..])))
        .map(|entry| near(&entry[..4]))
        .collect()
}

/// Whether the frame description at `fde` is of a signal frame: `S` in the augmentation of its CIE (LSB Core, "Exception Frames"). glibc lets
/// that of its signal return start a byte before the code, for unwinders that look up return addresses minus one.
fn of_signal_frame(program: &Program<'_>, fde: u64) -> bool {
    /// Length, id, version.
    const AUGMENTATION_AT: u64 = 9;
    let cie_distance_at = fde.wrapping_add(4);
    let Some(&distance) = program
        .bytes_at(cie_distance_at, 4)
        .and_then(<[u8]>::first_chunk)
    else {
        return false;
    };
    let cie = cie_distance_at.wrapping_sub(u64::from(u32::from_le_bytes(distance)));
    let mut letters = (0..8).map_while(|n| {
        let byte = program.bytes_at(cie.wrapping_add(AUGMENTATION_AT + n), 1)?;
        byte.first().filter(|&&letter| letter != 0)
    });
    letters.any(|&letter| letter == b'S')
}
