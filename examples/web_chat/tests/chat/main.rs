//! The web chat as a process, talked to by Chromium, by WebSocket clients and over lines.

mod browser;
mod guests;
mod machines;
mod pages;
mod protocol;
#[path = "../../../../tests/support/mod.rs"]
mod support;
