//! Strategies: they say where a request runs, as Python's `ThreadingMixIn` and `ForkingMixIn` do.
//!
//! [`Sequential`] runs it on the accepting thread, [`Threading`] and [`ThreadPool`] on threads that accept
//! themselves, [`Forking`] in a child process. A strategy of your own implements [`ServingStrategy`].

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
