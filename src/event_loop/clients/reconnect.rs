//! When to connect again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use crate::event_loop::primitives::timers::NEVER;

/// How a client connects again automatically, after a failed attempt or a lost connection (Twisted's
/// `ReconnectingClientFactory`). The delay grows from attempt to attempt, up to a limit. After a connection that has
/// held, it begins anew.
///
/// ```
/// use std::time::Duration;
/// use socketserver::event_loop::Reconnect;
///
/// let patient = Reconnect::new()
///     .initial_delay(Duration::from_millis(100))
///     .max_delay(Duration::from_secs(5))
///     .jitter(0.0);
/// // 100 ms, 272 ms, 739 ms, 2 s, 5 s, 5 s, ...
/// # let _ = patient;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Reconnect {
    initial_delay: Duration,
    factor: f64,
    max_delay: Duration,
    jitter: f64,
    max_retries: Option<u32>,
    stable_after: Duration,
}

impl Reconnect {
    /// The defaults: 1 s, 2.7 s, 7.4 s, 20 s, 55 s, then every 60 s, each up to a quarter shorter, without an end.
    #[allow(clippy::new_without_default)] // a policy is chosen
    pub fn new() -> Self {
        Self {
            initial_delay: Duration::from_secs(1),
            factor: std::f64::consts::E,
            max_delay: Duration::from_secs(60),
            jitter: 0.25,
            max_retries: None,
            stable_after: Duration::from_secs(10),
        }
    }

    /// Sets the first delay. Defaults to 1 s.
    pub fn initial_delay(mut self, delay: Duration) -> Self {
        self.initial_delay = delay;
        self
    }

    /// Sets by what each delay is multiplied for the next. A value below 1, or NaN, counts as 1. Defaults to e, 2.718,
    /// as Twisted's.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0); // of a number and NaN, the number
        self
    }

    /// Sets the longest delay. Defaults to 60 s. (Twisted's is an hour, a long wait for a server that is back.)
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets the part by which a delay may be shorter, at random. So the clients of a server that was away do not come
    /// back all at once. 0 keeps each delay, 1 allows any shorter one. Defaults to 0.25.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self
    }

    /// Sets how many attempts in a row may follow the first failure or loss. Then the client gives up. Defaults to no
    /// limit.
    pub fn max_retries(mut self, attempts: u32) -> Self {
        self.max_retries = Some(attempts);
        self
    }

    /// Sets how long a connection must hold before delays and attempts are counted anew. If it ends sooner, it counts
    /// as another failure. So a server that accepts and hangs up is not called in a tight loop. Defaults to 10 s.
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// True if a connection has held long enough to begin the count anew.
    pub(crate) fn is_stable(&self, held: Duration) -> bool {
        held >= self.stable_after
    }

    /// Returns the delay before the next attempt, after `retries` in a row; `None` if no more follow.
    pub(crate) fn delay(&self, retries: u32) -> Option<Duration> {
        if self.max_retries.is_some_and(|most| retries >= most) {
            return None;
        }
        if self.initial_delay.is_zero() {
            return Some(Duration::ZERO); // times an infinite factor, it would be NaN
        }
        let most = self.max_delay.min(NEVER);
        // `powf` is in libm, whose five mappings each fork of a program would copy.
        let factor = self.factor.powi(i32::try_from(retries).unwrap_or(i32::MAX));
        let grown = self.initial_delay.min(most).as_secs_f64() * factor;
        let shortened = grown.min(most.as_secs_f64()) * (1.0 - self.jitter * chance());
        Some(Duration::try_from_secs_f64(shortened).map_or(most, |delay| delay.min(most)))
    }
}

/// Returns a random number from 0 up to 1: each `RandomState` has other keys.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(policy: Reconnect, n: u32) -> Vec<u128> {
        (0..n).filter_map(|retries| policy.delay(retries)).map(|delay| delay.as_millis()).collect()
    }

    /// Twisted's own, with its cap.
    #[test]
    fn delays_grow_by_the_factor_up_to_the_cap() {
        let twisted = Reconnect::new().jitter(0.0).max_delay(Duration::from_secs(3600));
        let expected = [1000, 2718, 7389, 20_085, 54_598, 148_413, 403_428, 1_096_633, 2_980_957, 3_600_000, 3_600_000];
        assert_eq!(delays(twisted, 11), expected);
        assert_eq!(delays(Reconnect::new().jitter(0.0), 6), [1000, 2718, 7389, 20_085, 54_598, 60_000]);
    }

    #[test]
    fn jitter_shortens_only_and_stays_within_its_part() {
        let (plain, jittered) = (Reconnect::new().jitter(0.0), Reconnect::new());
        let mut all = std::collections::HashSet::new();
        for retries in (0..1000).map(|n| n % 8) {
            let (most, delay) = (plain.delay(retries).unwrap(), jittered.delay(retries).unwrap());
            assert!(delay <= most && delay >= most.mul_f64(0.75 - 1e-9), "{retries}: {delay:?} of {most:?}");
            all.insert(delay);
        }
        assert!(all.len() > 900, "{} of 1000 differ", all.len());
    }

    #[test]
    fn no_setting_makes_a_delay_negative_longer_than_the_cap_or_no_number() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300];
        for (factor, jitter) in odd.iter().flat_map(|f| odd.iter().map(move |j| (*f, *j))) {
            let policy = Reconnect::new().factor(factor).jitter(jitter);
            for retries in [0, 1, 1000, u32::MAX] {
                assert!(policy.delay(retries).unwrap() <= Duration::from_secs(60), "{factor} {jitter} {retries}");
            }
        }
        let at_once = Reconnect::new().initial_delay(Duration::ZERO);
        assert!([0, 1, 710, u32::MAX].iter().all(|retries| at_once.delay(*retries) == Some(Duration::ZERO)));
        assert!(Reconnect::new().initial_delay(Duration::MAX).max_delay(Duration::MAX).delay(9).unwrap() <= NEVER);
    }

    #[test]
    fn attempts_in_a_row_have_a_limit() {
        let policy = Reconnect::new().jitter(0.0).max_retries(3);
        assert_eq!(delays(policy, 10), [1000, 2718, 7389]);
        assert_eq!(Reconnect::new().max_retries(0).delay(0), None);
    }
}
