//! What a child is bound to before its handler runs.

use std::io;
use std::path::PathBuf;

use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::stat::{umask, Mode};

use crate::error::{Error, Result};
use crate::sys::limits::restore_descriptors;
use crate::sys::process::set_nice;

/// Bounds of a child; `None`: as the server.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) cpu: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) core: Option<u64>,
    pub(super) no_new_privs: bool,
    pub(super) nice: Option<i32>,
    pub(super) umask: Option<u32>,
    pub(super) current_dir: Option<PathBuf>,
}

impl Bounds {
    pub(super) fn check(&self) -> Result<()> {
        for (name, limit) in [("limit_cpu", self.cpu), ("limit_memory", self.memory), ("limit_files", self.files)] {
            if limit == Some(0) {
                return Err(Error::setting(name, "with a limit of zero no child can run"));
            }
        }
        match (self.nice, self.umask) {
            (Some(nice), _) if !(-20..20).contains(&nice) => {
                Err(Error::setting("nice", format!("{nice} is not from -20 to 19")))
            }
            (_, Some(mask)) if mask > 0o777 => Err(Error::setting("umask", format!("{mask:#o} is more than 0o777"))),
            _ => Ok(()),
        }
    }

    /// In the child. The limit on descriptors comes last, since the others may need one.
    pub(super) fn apply(&self) -> io::Result<()> {
        if let Some(path) = &self.current_dir {
            std::env::set_current_dir(path)?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(nice) = self.nice {
            set_nice(nice)?;
        }
        if self.no_new_privs {
            set_no_new_privs()?;
        }
        if self.files.is_none() {
            restore_descriptors()?;
        }
        let limits = [
            (Resource::RLIMIT_CORE, self.core),
            (Resource::RLIMIT_CPU, self.cpu),
            (Resource::RLIMIT_AS, self.memory),
            (Resource::RLIMIT_NOFILE, self.files),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                // Over the soft limit on processor time comes SIGXCPU, over the hard one SIGKILL, which says less.
                let hard = if resource == Resource::RLIMIT_CPU { limit.saturating_add(1) } else { limit };
                setrlimit(resource, limit, hard)?;
            }
        }
        Ok(())
    }
}
