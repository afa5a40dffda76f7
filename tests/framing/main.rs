//! Framing: the decoders, and the receivers that are built of them.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../kit/line_talker.rs"]
mod line_talker;
#[path = "../kit/receiving.rs"]
mod receiving;

mod frames;
mod items;
mod line_receiver;
mod lines;
mod over_connections;
mod string_receiver;
