//! [`plan`] decides how a connection is closed, from facts alone. Threads and event loops then wait in their
//! own way.

use std::time::Duration;

use crate::config::{LingeringClose, LINGER_IDLE, LINGER_TOTAL};

/// The facts about a connection whose output has been sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts {
    /// True if output is left that cannot be sent: a limit or an error has ended the sending, or the protocol
    /// has given it up.
    pub(crate) is_lost: bool,
    /// True if the server has cut its connections at the drain limit.
    pub(crate) is_cut: bool,
    /// True if the peer has ended its stream, and all of it has been read.
    pub(crate) has_ended: bool,
    /// True if the stop ends the connection, and the peer does not know yet.
    pub(crate) is_stopped: bool,
    /// True if input was thrown away, and more may be on its way.
    pub(crate) leaves_unread: bool,
    /// True if a time limit ends the connection.
    pub(crate) is_limit: bool,
}

/// The way to close a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    AtOnce,
    /// By a reset: the peer must not take a part for the whole, and the kernel must not keep what the peer
    /// does not take.
    Reset,
    /// Wait until the peer's kernel has acknowledged all output.
    WhenAcknowledged {
        within: Duration,
    },
    /// Shut the writing side, then read the input and throw it away until it ends.
    Linger {
        within: Duration,
    },
}

/// Decides. It asks for unread input only if the answer matters, because that is a system call.
pub(crate) fn plan(setting: LingeringClose, facts: Facts, has_unread: impl FnOnce() -> bool) -> Close {
    if facts.is_lost {
        return Close::Reset;
    }
    // No care helps, or none is needed: a peer that has ended its stream sends no input that could make a
    // reset.
    if facts.is_cut || facts.has_ended {
        return Close::AtOnce;
    }
    // The peer may send its next request at any time. Once the socket is closed, or both its sides are shut,
    // that input makes a reset. So the peer's kernel must have all of the output first. A lingering close
    // does not help here: an idle peer does not end, and would hold up the stop.
    if facts.is_stopped {
        return Close::WhenAcknowledged { within: LINGER_TOTAL };
    }
    // A lingering close costs a thread's time. Most connections end with nothing unread: for them, one
    // question to the kernel (`FIONREAD`) is all.
    let lingers = match setting {
        LingeringClose::Never => false,
        LingeringClose::Always => true,
        LingeringClose::IfUnread => facts.leaves_unread || has_unread(),
    };
    match lingers {
        // A peer that a limit has cut gets less patience.
        true if facts.is_limit => Close::Linger { within: LINGER_IDLE },
        true => Close::Linger { within: LINGER_TOTAL },
        false => Close::AtOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Close::{AtOnce, Linger, Reset, WhenAcknowledged};
    use LingeringClose::{Always, IfUnread, Never};

    const NONE: Facts = Facts {
        is_lost: false,
        is_cut: false,
        has_ended: false,
        is_stopped: false,
        leaves_unread: false,
        is_limit: false,
    };
    const LONG: Duration = LINGER_TOTAL;
    const SHORT: Duration = LINGER_IDLE;

    #[test]
    fn the_plan_follows_from_the_facts() {
        let stopped = Facts { is_stopped: true, ..NONE };
        let left = Facts { leaves_unread: true, ..NONE };
        let limit = Facts { is_limit: true, ..NONE };
        let (wait, long, short) =
            (WhenAcknowledged { within: LONG }, Linger { within: LONG }, Linger { within: SHORT });
        let (nothing, unread) = (Some(false), Some(true)); // `None`: the plan must not ask
        let table = [
            (Never, NONE, None, AtOnce),
            (Never, left, None, AtOnce),
            (Never, limit, None, AtOnce),
            (Never, stopped, None, wait),
            (IfUnread, NONE, nothing, AtOnce),
            (IfUnread, NONE, unread, long),
            (IfUnread, left, None, long),
            (IfUnread, limit, nothing, AtOnce),
            (IfUnread, limit, unread, short),
            (IfUnread, Facts { leaves_unread: true, ..limit }, None, short),
            (IfUnread, stopped, None, wait),
            (IfUnread, Facts { leaves_unread: true, ..stopped }, None, wait),
            (Always, NONE, None, long),
            (Always, limit, None, short),
            (Always, stopped, None, wait),
            (Always, Facts { is_limit: true, ..stopped }, None, wait),
        ];
        for (setting, facts, found, expected) in table {
            let look = || found.expect("no look at the input");
            assert_eq!(plan(setting, facts, look), expected, "{setting:?}, {facts:?}, unread: {found:?}");
            let over = [
                (Facts { is_lost: true, ..facts }, Reset),
                (Facts { is_lost: true, is_cut: true, has_ended: true, ..facts }, Reset),
                (Facts { is_cut: true, ..facts }, AtOnce),
                (Facts { has_ended: true, ..facts }, AtOnce),
            ];
            for (over, expected) in over {
                let look = || panic!("no look at the input");
                assert_eq!(plan(setting, over, look), expected, "{setting:?}, {over:?}");
            }
        }
    }
}
