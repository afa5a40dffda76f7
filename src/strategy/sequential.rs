//! [`Sequential`]: one connection after the other.

use crate::accept::{Rejected, Request, ServingStrategy};
use crate::error::Result;

/// Serves on the accepting thread, one connection after the other, as Python's plain server does.
///
/// The next client waits until this one is done. It is for tests, for tools with one client, and for handlers
/// that must not run side by side. With a handler of requests ([`per_request`](crate::per_request)) one request is served
/// after the other, of many connections: those are parked meanwhile. At a stop, the drain limit ends a handler's wait for its peer. It does not
/// end a handler that computes, so the server then stops late.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequential;

impl ServingStrategy for Sequential {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        request.run();
        Ok(())
    }

    fn parks(&self) -> bool {
        true
    }

    fn max_connections(&self) -> Result<usize> {
        Ok(1)
    }
}
