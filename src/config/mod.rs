//! What a server is set to: plain data, checked when the server is bound. Nothing here runs the user's code.

mod limits;
mod settings;

pub(crate) use limits::Limits;
pub use limits::{Limit, LimitExceeded};
pub(crate) use settings::{
    check_limit, check_needed_time, ServerSettings, FIRST_LOOK, LAST_LOOK, LINGER_IDLE, LINGER_TOTAL,
};
pub use settings::{AtLimit, LingeringClose};
