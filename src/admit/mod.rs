//! Admission: a connection is accepted only with a permit in hand, and the permit gives itself back.

mod permit;
#[cfg(test)]
mod tests;

pub(crate) use permit::Permit;
