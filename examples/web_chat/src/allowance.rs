//! How much a member may say.

use std::time::{Duration, Instant};

/// So many messages in a second; the first one of a second begins it.
pub struct Allowance {
    most: u32,
    since: Instant,
    said: u32,
}

impl Allowance {
    pub const PER_SECOND: u32 = 20;

    pub fn new(most: u32) -> Self {
        Self { most, since: Instant::now(), said: 0 }
    }

    /// Counts a message that comes now. False if it is one too many.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.said) = (now, 0);
        }
        self.said += 1;
        self.said <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_messages() {
        let mut allowance = Allowance::new(2);
        let start = allowance.since;
        let mut takes = |millis| allowance.take(start + Duration::from_millis(millis));
        assert!(takes(0) && takes(999) && !takes(999));
        assert!(takes(1000) && takes(1999) && !takes(1999));
    }
}
