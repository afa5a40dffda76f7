//! What a server and its forked children see alike.

use crossbeam::utils::CachePadded;

use super::control::Switch;
use super::stats::Counters;
use crate::admit::Count;

/// The part of a server that lies in memory shared with its children: atomics only.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) switch: Switch,
    pub(crate) permits: CachePadded<Count>,
    pub(crate) counters: CachePadded<Counters>,
}
