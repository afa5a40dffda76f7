//! What is counted and told of a server.

mod failure;
mod outcome;
#[cfg(feature = "testing")]
mod roll;
mod stats;
mod throttle;

pub(crate) use failure::ErrorHook;
pub use failure::Failure;
pub(crate) use outcome::{contain, Cause, NotServed, Outcome};
#[cfg(feature = "testing")]
pub(crate) use roll::OpenConnections;
pub(crate) use stats::Counters;
pub use stats::{Report, Stats};
pub(crate) use throttle::{Kind, LogThrottle};
