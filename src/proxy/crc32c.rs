//! CRC-32C (Castagnoli), by which version 2 may protect its header.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82F6_3B78 } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// Returns the checksum of these pieces, one after the other.
pub(super) fn of(pieces: &[&[u8]]) -> u32 {
    let bytes = pieces.iter().flat_map(|piece| piece.iter());
    !bytes.fold(!0, |sum, byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    /// The values of RFC 3720, appendix B.4, and the usual check value.
    #[test]
    fn known_sums() {
        assert_eq!(super::of(&[b"12345", b"6789"]), 0xE306_9283);
        assert_eq!(super::of(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(super::of(&[&[0xFF; 32]]), 0x62A8_AB43);
    }
}
