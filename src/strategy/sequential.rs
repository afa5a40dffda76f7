//! One connection after the other.

use crate::accept::{Rejected, Request, ServingStrategy};
use crate::error::Result;

/// Serves on the accepting thread, one connection after the other: Python's plain server.
///
/// The next client waits until this one is done. For tests, for tools with one client, for handlers that are not
/// to run side by side. The drain limit holds while the handler waits for the peer, not while it computes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequential;

impl ServingStrategy for Sequential {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        request.run();
        Ok(())
    }

    fn max_connections(&self) -> Result<usize> {
        Ok(1)
    }
}
