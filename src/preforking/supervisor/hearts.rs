//! Heartbeats.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::Supervisor;
use crate::preforking::worker::State;
use crate::sys::process;

impl Supervisor<'_> {
    /// Whose heart stands still is stuck; who does not even become ready in that time is ended.
    pub(super) fn check_heartbeats(&mut self) {
        let Some(limit) = self.settings.heartbeat else { return };
        let now = Instant::now();
        for worker in &mut self.workers {
            match worker.state {
                State::Starting if now.duration_since(worker.started) >= limit => {
                    log::error!(
                        target: "socketserver::preforking", "worker {} (process {}) did not become ready in {limit:?}",
                        worker.index, worker.pid
                    );
                    process::signal(worker.pidfd.as_fd(), Signal::SIGKILL);
                }
                State::Ready => {
                    let still = worker.time_since_beat(self.awake_since);
                    let is_stuck = still >= limit;
                    if is_stuck && !worker.is_stuck {
                        log::error!(
                            target: "socketserver::preforking",
                            "worker {} (process {}) gave no sign of life for {} ms: it is replaced",
                            worker.index, worker.pid, still.as_millis()
                        );
                    }
                    worker.is_stuck = is_stuck;
                }
                _ => {}
            }
        }
    }
}
