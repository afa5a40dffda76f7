//! Pages that explain, apart from the reference.

#[doc = include_str!("forking.md")]
pub mod forking {}
