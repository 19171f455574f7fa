//! The exit port: a 32-bit write ends the virtual machine (QEMU's `isa-debug-exit` with `iosize=4`).

/// What one guest write to the port says: the value, however wide the write was.
pub fn value(data: &[u8]) -> u32 {
    let mut bytes = [0u8; 4];
    let len = data.len().min(4);
    bytes[..len].copy_from_slice(&data[..len]);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn writes_of_every_width_have_a_value() {
        assert_eq!(super::value(&[]), 0);
        assert_eq!(super::value(&[7]), 7);
        assert_eq!(super::value(&[1, 2]), 0x201);
        assert_eq!(super::value(&[1, 0, 0, 0x80, 9]), 0x8000_0001);
    }
}
