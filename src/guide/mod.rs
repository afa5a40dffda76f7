//! Pages that explain, apart from the reference.

#[doc = include_str!("choosing.md")]
pub mod choosing {}

#[doc = include_str!("exposing.md")]
pub mod exposing {}

#[doc = include_str!("defaults.md")]
pub mod defaults {}

#[doc = include_str!("logging.md")]
pub mod logging {}

#[doc = include_str!("not_for.md")]
pub mod not_for {}

#[doc = include_str!("forking.md")]
pub mod forking {}

#[doc = include_str!("event_loop.md")]
pub mod event_loop {}

#[doc = include_str!("from_socketserver.md")]
pub mod from_socketserver {}

#[doc = include_str!("from_twisted.md")]
pub mod from_twisted {}
