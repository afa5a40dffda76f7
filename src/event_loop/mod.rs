//! A stand-in for the event loop: enough to run receivers.
#![allow(missing_docs)]

mod framed;
mod line_receiver;
mod lines;
mod string_receiver;

use std::any::Any;
use std::ops::{Deref, DerefMut};

pub use crate::handler::HandlerResult;
pub use line_receiver::{LineReceiver, LineTransport};
pub use lines::{lines, Lines};
pub use string_receiver::{strings, StringReceiver, StringTransport, Strings};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eof {
    Close,
    KeepOpen,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId(pub u64);
#[derive(Debug)]
pub struct Lost;
#[derive(Debug)]
pub struct WriteError;
impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}
impl std::error::Error for WriteError {}

#[derive(Debug, Default)]
pub struct Core {
    pub output: Vec<u8>,
    pub closing: bool,
    pub paused: bool,
    pub resumed: bool,
    pub requests: Vec<&'static str>,
}
pub struct Context<'a> {
    core: &'a mut Core,
}
pub struct Transport<'a> {
    cx: Context<'a>,
}
impl<'a> Deref for Transport<'a> {
    type Target = Context<'a>;
    fn deref(&self) -> &Context<'a> {
        &self.cx
    }
}
impl<'a> DerefMut for Transport<'a> {
    fn deref_mut(&mut self) -> &mut Context<'a> {
        &mut self.cx
    }
}
impl<'a> Transport<'a> {
    pub fn new(core: &'a mut Core) -> Self {
        Self { cx: Context { core } }
    }
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        if self.core.closing {
            return Err(WriteError);
        }
        self.core.output.extend_from_slice(data);
        Ok(())
    }
    pub fn close(&mut self) {
        self.core.closing = true;
    }
    pub fn is_closing(&self) -> bool {
        self.core.closing
    }
    pub fn pause_reading(&mut self) {
        self.core.paused = true;
    }
    pub fn resume_reading(&mut self) {
        self.core.resumed |= self.core.paused;
        self.core.paused = false;
    }
    pub fn is_reading_paused(&self) -> bool {
        self.core.paused
    }
    pub fn reborrow(&mut self) -> Transport<'_> {
        Transport::new(self.cx.core)
    }
    pub fn request_begins(&mut self) {
        self.core.requests.push("begins");
    }
    pub fn request_ends(&mut self) {
        self.core.requests.push("ends");
    }
}

pub trait Protocol {
    fn connection_made(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult;
    fn eof_received(&mut self, _t: &mut Transport<'_>) -> Result<Eof, BoxError> {
        Ok(Eof::Close)
    }
    fn pause_writing(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }
    fn resume_writing(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }
    fn reading_resumed(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }
    fn timer(&mut self, _t: &mut Transport<'_>, _id: TimerId) -> HandlerResult {
        Ok(())
    }
    fn message(&mut self, _t: &mut Transport<'_>, _message: Box<dyn Any>) -> HandlerResult {
        Ok(())
    }
    fn shutting_down(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }
    fn connection_lost(&mut self, _cx: &mut Context<'_>, _why: &Lost) {}
}
