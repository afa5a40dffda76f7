//! What a server and its forked children see alike.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::control::Switch;
use super::permits::Permits;
use super::scoreboard::DeskRef;
use crate::observe::Counters;
use crate::sys::shared::Shared;

/// The part of a server that lies in memory shared with its children: atomics only.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) switch: Switch,
    pub(crate) permits: CachePadded<Permits>,
    pub(crate) counters: CachePadded<Counters>,
}

/// Where a block lies.
#[derive(Debug, Clone)]
pub(crate) enum BlockRef {
    /// In memory of its own.
    Own(Arc<Shared<Block>>),
    /// With those of the other workers of a pool.
    OfWorker(DeskRef),
}

impl Deref for BlockRef {
    type Target = Block;

    fn deref(&self) -> &Block {
        match self {
            Self::Own(block) => block,
            Self::OfWorker(desk) => &desk.block,
        }
    }
}

impl From<Arc<Shared<Block>>> for BlockRef {
    fn from(block: Arc<Shared<Block>>) -> Self {
        Self::Own(block)
    }
}
