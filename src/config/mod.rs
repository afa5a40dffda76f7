//! The settings of a server as plain data: [`ServerSettings`] and [`Limits`].
//!
//! `ServerBuilder` fills them in, [`ServerSettings::check`] checks them at the bind, and all other folders
//! read them. The user's closures are not here: they stand in `lifecycle::Hooks`.

mod limits;
mod per_source;
mod settings;

pub(crate) use limits::Limits;
pub use limits::{Limit, LimitExceeded};
pub use per_source::PerSource;
pub(crate) use settings::{
    check_limit, check_needed_time, ServerSettings, AFTER_A_LATE_WAKE_UP, FIRST_LOOK, LAST_LOOK, LINGER_IDLE,
    LINGER_TOTAL,
};
pub use settings::{AtLimit, LingeringClose};
