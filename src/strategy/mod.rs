//! Where a request runs: the strategies, and what a strategy of your own is made of.
//!
//! The strategies themselves ([`Sequential`], [`Threading`], [`ThreadPool`], [`Forking`]) are at the crate's root as
//! well. They stand for Python's `ThreadingMixIn` and `ForkingMixIn`. Come here to write another one: it implements
//! [`ServingStrategy`], gets each [`Request`] to run somewhere, and may hand one back as [`Rejected`]. A strategy whose
//! threads accept for themselves takes a [`Seat`] from the [`Acceptor`], and each [`AcceptEvent`] from the seat.
//! `examples/custom_strategy.rs` is one in a few lines.

// Within: a strategy knows nothing of handlers, and nothing of what a request is. Its trait stands in `accept`, whose loop
// it runs on, and is handed on here. The walk of a crew, which `Threading` and `ThreadPool` are: `serve` →
// `Crew::supervise` → `hire` → `Member::work` → `next_request` → `Seat::next` → `leave_seat_with` (hire a successor) →
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
