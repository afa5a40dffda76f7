//! A token bucket: a number of bytes a second, for one connection or for several together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The most bytes that a connection is granted at once while others wait.
const LARGEST: u64 = 64 << 10;
/// Grants a second, so that a slow rate does not come in lumps.
const GRANTS: u64 = 100;

/// How many bytes may pass in a second, by [`Transport::limit_reading`](crate::Transport::limit_reading) and
/// [`limit_writing`](crate::Transport::limit_writing).
///
/// It is a bucket of tokens, a byte each, which fills at the rate, up to the burst. In any time `t`, at most
/// `burst + rate * t` bytes pass. A clone is the same bucket, so connections with clones share the rate. Those that
/// wait get equal parts of it in turn, whichever loop they belong to. No timer runs for a connection that has nothing
/// to read or to send.
///
/// ```
/// use std::time::Duration;
/// use socketserver::testing::TestLoop;
/// use socketserver::{HandlerResult, Protocol, Transport};
/// use socketserver::event_loop::RateLimit;
///
/// struct Slow(RateLimit);
/// impl Protocol for Slow {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
///         transport.limit_writing(&self.0);
///         Ok(transport.write(&[b'x'; 3000])?)
///     }
///     fn data_received(
///         &mut self,
///         _transport: &mut Transport<'_>,
///         _data: &[u8],
///     ) -> HandlerResult {
///         Ok(())
///     }
/// }
///
/// let mut test = TestLoop::new()?;
/// let limit = RateLimit::new(1000);
/// let client = test.connect(Slow(limit.clone()));
/// assert_eq!(test.output(client).len(), 1000);                 // the burst
/// test.advance(Duration::from_millis(500));
/// assert_eq!(test.output(client).len(), 500);
/// test.advance(Duration::from_secs(60));
/// assert_eq!(test.output(client).len(), 1500);
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RateLimit(Arc<Mutex<Bucket>>);

#[derive(Debug)]
struct Bucket {
    rate: u64,
    burst: u64,
    /// When the bucket will be full. The bytes missing until then are taken, or granted in advance.
    full: Option<Instant>,
}

impl RateLimit {
    /// Makes a full bucket with this rate. Its burst, the bytes that pass at once after silence, is the same number. A
    /// rate of 0 counts as 1.
    pub fn new(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second.max(1);
        Self(Arc::new(Mutex::new(Bucket { rate, burst: rate, full: None })))
    }

    /// Sets another burst, at least 1, for all clones. A small burst gives an even flow. A large one suits connections
    /// that are silent for long.
    #[must_use]
    pub fn burst(self, bytes: u64) -> Self {
        self.0.lock().burst = bytes.max(1);
        self
    }

    /// True if both are the same bucket.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes what is there, up to `most`. It takes nothing if that is less than a grant, so that connections in line
    /// have their turn.
    pub(crate) fn take(&self, now: Instant, most: usize) -> usize {
        let mut bucket = self.0.lock();
        let most = most as u64;
        // Connections in line have taken their bytes in advance, so the level is low while any waits.
        let there = bucket.level(now);
        if there < bucket.grant().min(most) {
            return 0;
        }
        let taken = there.min(most);
        bucket.spend(now, taken);
        taken as usize
    }

    /// Takes a grant, up to `most`, in advance. Returns its size, and how long the connection must wait for it.
    pub(crate) fn reserve(&self, now: Instant, most: usize) -> (usize, Duration) {
        let mut bucket = self.0.lock();
        let granted = bucket.grant().min(most as u64).max(1);
        bucket.spend(now, granted);
        (granted as usize, bucket.debt(now))
    }

    /// Gives back what was taken and is not used.
    pub(crate) fn give_back(&self, unused: usize) {
        let mut bucket = self.0.lock();
        let time = bucket.time_of(unused as u64, false);
        bucket.full = bucket.full.and_then(|full| full.checked_sub(time));
    }
}

impl Bucket {
    /// Returns how many bytes are worth a turn.
    fn grant(&self) -> u64 {
        (self.rate / GRANTS).clamp(1, LARGEST).min(self.burst)
    }

    /// Returns how long the bucket takes to fill by `bytes`; never too short, or never too long.
    fn time_of(&self, bytes: u64, round_up: bool) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000;
        let rate = u128::from(self.rate);
        let time = if round_up { nanos.div_ceil(rate) } else { nanos / rate };
        Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// Returns how long it takes until the bucket is full.
    fn missing(&self, now: Instant) -> Duration {
        self.full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now))
    }

    /// Returns the tokens that are there.
    fn level(&self, now: Instant) -> u64 {
        let missing = (self.missing(now).as_nanos() * u128::from(self.rate)).div_ceil(1_000_000_000);
        self.burst.saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    fn spend(&mut self, now: Instant, bytes: u64) {
        let full = self.full.filter(|full| *full > now).unwrap_or(now);
        self.full = Some(full.checked_add(self.time_of(bytes, true)).unwrap_or(full));
    }

    /// Returns how long it takes until everything that was taken is there.
    fn debt(&self, now: Instant) -> Duration {
        self.missing(now).saturating_sub(self.time_of(self.burst, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (limit, start) = (RateLimit::new(1000).burst(300), Instant::now());
        assert_eq!((limit.take(start, 200), limit.take(start, 200), limit.take(start, 200)), (200, 100, 0));
        assert_eq!(limit.take(start + 9 * MS, 200), 0, "less than is worth it");
        assert_eq!(limit.take(start + 9 * MS, 9), 9, "but it is all that is wanted");
        assert_eq!(limit.take(start + 109 * MS, 200), 100);
        assert_eq!(limit.take(start + 100 * SECOND, 1000), 300, "no more than the burst");
    }

    #[test]
    fn what_is_reserved_comes_in_turn() {
        let (limit, start) = (RateLimit::new(1000).burst(10), Instant::now());
        assert_eq!(limit.take(start, 10), 10);
        let waits: Vec<_> = (0..3).map(|_| limit.reserve(start, 64)).collect();
        assert_eq!(waits, [(10, 10 * MS), (10, 20 * MS), (10, 30 * MS)]);
        assert_eq!(limit.take(start + 30 * MS, 1), 0, "all of it is granted");
        limit.give_back(4);
        assert_eq!(limit.take(start + 30 * MS, 4), 4);
        assert_eq!(limit.reserve(start + 30 * MS, 3), (3, 3 * MS));
    }

    #[test]
    fn in_any_time_no_more_passes_than_the_burst_and_the_rate() {
        for (rate, burst) in [(1, 1), (7, 3), (1000, 1), (1_000_003, 5000), (u64::MAX, 1 << 20)] {
            let (limit, start) = (RateLimit::new(rate).burst(burst), Instant::now());
            let (mut passed, mut now) = (0u128, start);
            for step in 0..2000u64 {
                let n = limit.take(now, 1 + (step as usize * 37) % 5000);
                let unused = n / 3;
                limit.give_back(unused);
                passed += (n - unused) as u128;
                if n == 0 {
                    let (granted, wait) = limit.reserve(now, 100);
                    now += wait;
                    passed += granted as u128;
                }
                let may = u128::from(burst) + u128::from(rate) * (now - start).as_nanos() / 1_000_000_000;
                assert!(passed <= may, "{rate} {burst}: {passed} > {may} after {:?}", now - start);
                now += Duration::from_nanos(step * 999);
            }
            let least = u128::from(rate) * (now - start).as_nanos() / 2_000_000_000;
            assert!(passed > 0 && (rate > 1_000_000 || passed >= least / 2), "{rate} {burst}: only {passed}");
        }
    }

    #[test]
    fn no_rate_is_a_byte_a_second() {
        let (limit, start) = (RateLimit::new(0).burst(0), Instant::now());
        assert_eq!((limit.take(start, 5), limit.take(start, 5)), (1, 0));
        assert_eq!(limit.reserve(start, 5), (1, SECOND));
    }
}
