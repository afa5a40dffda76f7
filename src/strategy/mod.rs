//! Strategies say where a request runs. Here are the strategies, and the parts of a strategy of your own.
//!
//! The strategies themselves ([`Sequential`], [`Threading`], [`ThreadPool`], [`Forking`]) are at the crate's
//! root too. They stand for Python's `ThreadingMixIn` and `ForkingMixIn`.
//!
//! A strategy of your own implements [`ServingStrategy`]. It gets each [`Request`], runs it somewhere, and
//! may hand one back as [`Rejected`]. A strategy whose threads call `accept` takes a [`Seat`] for each from the
//! [`Acceptor`], and each [`AcceptEvent`] from the seat. `examples/custom_strategy.rs` is a strategy in a few
//! lines.

// The trait stands in `accept`, whose loop the strategies run on. A strategy knows nothing of handlers, and
// nothing of what a request is. The walk of a crew (`Threading`, `ThreadPool`): `serve` → `Crew::supervise` →
// `hire` → `Member::work` → `next_request` → `Seat::next` → `leave_seat_with` (hire a successor) →
// `Request::run` → `wait_again`.

mod crew;
pub(crate) mod forking;
mod sequential;
mod thread_pool;
mod threading;

pub use crate::accept::{AcceptEvent, Acceptor, Rejected, Request, Seat, ServingStrategy};
pub use forking::Forking;
pub use sequential::Sequential;
pub use thread_pool::ThreadPool;
pub use threading::Threading;
