//! [`PerSource`]: the limits of one source.

use std::time::Duration;

use super::settings::check_needed_time;
use crate::error::{Error, Result};

/// How many connections one source may have, and how fast it may connect: the setting of
/// [`ServerBuilder::per_source`](crate::ServerBuilder::per_source).
///
/// A source is an IPv4 address, or a /64 of IPv6: what one subscriber usually has. Set
/// [`at_once`](Self::at_once), [`rate`](Self::rate) or both.
///
/// ```
/// use std::time::Duration;
/// use socketserver::{handler, PerSource, ServerBuilder};
///
/// let server = ServerBuilder::new()
///     .per_source(PerSource::new().at_once(20).rate(10, Duration::from_secs(1)))
///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")))?;
/// # drop(server);
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it is a value; give it to ServerBuilder::per_source"]
pub struct PerSource {
    pub(crate) at_once: Option<usize>,
    pub(crate) rate: Option<(usize, Duration)>,
    pub(crate) ipv4_prefix: u32,
    pub(crate) ipv6_prefix: u32,
    pub(crate) memory: usize,
}

impl Default for PerSource {
    fn default() -> Self {
        Self { at_once: None, rate: None, ipv4_prefix: 32, ipv6_prefix: 64, memory: 16 << 20 }
    }
}

/// The least and the most memory of a table.
const MEMORY: std::ops::RangeInclusive<usize> = 64 << 10..=1 << 30;

impl PerSource {
    /// Makes the setting, still without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most connections that a source has at once. A connection counts until the server has closed it. So a
    /// client that reconnects at the end of each reply needs 2 at least. Many clients may share an address, behind
    /// one router: 20 suits most. Defaults to no limit. 0 is an error when the server is bound.
    pub fn at_once(mut self, connections: usize) -> Self {
        self.at_once = Some(connections);
        self
    }

    /// Sets how many connections a source may make in each `period`. After a pause, that many may come in one moment;
    /// from then on, one in each fraction of the period (the algorithm is GCRA). A connection that is refused does not
    /// count. Defaults to no limit. 0, a period of zero, and more than one in a nanosecond are errors when the server
    /// is bound.
    pub fn rate(mut self, connections: usize, period: Duration) -> Self {
        self.rate = Some((connections, period));
        self
    }

    /// Sets how many bits of an IPv4 address name its source: from 1 to 32. Defaults to 32.
    pub fn ipv4_prefix(mut self, bits: u32) -> Self {
        self.ipv4_prefix = bits;
        self
    }

    /// Sets how many bits of an IPv6 address name its source: from 1 to 64. Defaults to 64, because a subscriber has
    /// at least all addresses of a /64. All link-local hosts (`fe80::/64`) are one source.
    pub fn ipv6_prefix(mut self, bits: u32) -> Self {
        self.ipv6_prefix = bits;
        self
    }

    /// Sets how much memory remembers the sources, in bytes: from 64 KiB to 1 GiB. A source and a connection take 33
    /// bytes together. Defaults to 16 MiB: 500,000 sources. It is mapped when the server is bound, and taken from the
    /// system page by page, as sources come.
    ///
    /// A new source takes the place of one that is not connected: the one that has been away for the longest time. A
    /// source that is connected keeps its place. A source has eight possible places. If connected sources have all of
    /// them, its connection is served and not counted ([`SourceCounts::uncounted`](crate::SourceCounts::uncounted));
    /// `max_connections` still holds. So give room for four times the connections.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::setting("per_source", why));
        if self.at_once.is_none() && self.rate.is_none() {
            return wrong("it sets no limit; add at_once or rate".to_owned());
        }
        match self.at_once {
            Some(0) => return wrong("at_once(0) would refuse every client; give at least 1".to_owned()),
            Some(n) if i32::try_from(n).is_err() => {
                return wrong(format!("at_once({n}) is more than a system can have; give {} at most", i32::MAX))
            }
            _ => {}
        }
        if let Some((connections, period)) = self.rate {
            if connections == 0 {
                return wrong(format!("rate(0, {period:?}) would refuse every client; give at least 1"));
            }
            check_needed_time("per_source", period)?;
            if connections as u128 > period.as_nanos() {
                return wrong(format!("rate({connections}, {period:?}) is more than one in a nanosecond; give less"));
            }
        }
        for (name, bits, most) in [("ipv4_prefix", self.ipv4_prefix, 32), ("ipv6_prefix", self.ipv6_prefix, 64)] {
            if !(1..=most).contains(&bits) {
                return wrong(format!("{name}({bits}) is not from 1 to {most}"));
            }
        }
        if !MEMORY.contains(&self.memory) {
            return wrong(format!("memory({}) is not from 64 KiB to 1 GiB", self.memory));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::LONGEST;
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        let second = Duration::from_secs(1);
        let some = PerSource::new().at_once(1);
        for (setting, why) in [
            (PerSource::new(), "sets no limit"),
            (PerSource::new().at_once(0), "at_once(0)"),
            (PerSource::new().at_once(usize::MAX), "more than a system can have"),
            (PerSource::new().rate(0, second), "rate(0, 1s)"),
            (PerSource::new().rate(1, Duration::ZERO), "a time of zero"),
            (PerSource::new().rate(1, LONGEST + second), "68 years"),
            (PerSource::new().rate(11, Duration::from_nanos(10)), "one in a nanosecond"),
            (some.ipv4_prefix(0), "ipv4_prefix(0)"),
            (some.ipv4_prefix(33), "ipv4_prefix(33)"),
            (some.ipv6_prefix(65), "ipv6_prefix(65)"),
            (some.memory(0), "memory(0)"),
            (some.memory((1 << 30) + 1), "1 GiB"),
        ] {
            let error = setting.check().unwrap_err().to_string();
            assert!(error.contains("per_source") && error.contains(why), "{error}");
        }
        assert!(some.rate(10, Duration::from_nanos(10)).memory(64 << 10).ipv4_prefix(1).check().is_ok());
    }
}
