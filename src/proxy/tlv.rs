//! The TLVs (type, length, value) of version 2: what a proxy tells besides the addresses.

use super::parse::ProxyError;

pub(super) const ALPN: u8 = 0x01;
pub(super) const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
pub(super) const UNIQUE_ID: u8 = 0x05;
pub(super) const TLS: u8 = 0x20;
pub(super) const TLS_VERSION: u8 = 0x21;
pub(super) const TLS_COMMON_NAME: u8 = 0x22;
pub(super) const TLS_CIPHER: u8 = 0x23;

/// The length of the fixed fields of the TLS value: one byte of flags, four of the verification's result.
pub(super) const TLS_FIXED: usize = 5;

/// Iterates over TLVs. It ends at the first one that is cut off.
#[derive(Debug, Clone)]
pub(super) struct Tlvs<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, high, low, rest @ ..] = self.0 else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > rest.len() {
            return None;
        }
        let (value, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*kind, value))
    }
}

/// Returns the value of the first TLV of this type.
pub(super) fn find(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    Tlvs(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Checks that all TLVs are whole, those within the TLS value too.
pub(super) fn check(bytes: &[u8]) -> Result<(), ProxyError> {
    let mut tlvs = Tlvs(bytes);
    for (kind, value) in tlvs.by_ref() {
        let is_right = match kind {
            TLS => value.get(TLS_FIXED..).is_some_and(is_whole),
            CRC32C => value.len() == 4,
            UNIQUE_ID => value.len() <= 128,
            _ => true,
        };
        if !is_right {
            return Err(ProxyError::Tlv);
        }
    }
    if tlvs.0.is_empty() {
        Ok(())
    } else {
        Err(ProxyError::Tlv)
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let mut tlvs = Tlvs(bytes);
    tlvs.by_ref().for_each(drop);
    tlvs.0.is_empty()
}
