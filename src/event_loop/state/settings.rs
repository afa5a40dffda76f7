//! What a loop is set to.

use std::time::Duration;

/// What a loop is set to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
    pub(crate) max_queued: usize,
    pub(crate) slow_callback: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            high_water: 64 << 10,
            low_water: 16 << 10,
            max_queued: 8 << 20,
            slow_callback: Duration::from_millis(100),
        }
    }
}
