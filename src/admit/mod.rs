//! Admission: a connection is accepted only with a permit, and the permit gives itself back when it is
//! dropped.
//!
//! A thread takes a [`Permit`] at the [`Gate`], at once or after a wait. This folder does not accept and does
//! not refuse: it answers, and `accept` decides. The walk: `Gate::permit` → `Permit::reserve` →
//! `Permit::engage` (the connection has come) → `Permit::drop` → `Control::wake_gate`, if a thread waits.

mod gate;
mod permit;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use gate::{Answer, Gate};
pub(crate) use permit::Permit;
