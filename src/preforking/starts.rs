//! How often, and how soon after a failure, a worker is started.

use std::time::{Duration, Instant};

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Workers that ended before they were ready, one after another. Those of one attempt count once.
#[derive(Debug, Default)]
pub(super) struct Starts {
    in_a_row: u32,
    failed_at: Option<Instant>,
    not_before: Option<Instant>,
}

impl Starts {
    /// Somebody has become ready.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// One that was started at that time has failed: how many attempts have, if it is the first of its attempt.
    pub(super) fn failed(&mut self, started: Instant, now: Instant) -> Option<u32> {
        if self.failed_at.is_some_and(|at| started < at) {
            return None;
        }
        let rest = LONGEST_REST.min(FIRST_REST * (1 << self.in_a_row.min(6)));
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.failed_at = Some(now);
        self.not_before = Some(now + rest);
        Some(self.in_a_row)
    }

    /// How long until a worker may be started; `None`: it may now.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        self.not_before.map(|at| at.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_from_a_second_to_a_minute_and_one_success_ends_them() {
        let (mut starts, mut now) = (Starts::default(), Instant::now());
        let mut rests = Vec::new();
        for attempt in 1..=8 {
            assert_eq!(starts.rest(now), None);
            assert_eq!(starts.failed(now, now), Some(attempt));
            let rest = starts.rest(now).unwrap();
            rests.push(rest.as_secs());
            now += rest;
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        starts.failed(now, now);
        starts.succeeded();
        assert_eq!(starts.rest(now), None);
        assert_eq!(starts.failed(now, now), Some(1));
    }

    #[test]
    fn those_that_were_started_together_fail_once() {
        let (mut starts, began) = (Starts::default(), Instant::now());
        let later = began + Duration::from_millis(5);
        assert_eq!(starts.failed(began, later), Some(1));
        assert_eq!(starts.failed(began, later), None);
        assert_eq!(starts.rest(later), Some(Duration::from_secs(1)));
        assert_eq!(starts.failed(later + Duration::from_secs(1), later + Duration::from_secs(1)), Some(2));
    }
}
