//! How the connection limit is divided among the workers, so that all together never exceed it.

/// One worker, as far as its share is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The limit that it has now.
    pub(super) limit: usize,
    /// The places that are taken in it; what is above the limit ends by and by.
    pub(super) held: usize,
    /// The limit that it should have; 0 for one that is on its way out.
    pub(super) share: usize,
}

/// The share of the worker with this number, of so many, where each can serve `most`.
pub(super) fn share(limit: usize, workers: usize, number: usize, most: usize) -> usize {
    let more = usize::from(number < limit % workers.max(1));
    (limit / workers.max(1) + more).min(most)
}

/// The new limits, once those that are to be lowered have been: what is still held above them is lent to nobody.
/// And whether all have what they should.
pub(super) fn raise(limit: usize, parts: &[Part]) -> (Vec<usize>, bool) {
    let taken: usize = parts.iter().map(|part| part.limit.max(part.held)).sum();
    let mut free = limit.saturating_sub(taken);
    let mut settled = true;
    let raised = parts.iter().map(|part| {
        let reached = part.limit.max(part.held.min(part.share));
        let more = part.share.saturating_sub(reached).min(free);
        free -= more;
        let new = if part.share > part.limit { reached + more } else { part.limit };
        settled &= new >= part.share;
        new
    });
    (raised.collect(), settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_divided_as_evenly_as_can_be() {
        let shares = |limit, workers, most| (0..workers).map(|i| share(limit, workers, i, most)).collect::<Vec<_>>();
        assert_eq!(shares(10, 4, 100), [3, 3, 2, 2]);
        assert_eq!(shares(3, 4, 100), [1, 1, 1, 0]);
        assert_eq!(shares(64, 4, 4), [4, 4, 4, 4]);
    }

    #[test]
    fn a_successor_gets_what_its_predecessor_has_given_up() {
        let leaving = Part { limit: 0, held: 3, share: 0 };
        let new = Part { limit: 0, held: 0, share: 5 };
        assert_eq!(raise(5, &[leaving, new]), (vec![0, 2], false));
        assert_eq!(raise(5, &[Part { held: 0, ..leaving }, Part { limit: 2, held: 2, ..new }]), (vec![0, 5], true));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn all_together_never_exceed_the_limit(
            limit in 1_usize..40,
            held in proptest::collection::vec((0_usize..12, 0_usize..12), 1..6),
        ) {
            let n = held.len();
            let parts: Vec<Part> = held.iter().enumerate().map(|(i, (now, held))| {
                let share = share(limit, n, i, usize::MAX);
                Part { limit: (*now).min(share), held: *held, share }
            }).collect();
            let before: usize = parts.iter().map(|p| p.limit.max(p.held)).sum();
            let (raised, _) = raise(limit, &parts);
            let after: usize = parts.iter().zip(&raised).map(|(p, new)| p.held.max(*new)).sum();
            prop_assert!(after <= limit.max(before));
            prop_assert!(parts.iter().zip(&raised).all(|(p, new)| *new >= p.limit && *new <= p.share.max(p.limit)));
        }
    }
}
