//! The arithmetic of shares: the connection limit is divided among the workers, so that all together never
//! exceed it.
//!
//! One counter for all would have to be corrected for each worker that dies at any moment of counting. A
//! share is counted by its worker alone, and is gone with it. So the master lowers one share before it raises
//! another, and lends nothing that is still held. The price: a worker at its share leaves the next connection
//! to the others.

/// One worker's part of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The limit that the worker has now.
    pub(super) limit: usize,
    /// The permits that it holds. What is above the limit ends by and by.
    pub(super) held: usize,
    /// The limit that it should have. 0 if it is not ready, or is to end.
    pub(super) share: usize,
}

/// Returns the share of the worker with this number, if each can serve `most`.
pub(super) fn share(limit: usize, workers: usize, number: usize, most: usize) -> usize {
    let more = usize::from(number < limit % workers.max(1));
    (limit / workers.max(1) + more).min(most)
}

/// Returns the new limits, after those that are too high have been lowered. `true`: all have their shares.
pub(super) fn raise(limit: usize, parts: &[Part]) -> (Vec<usize>, bool) {
    // What is held above a lowered limit is lent to nobody yet.
    let taken: usize = parts.iter().map(|part| part.limit.max(part.held)).sum();
    let mut free = limit.saturating_sub(taken);
    let mut settled = true;
    let raised = parts.iter().map(|part| {
        // Permits that the worker holds already, within its share, cost nothing more.
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

    /// Tries any two workers, in any state, at any limit.
    #[test]
    fn all_together_never_exceed_the_limit() {
        const SOME: [usize; 5] = [0, 1, 3, 6, 11];
        let states = || SOME.iter().flat_map(|now| SOME.iter().map(move |held| (*now, *held)));
        for (limit, first, second) in
            (1..20).flat_map(|limit| states().flat_map(move |a| states().map(move |b| (limit, a, b))))
        {
            for held in [vec![first], vec![first, second], vec![first, second, first, second, (0, 2)]] {
                never_exceeds(limit, &held);
            }
        }
    }

    fn never_exceeds(limit: usize, held: &[(usize, usize)]) {
        let part = |(number, (now, held)): (usize, &(usize, usize)), workers: usize| {
            let share = share(limit, workers, number, usize::MAX);
            Part { limit: (*now).min(share), held: *held, share }
        };
        let parts: Vec<Part> = held.iter().enumerate().map(|it| part(it, held.len())).collect();
        let before: usize = parts.iter().map(|p| p.limit.max(p.held)).sum();
        let (raised, _) = raise(limit, &parts);
        let after: usize = parts.iter().zip(&raised).map(|(p, new)| p.held.max(*new)).sum();
        assert!(after <= limit.max(before), "{limit}: {parts:?}: {raised:?}");
        let within = |(p, new): (&Part, &usize)| *new >= p.limit && *new <= p.share.max(p.limit);
        assert!(parts.iter().zip(&raised).all(within), "{limit}: {parts:?}: {raised:?}");
    }
}
