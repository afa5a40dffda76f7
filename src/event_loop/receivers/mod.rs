//! Protocols of frames: lines and strings.

pub(crate) mod framed;
pub(crate) mod line_receiver;
pub(crate) mod lines;
pub(crate) mod string_receiver;
