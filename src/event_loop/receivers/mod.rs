//! Protocols of frames: lines, strings and parsed items.
//!
//! Here is `Framed`, a `Protocol` that turns chunks into calls of a `LineReceiver`, a `StringReceiver` or an `ItemReceiver`. Where a frame
//! begins and ends is decided in `crate::framing`, and nothing here knows `State`.
//!
//! The walk: `Framed::data_received` → `take` → `parse_chunk` → `Parser::step` → `Decoder::decode` → the receiver's
//! `line_received` or `string_received` → `keep` for the unfinished rest → `mark_request`.
//!
//! A receiver gets one frame at a time. Between two frames it may change the delimiter, the limit and the mode, and
//! it may pause or close. A change holds from the next frame on, also for input of the same chunk. After `close`
//! nothing is given, so that `QUIT` ends a dialogue. While reading is paused nothing is given, and what a pause has
//! kept comes before the end of the stream.

pub(crate) mod framed;
pub(crate) mod item_receiver;
pub(crate) mod line_receiver;
pub(crate) mod lines;
pub(crate) mod string_receiver;
