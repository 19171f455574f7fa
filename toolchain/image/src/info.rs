//! [`ImageInfo`] to bytes and back, field by field in the order of its definition (little endian, no padding).

use unik_abi::image::{ImageInfo, MAX_SEGMENTS, Segment};

/// The bytes that the library OS finds in memory as an [`ImageInfo`].
pub fn to_bytes(info: &ImageInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(size_of::<ImageInfo>());
    let mut put = |value: u64| out.extend_from_slice(&value.to_le_bytes());
    put(info.magic);
    put(pair(info.abi_version, info.pie));
    put(info.phys_end);
    put(info.pml4_paddr);
    put(info.boot_pml4_paddr);
    put(info.entry);
    put(info.phdr_vaddr);
    put(pair(info.phent, info.phnum));
    put(info.program_end);
    put(info.vdso_paddr);
    put(info.vdso_len);
    put(info.files_paddr);
    put(info.files_len);
    put(info.index_paddr);
    put(info.index_len);
    put(info.manifest_paddr);
    put(info.manifest_len);
    put(info.segment_count);
    for segment in &info.segments {
        put(segment.vaddr);
        put(segment.paddr);
        put(segment.image_len);
        put(segment.mem_len);
        put(pair(segment.flags, segment.reserved));
    }
    put(info.align);
    put(info.exec_stack);
    out
}

/// Two neighbouring 4-byte fields as one 8-byte number.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Undoes [`to_bytes`]; `None` when there are too few bytes.
pub fn from_bytes(bytes: &[u8]) -> Option<ImageInfo> {
    let mut words = bytes
        .get(..size_of::<ImageInfo>())?
        .as_chunks::<8>()
        .0
        .iter()
        .map(|w| u64::from_le_bytes(*w));
    let mut next = || words.next();
    let mut info = ImageInfo {
        magic: next()?,
        ..ImageInfo::default()
    };
    (info.abi_version, info.pie) = halves(next()?);
    info.phys_end = next()?;
    info.pml4_paddr = next()?;
    info.boot_pml4_paddr = next()?;
    info.entry = next()?;
    info.phdr_vaddr = next()?;
    (info.phent, info.phnum) = halves(next()?);
    info.program_end = next()?;
    info.vdso_paddr = next()?;
    info.vdso_len = next()?;
    info.files_paddr = next()?;
    info.files_len = next()?;
    info.index_paddr = next()?;
    info.index_len = next()?;
    info.manifest_paddr = next()?;
    info.manifest_len = next()?;
    info.segment_count = next()?;
    let mut segments = [Segment::default(); MAX_SEGMENTS];
    for segment in &mut segments {
        *segment = Segment {
            vaddr: next()?,
            paddr: next()?,
            image_len: next()?,
            mem_len: next()?,
            ..Segment::default()
        };
        (segment.flags, segment.reserved) = halves(next()?);
    }
    info.segments = segments;
    info.align = next()?;
    info.exec_stack = next()?;
    Some(info)
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_goes_to_its_place_and_back() {
        let bytes: Vec<u8> = (0..size_of::<ImageInfo>())
            .map(|i| (i * 7 % 251) as u8)
            .collect();
        let info = from_bytes(&bytes).unwrap();
        assert_eq!(to_bytes(&info), bytes);
        assert_eq!(
            info.segments[1].mem_len,
            u64::from_le_bytes(bytes[144 + 40 + 24..][..8].try_into().unwrap())
        );
        assert!(from_bytes(&bytes[1..]).is_none());
    }
}
