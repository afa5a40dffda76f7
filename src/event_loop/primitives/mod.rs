//! Values that know no loop: slots, timers, the clock, tokens, groups, rates, and what loops share.

pub(crate) mod clock;
pub(crate) mod group;
pub(crate) mod loop_group;
pub(crate) mod rate;
pub(crate) mod slab;
pub(crate) mod timers;
pub(crate) mod token;
