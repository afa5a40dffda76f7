//! Where a request runs: the strategies. What Python's `ThreadingMixIn` and `ForkingMixIn` override.
//!
//! Their trait stands in `accept`, whose loop they run on; a strategy knows nothing of handlers.

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
