//! The reports of a server: counters, log lines, the hook `handle_error`, and the observers of connections.
//!
//! All other folders report events to a [`Monitor`]. It counts them, writes the line by [`log_line`], and
//! calls the hook. The walk: [`contain`] (a handler's result becomes an [`Outcome`]) → [`Cause::of`] (peer,
//! limit or handler) → `Monitor::report_end` → `LogThrottle::pass` → `log_line`. This folder does not decide
//! anything about a connection.

mod failure;
mod greeting;
mod inside;
mod line;
mod monitor;
mod observer;
mod outcome;
#[cfg(feature = "testing")]
mod roll;
mod sources;
mod stats;
mod throttle;
mod times;
mod unheard;

pub(crate) use failure::ErrorHook;
pub use failure::Failure;
pub use greeting::{GreetingCounts, GreetingFailure};
pub(crate) use inside::{InHandler, ServerId};
pub(crate) use line::log_line;
pub(crate) use monitor::{ChildEnd, Monitor, StopPhase};
pub(crate) use observer::{Account, Observers};
pub use observer::{Closed, ConnectionOutcome, Observer, Opened};
pub(crate) use outcome::{contain, Cause, NotServed, Outcome};
pub use sources::SourceCounts;
pub(crate) use stats::Counters;
pub use stats::{Report, Stats};
pub(crate) use times::TimeCounters;
pub use times::Times;
pub(crate) use unheard::Unheard;
