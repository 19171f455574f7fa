//! Names for addresses, from the image's symbol table. Only read when there is a crash to report.

use std::fs::File;

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, ReadCache, SymbolKind};

/// Longest name that a report shows.
const NAME_LIMIT: usize = 200;

/// The function that `addr` lies in, as `name+0x12`. `base` is where a position-independent program was loaded: its symbols
/// are relative to it. `None` without symbols, or when no function covers the address.
pub fn name(image: &File, addr: u64, base: u64) -> Option<String> {
    let cache = ReadCache::new(image);
    let elf: ElfFile64<'_, LittleEndian, _> = ElfFile64::parse(&cache).ok()?;
    let relative = addr.checked_sub(base).filter(|_| base != 0);
    [Some(addr), relative]
        .into_iter()
        .flatten()
        .find_map(|at| find(&elf, at))
}

fn find<'a>(elf: &ElfFile64<'a, LittleEndian, &'a ReadCache<&'a File>>, at: u64) -> Option<String> {
    let covers = |start: u64, size: u64| start <= at && at - start < size.max(1);
    let symbol = elf
        .symbols()
        .filter(|s| s.kind() == SymbolKind::Text && covers(s.address(), s.size()))
        .max_by_key(|s| s.address())?;
    let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
    let printable: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_LIMIT)
        .collect();
    Some(format!("{printable}+{:#x}", at - symbol.address()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn landmark() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn an_address_of_this_program_has_a_name() {
        let own = File::open("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let base = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
        assert_eq!(landmark(), 7);
        let found = name(&own, landmark as fn() -> u64 as usize as u64 + 1, base);
        assert!(
            found.as_ref().is_some_and(|n| n.ends_with("landmark+0x1")),
            "{found:?}"
        );
        assert_eq!(name(&own, 1, 0), None);
    }

    #[test]
    fn a_file_that_is_no_program_has_no_names() {
        assert_eq!(name(&File::open("/proc/self/maps").unwrap(), 1, 0), None);
        assert_eq!(name(&File::open("/dev/null").unwrap(), 1, 0), None);
    }
}
