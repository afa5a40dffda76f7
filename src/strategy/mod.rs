//! The strategies: where a request runs. They stand for Python's `ThreadingMixIn` and `ForkingMixIn`.
//!
//! [`Sequential`] runs it on the accepting thread, [`Threading`] and [`ThreadPool`] on threads that accept
//! themselves (a crew), [`Forking`] in a child process. Their trait stands in `accept`, whose loop they run
//! on. A strategy knows nothing of handlers, and nothing of what a request is. The walk of a crew: `serve` →
//! `Crew::supervise` → `hire` → `Member::work` → `next_request` → `Seat::next` → `leave_seat_with` (hire a
//! successor) → `Request::run` → `wait_again`.

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
