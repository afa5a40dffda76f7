//! Heartbeats: a worker that gives no sign of life is replaced.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::Supervisor;
use log::Level;

use crate::observe::log_line;
use crate::preforking::worker::State;
use crate::sys::process;

impl Supervisor<'_> {
    /// Marks workers that are stuck, and kills workers that do not become ready in time.
    pub(super) fn check_heartbeats(&mut self) {
        let Some(limit) = self.settings.heartbeat else { return };
        let now = Instant::now();
        for worker in &mut self.workers {
            match worker.state {
                // A failed start, like any other death before it is ready.
                State::Starting if now.duration_since(worker.started) >= limit => {
                    log_line(
                        Level::Error,
                        "socketserver::preforking",
                        format_args!(
                            "worker {} (process {}) did not become ready in {limit:?}",
                            worker.index, worker.pid
                        ),
                    );
                    process::signal(worker.pidfd.as_fd(), Signal::SIGKILL);
                }
                // It is killed once its successor is ready: until then it holds its connections, and may
                // recover.
                State::Ready => {
                    let silence = worker.time_since_beat(self.awake_since);
                    let is_stuck = silence >= limit;
                    if is_stuck && !worker.is_stuck {
                        log_line(
                            Level::Error,
                            "socketserver::preforking",
                            format_args!(
                                "worker {} (process {}) gave no sign of life for {} ms: it is replaced",
                                worker.index,
                                worker.pid,
                                silence.as_millis()
                            ),
                        );
                    }
                    worker.is_stuck = is_stuck;
                }
                State::Starting | State::Leaving(_) | State::Killed { .. } => {}
            }
        }
    }
}
