//! Admission: a connection is accepted only with a permit in hand, and the permit gives itself back.
//!
//! A thread takes a [`Permit`] at the [`Gate`], at once or after a wait. Nothing here accepts or refuses: it answers, and
//! `accept` decides.

mod gate;
mod permit;
#[cfg(test)]
mod tests;

pub(crate) use gate::{Answer, Gate};
pub(crate) use permit::Permit;
