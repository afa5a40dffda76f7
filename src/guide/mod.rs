//! Pages that explain, apart from the reference.

#[doc = include_str!("forking.md")]
pub mod forking {}

#[doc = include_str!("event_loop.md")]
pub mod event_loop {}

#[doc = include_str!("from_socketserver.md")]
pub mod from_socketserver {}

#[doc = include_str!("from_twisted.md")]
pub mod from_twisted {}
