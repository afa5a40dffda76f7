//! [`Times`]: how long connections took, in a histogram of fixed size without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The octaves of a histogram: from 8 microseconds to 2^34, which is 4 hours and 46 minutes.
const OCTAVES: usize = 31;
/// The buckets of an octave. So a bucket is at most an eighth of its times wide.
const PARTS: usize = 8;
const BUCKETS: usize = PARTS + OCTAVES * PARTS;

/// How long connections took, from the accept to the close, those without a handler left out.
///
/// The server counts into a histogram, which has 2 KiB in all. A percentile is never lower than the true one, and at
/// most an eighth (12.5 %) and a microsecond higher. Times above 4 hours and 46 minutes count as that long. Only
/// [`longest`](Self::longest) has its true value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Times {
    /// The number of connections. 0 without an [`Observer`](crate::Observer): then nothing is measured, and all others
    /// are zero.
    pub count: u64,
    /// The sum of their times.
    pub sum: Duration,
    /// Half of the connections took no longer.
    pub p50: Duration,
    /// Of 100 connections, 90 took no longer.
    pub p90: Duration,
    /// Of 100 connections, 99 took no longer.
    pub p99: Duration,
    /// Of 1000 connections, 999 took no longer.
    pub p999: Duration,
    /// The longest time.
    pub longest: Duration,
}

/// The histogram of a process, in memory that its parent sees too.
#[derive(Debug)]
pub(crate) struct TimeCounters {
    buckets: [AtomicU64; BUCKETS],
    /// In microseconds.
    sum: AtomicU64,
    longest: AtomicU64,
}

impl Default for TimeCounters {
    fn default() -> Self {
        let buckets = [const { AtomicU64::new(0) }; BUCKETS];
        Self { buckets, sum: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }
}

impl TimeCounters {
    pub(crate) fn count(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros)].fetch_add(1, Relaxed);
        self.sum.fetch_add(micros, Relaxed);
        self.longest.fetch_max(micros, Relaxed);
    }

    pub(crate) fn reset(&self) {
        self.buckets.iter().chain([&self.sum, &self.longest]).for_each(|counter| counter.store(0, Relaxed));
    }

    /// Returns the times of all these histograms together. (A worker that was taken over may have written any number.)
    pub(crate) fn together<'a>(all: impl Iterator<Item = &'a Self>) -> Times {
        let (mut buckets, mut sum, mut longest) = ([0u64; BUCKETS], 0u64, 0);
        for one in all {
            let counts = buckets.iter_mut().zip(&one.buckets);
            counts.for_each(|(count, more)| *count = count.saturating_add(more.load(Relaxed)));
            sum = sum.saturating_add(one.sum.load(Relaxed));
            longest = one.longest.load(Relaxed).max(longest);
        }
        let count = buckets.iter().fold(0u64, |all, count| all.saturating_add(*count));
        let of_thousand = |n: u128| {
            let rank = (u128::from(count) * n).div_ceil(1000);
            let mut below = 0u128;
            let reaches = |count: &u64| {
                below += u128::from(*count);
                below >= rank
            };
            let micros = buckets.iter().position(reaches).map_or(0, end_of);
            Duration::from_micros(micros.min(longest))
        };
        Times {
            count,
            sum: Duration::from_micros(sum),
            p50: of_thousand(500),
            p90: of_thousand(900),
            p99: of_thousand(990),
            p999: of_thousand(999),
            longest: Duration::from_micros(longest),
        }
    }
}

/// Returns the bucket of a time: the first ones have a microsecond each, then each octave has as many.
fn bucket_of(micros: u64) -> usize {
    let Some(octave) = (micros as usize / PARTS).checked_ilog2() else { return micros as usize };
    let octave = octave as usize;
    (PARTS + octave * PARTS + (micros >> octave) as usize - PARTS).min(BUCKETS - 1)
}

/// Returns the longest time of a bucket, in microseconds.
fn end_of(bucket: usize) -> u64 {
    let Some(octave) = (bucket / PARTS).checked_sub(1) else { return bucket as u64 };
    (((bucket % PARTS + PARTS + 1) as u64) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_an_eighth_wide_at_most() {
        let mut last = 0;
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket);
            assert_eq!((bucket_of(end), bucket_of(end + 1)), (bucket, bucket + 1), "{end} µs");
            assert!(bucket == 0 || end - last <= 1 + end / 8, "from {last} to {end} µs");
            last = end;
        }
        assert_eq!((bucket_of(u64::MAX), bucket_of(0)), (BUCKETS - 1, 0));
    }

    #[test]
    fn percentiles_are_never_too_low_and_an_eighth_too_high_at_most() {
        let (one, other) = (TimeCounters::default(), TimeCounters::default());
        for ms in 1..=1000 {
            let half = if ms % 2 == 0 { &one } else { &other };
            half.count(Duration::from_millis(ms));
        }
        let times = TimeCounters::together([&one, &other].into_iter());
        assert_eq!((times.count, times.sum, times.longest.as_millis()), (1000, Duration::from_millis(500_500), 1000));
        for (found, ms) in [(times.p50, 500), (times.p90, 900), (times.p99, 990), (times.p999, 999)] {
            let exact = Duration::from_millis(ms);
            assert!(found >= exact && found <= exact + exact / 8 + Duration::from_micros(1), "{found:?} for {exact:?}");
        }
        assert_eq!(TimeCounters::together([].into_iter()), Times::default());
    }

    #[test]
    fn one_time_is_each_percentile_and_a_time_too_long_is_the_longest() {
        let counters = TimeCounters::default();
        counters.count(Duration::from_micros(3));
        let times = TimeCounters::together([&counters].into_iter());
        assert_eq!((times.p50, times.p999), (Duration::from_micros(3), Duration::from_micros(3)));
        counters.reset();
        counters.count(Duration::from_secs(1_000_000));
        let times = TimeCounters::together([&counters].into_iter());
        assert_eq!((times.count, times.longest), (1, Duration::from_secs(1_000_000)));
        assert!(times.p50 > Duration::from_secs(17_000) && times.p50 < Duration::from_secs(18_000), "{:?}", times.p50);
    }
}
