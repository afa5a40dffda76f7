//! [`Prefixes`]: from an address to the key of its source.

use std::net::IpAddr;

use crate::config::PerSource;

/// The bits of an address that name its source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefixes {
    v4: u32,
    v6: u64,
}

impl Prefixes {
    pub(super) fn of(setting: &PerSource) -> Self {
        Self {
            v4: u32::MAX.checked_shl(32 - setting.ipv4_prefix.min(32)).unwrap_or(0),
            v6: u64::MAX.checked_shl(64 - setting.ipv6_prefix.min(64)).unwrap_or(0),
        }
    }

    /// Returns the key of the source: the prefix itself, so two sources never share one. An IPv4 prefix stands behind
    /// `ffff:0`, where IPv6 has multicast addresses, which are no sources.
    ///
    /// Zero marks a free place. So the bits are inverted: zero is a multicast prefix, and `::1` is not.
    pub(super) fn key(self, client: IpAddr) -> u64 {
        !match client.to_canonical() {
            IpAddr::V4(ip) => 0xffff_0000_0000_0000 | u64::from(u32::from(ip) & self.v4),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 & self.v6,
        }
    }
}
