//! [`Bounds`]: what a forked process is held to before its handlers run. `after_fork` sets all others.

use std::io;

use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::Resource;

use crate::error::{Error, Result};
use crate::sys::limits::set_limit;

/// The bounds of a process. `None`: as the server's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) cpu: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) no_new_privs: bool,
}

impl Bounds {
    pub(crate) fn check(&self) -> Result<()> {
        for (name, limit) in [("limit_cpu", self.cpu), ("limit_memory", self.memory), ("limit_files", self.files)] {
            if limit == Some(0) {
                return Err(Error::setting(name, "with a limit of zero no process can run"));
            }
        }
        Ok(())
    }

    /// Sets the bounds of this process. The limit on descriptors comes last, since the others may need one.
    pub(crate) fn apply(&self) -> io::Result<()> {
        if self.no_new_privs {
            set_no_new_privs()?;
        }
        let limits = [
            (Resource::RLIMIT_CPU, self.cpu),
            (Resource::RLIMIT_AS, self.memory),
            (Resource::RLIMIT_NOFILE, self.files),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                // Over the soft limit on processor time comes SIGXCPU. SIGKILL, over the hard one, says less.
                let hard = if resource == Resource::RLIMIT_CPU { limit.saturating_add(1) } else { limit };
                set_limit(resource, limit, hard)?;
            }
        }
        Ok(())
    }
}

/// The builder methods of a strategy that forks, for the field where it has its bounds.
macro_rules! bound_settings {
    ($($bounds:ident).+) => {
        /// Processor time of each process, in seconds (`RLIMIT_CPU`); over it, SIGXCPU. Defaults to the
        /// server's own limit.
        #[must_use]
        pub fn limit_cpu(mut self, seconds: u64) -> Self {
            self.$($bounds).+.cpu = Some(seconds);
            self
        }

        /// Address space of each process, in bytes (`RLIMIT_AS`); over it, allocation fails, which aborts the
        /// process. Defaults to the server's own limit.
        #[must_use]
        pub fn limit_memory(mut self, bytes: u64) -> Self {
            self.$($bounds).+.memory = Some(bytes);
            self
        }

        /// Descriptors of each process (`RLIMIT_NOFILE`). Defaults to the server's own limit.
        #[must_use]
        pub fn limit_files(mut self, count: u64) -> Self {
            self.$($bounds).+.files = Some(count);
            self
        }

        /// Each process, and what it executes, can gain no privileges (`PR_SET_NO_NEW_PRIVS`). Defaults to
        /// off.
        #[must_use]
        pub fn no_new_privs(mut self) -> Self {
            self.$($bounds).+.no_new_privs = true;
            self
        }
    };
}
pub(crate) use bound_settings;
