//! The addresses that a position-independent program's relocations store in its memory: every absolute address it knows.
//!
//! Source: System V ABI AMD64 supplement, chapter 4 "Relocation"; the generic ABI's DT_RELR encoding.

use std::collections::HashMap;

use object::LittleEndian as LE;
use object::elf::{self, ProgramHeader64};

use super::{ElfError, Program, header};

const RELA_LEN: usize = 24;

/// All addends of DT_RELA and DT_JMPREL and all words that DT_RELR names; nothing for a program at a fixed address.
pub fn pointers(
    program: &Program<'_>,
    phdrs: &[ProgramHeader64<LE>],
    bytes: &[u8],
) -> Result<Vec<u64>, ElfError> {
    if !program.pie {
        return Ok(Vec::new());
    }
    let entries = header::dynamic(phdrs, bytes)?
        .iter()
        .take_while(|d| d.d_tag.get(LE) != elf::DT_NULL);
    let values: HashMap<i64, u64> = entries
        .map(|d| (d.d_tag.get(LE).0, d.d_val.get(LE)))
        .collect();
    let table = |at: elf::DynamicTag, len: elf::DynamicTag| {
        let (Some(&at), Some(&len)) = (values.get(&at.0), values.get(&len.0)) else {
            return Ok(&[][..]);
        };
        let found = usize::try_from(len)
            .ok()
            .and_then(|len| program.bytes_at(at, len));
        found.or((len == 0).then_some(&[])).ok_or(ElfError::Damaged(
            "its relocations lie outside its segments",
        ))
    };
    let mut pointers = addends(table(elf::DT_RELA, elf::DT_RELASZ)?);
    pointers.extend(addends(table(elf::DT_JMPREL, elf::DT_PLTRELSZ)?));
    let places = packed(table(elf::DT_RELR, elf::DT_RELRSZ)?);
    pointers.extend(
        places
            .filter_map(|at| program.bytes_at(at, 8)?.first_chunk().copied())
            .map(u64::from_le_bytes),
    );
    Ok(pointers)
}

fn addends(table: &[u8]) -> Vec<u64> {
    let addend = |entry: &[u8; RELA_LEN]| entry.last_chunk().copied().map_or(0, u64::from_le_bytes);
    table.as_chunks().0.iter().map(addend).collect()
}

/// The places that a DT_RELR table names: an even entry is a place, an odd one a map of the 63 words that follow.
fn packed(table: &[u8]) -> impl Iterator<Item = u64> {
    let mut next = 0u64;
    table.as_chunks().0.iter().flat_map(move |entry| {
        let entry = u64::from_le_bytes(*entry);
        let (base, map) = if entry & 1 == 0 {
            (entry, 1)
        } else {
            (next, entry >> 1)
        };
        next = base.wrapping_add(if entry & 1 == 0 { 8 } else { 63 * 8 });
        (0..63u64)
            .filter(move |bit| map >> bit & 1 != 0)
            .map(move |bit| base.wrapping_add(8 * bit))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn relr_names_places_and_maps_of_words() {
        let words = [0x1000u64, 0b1011, 1 | 1 << 63, 0x4000];
        let table: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let places: Vec<u64> = super::packed(&table).collect();
        assert_eq!(
            places,
            [0x1000, 0x1008, 0x1018, 0x1008 + 63 * 8 + 62 * 8, 0x4000]
        );
    }
}
