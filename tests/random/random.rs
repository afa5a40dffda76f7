//! Promises that hold for any input, tried with random ones.

mod addresses;
mod framing;
mod proxy;
