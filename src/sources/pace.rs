//! [`Pace`]: a rate with one number for each source (GCRA, the generic cell rate algorithm of ITU-T I.371).

use std::time::Duration;

/// A rate. Times are nanoseconds since the epoch of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The part of the source's allowance that each connection takes.
    gap: u64,
    /// The whole allowance.
    period: u64,
}

impl Pace {
    pub(super) fn new(connections: usize, period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX / 4);
        Self { gap: (period / connections.max(1) as u64).max(1), period }
    }

    /// Takes one connection of the allowance, which is whole again at `full_at`. Returns when it will be whole then;
    /// `None` if there is not enough left.
    pub(super) fn next(self, full_at: u64, now: u64) -> Option<u64> {
        let next = full_at.max(now).checked_add(self.gap)?;
        (next <= now.saturating_add(self.period)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_a_burst_may_come_and_then_one_in_each_part_of_the_period() {
        let pace = Pace::new(4, Duration::from_nanos(400));
        let mut full_at = 0;
        let mut comes = |now| pace.next(full_at, now).inspect(|next| full_at = *next).is_some();
        assert_eq!((0..6).filter(|_| comes(1000)).count(), 4);
        assert!(!comes(1099) && comes(1100) && !comes(1199) && comes(1200));
        assert_eq!((0..6).filter(|_| comes(5000)).count(), 4, "and no more after a longer pause");
    }

    #[test]
    fn a_clock_at_its_end_is_no_overflow() {
        let pace = Pace::new(1, Duration::from_secs(1 << 31));
        assert_eq!(pace.next(u64::MAX, u64::MAX), None);
        assert!(pace.next(0, u64::MAX / 2).is_some());
    }
}
