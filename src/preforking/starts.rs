//! [`Starts`]: the rests after failed starts, and after early deaths without a request. Each worker's number
//! has its own, so none holds up another.
//!
//! A worker that dies after it has accepted is replaced at once. Its requests bound how often that happens,
//! and a rest would keep out the honest clients that wait behind a harmful one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A worker that was ready and has served nobody is replaced at once, unless it died young.
const YOUNG: Duration = Duration::from_millis(100);
/// Young deaths in a row that need no rest.
const MANY: u32 = 5;

/// The records of all workers, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Starts(HashMap<usize, Record>);

#[derive(Debug, Default)]
struct Record {
    /// Failed starts in a row.
    failures: u32,
    /// Young deaths in a row.
    young: u32,
    /// True if a worker has died, and none was ready since.
    has_died: bool,
    /// No start before this time.
    not_before: Option<Instant>,
}

impl Starts {
    /// Notes that a worker has become ready. Returns `true` if it replaces one that has died.
    pub(super) fn succeeded(&mut self, index: usize) -> bool {
        let record = self.0.entry(index).or_default();
        record.failures = 0;
        std::mem::take(&mut record.has_died)
    }

    /// Notes a failed start: the worker ended before it was ready, or could not be forked. Returns how many
    /// there were in a row.
    pub(super) fn failed(&mut self, index: usize, now: Instant) -> u32 {
        let record = self.0.entry(index).or_default();
        record.failures = record.failures.saturating_add(1);
        record.not_before = Some(now + rest_after(record.failures));
        record.failures
    }

    /// Notes the death of a worker that was ready, that lived for this time, and whether it `has_accepted` a
    /// request.
    pub(super) fn died(&mut self, index: usize, lived: Duration, has_accepted: bool, now: Instant) {
        let record = self.0.entry(index).or_default();
        record.has_died = true;
        let is_young = lived < YOUNG && !has_accepted;
        record.young = if is_young { record.young.saturating_add(1) } else { 0 };
        if record.young > MANY {
            record.not_before = Some(now + rest_after(record.young - MANY));
        }
    }

    /// Returns the time until a worker of this number may be started. `None`: it may be now.
    pub(super) fn rest(&self, index: usize, now: Instant) -> Option<Duration> {
        self.0.get(&index)?.rest(now)
    }

    /// Returns the time until the next rest is over. `None`: there is none.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.0.values().filter_map(|record| record.rest(now)).min()
    }
}

impl Record {
    fn rest(&self, now: Instant) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }
}

fn rest_after(failures: u32) -> Duration {
    LONGEST_REST.min(FIRST_REST * (1 << failures.saturating_sub(1).min(6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_from_a_second_to_a_minute_and_one_success_ends_them() {
        let (mut starts, mut now) = (Starts::default(), Instant::now());
        let mut rests = Vec::new();
        for attempt in 1..=8 {
            assert_eq!(starts.rest(0, now), None);
            assert_eq!(starts.failed(0, now), attempt);
            let rest = starts.rest(0, now).unwrap();
            rests.push(rest.as_secs());
            now += rest;
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        starts.succeeded(0);
        assert_eq!(starts.failed(0, now), 1);
    }

    #[test]
    fn a_worker_that_rests_holds_up_no_other() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        starts.failed(1, now);
        assert_eq!((starts.rest(0, now), starts.rest(1, now)), (None, Some(FIRST_REST)));
        starts.failed(2, now + FIRST_REST / 2);
        assert_eq!(starts.next(now + FIRST_REST / 2), Some(FIRST_REST / 2));
        assert_eq!(starts.next(now + 2 * FIRST_REST), None);
    }

    #[test]
    fn workers_that_die_at_once_again_and_again_are_given_a_rest() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        for _ in 0..MANY {
            starts.died(0, YOUNG / 2, false, now);
            starts.succeeded(0);
            assert_eq!(starts.rest(0, now), None, "replaced at once");
        }
        starts.died(0, YOUNG / 2, false, now);
        assert_eq!(starts.rest(0, now), Some(FIRST_REST));
        starts.died(0, YOUNG / 2, false, now);
        assert_eq!(starts.rest(0, now), Some(2 * FIRST_REST));
        starts.died(0, YOUNG, false, now + LONGEST_REST);
        assert_eq!(starts.rest(0, now + LONGEST_REST), None);
    }

    #[test]
    fn a_worker_that_dies_in_a_request_is_replaced_at_once_however_often() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        for _ in 0..100 {
            starts.died(0, Duration::ZERO, true, now);
            assert_eq!(starts.rest(0, now), None);
        }
        (0..MANY).for_each(|_| starts.died(0, Duration::ZERO, false, now));
        starts.died(0, Duration::ZERO, true, now);
        starts.died(0, Duration::ZERO, false, now);
        assert_eq!(starts.rest(0, now), None, "the deaths without a request are no longer in a row");
    }
}
