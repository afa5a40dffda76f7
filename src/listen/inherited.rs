//! Sockets that the program was started with: `fd:3`, and `fd:NAME` by systemd's `LISTEN_FDNAMES`.
//!
//! The environment is read once, at the first address of this kind, and unset then. So programs that
//! handlers start do not take the sockets for theirs (sd_listen_fds(3) with `unset_environment`).

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use parking_lot::Mutex;

use crate::sys::inherited::{self, FIRST};

/// What `LISTEN_FDS` gives to this process. `None` until an address asks for it.
static PASSED: Mutex<Option<Result<Passed, String>>> = Mutex::new(None);

/// Takes the sockets that the text after `fd:` stands for: one for a number, one or more for a name.
pub(super) fn take(text: &str) -> io::Result<Vec<OwnedFd>> {
    let mut passed = PASSED.lock();
    let passed = passed.get_or_insert_with(Passed::from_environment);
    let passed = passed.as_mut().map_err(|why| invalid(why.clone()))?;
    match text.parse::<RawFd>() {
        Ok(number) if passed.has(number) => passed.take(number).map(|fd| vec![fd]),
        // Other supervisors pass a number alone, and inetd passes descriptor 0.
        Ok(number) => inherited::duplicate(number).map(|fd| vec![fd]),
        Err(_) => passed.named(text)?.into_iter().map(|number| passed.take(number)).collect(),
    }
}

/// The sockets of `LISTEN_FDS`.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    count: RawFd,
    /// Their names, in order. Empty without `LISTEN_FDNAMES`.
    names: Vec<String>,
    /// Those that a server has.
    taken: BTreeSet<RawFd>,
    /// Why there is none, for the error.
    absent: String,
}

impl Passed {
    fn from_environment() -> Result<Self, String> {
        let [pid, fds, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| {
            let value = env::var_os(name).map(|value| value.to_string_lossy().into_owned());
            env::remove_var(name);
            value
        });
        Self::read(std::process::id(), pid.as_deref(), fds.as_deref(), names.as_deref())
    }

    fn read(process: u32, pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Self, String> {
        let (Some(pid), Some(fds)) = (pid, fds) else {
            return Ok(Self::nothing("LISTEN_FDS and LISTEN_PID are not set".to_owned()));
        };
        let pid = pid.parse::<u32>().map_err(|_| format!("LISTEN_PID is {pid:?}, which is no process"))?;
        if pid != process {
            return Ok(Self::nothing(format!("LISTEN_FDS is for process {pid}, and this one is {process}")));
        }
        let count = fds.parse::<u16>().map_err(|_| format!("LISTEN_FDS is {fds:?}, which is no count of sockets"))?;
        let names: Vec<_> = names.map_or_else(Vec::new, |names| names.split(':').map(str::to_owned).collect());
        if !names.is_empty() && names.len() != usize::from(count) {
            return Err(format!("LISTEN_FDNAMES has {} names for the {count} sockets of LISTEN_FDS", names.len()));
        }
        Ok(Self { count: count.into(), names, taken: BTreeSet::new(), absent: String::new() })
    }

    fn nothing(absent: String) -> Self {
        Self { count: 0, names: Vec::new(), taken: BTreeSet::new(), absent }
    }

    fn has(&self, number: RawFd) -> bool {
        (FIRST..FIRST + self.count).contains(&number)
    }

    /// Returns the numbers of the sockets with this name. systemd gives the sockets of one unit one name.
    fn named(&self, name: &str) -> io::Result<Vec<RawFd>> {
        let numbers: Vec<_> =
            (FIRST..).zip(&self.names).filter(|(_, n)| *n == name).map(|(number, _)| number).collect();
        if !numbers.is_empty() {
            return Ok(numbers);
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            match (self.count, self.names.as_slice()) {
                (0, _) => self.absent.clone(),
                (_, []) => "LISTEN_FDNAMES is not set, so a socket has only a number".to_owned(),
                (_, names) => format!("LISTEN_FDNAMES has {}", names.join(":").escape_debug()),
            },
        ))
    }

    fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        if self.taken.contains(&number) {
            return Err(invalid(format!("descriptor {number} was taken before")));
        }
        let fd = inherited::take_socket(number)?;
        self.taken.insert(number);
        Ok(fd)
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pid: &str, fds: &str, names: Option<&str>) -> Result<Passed, String> {
        Passed::read(7, Some(pid), Some(fds), names)
    }

    #[test]
    fn sockets_have_numbers_from_three_and_the_names_in_order() {
        let passed = read("7", "3", Some("web:admin:web")).unwrap();
        assert_eq!(passed.named("web").unwrap(), [3, 5]);
        assert_eq!(passed.named("admin").unwrap(), [4]);
        assert!(!passed.has(2) && passed.has(3) && passed.has(5) && !passed.has(6));
        assert!(passed.named("other").unwrap_err().to_string().contains("web:admin:web"));
        let nameless = read("7", "1", None).unwrap();
        assert!(
            nameless.has(3) && nameless.named("web").unwrap_err().to_string().contains("LISTEN_FDNAMES is not set")
        );
    }

    #[test]
    fn the_sockets_of_another_process_are_not_taken() {
        let passed = read("8", "1", None).unwrap();
        assert!(!passed.has(3));
        assert!(passed.named("web").unwrap_err().to_string().contains("process 8"));
    }

    #[test]
    fn a_malformed_environment_is_an_error() {
        for (pid, fds, names, why) in [
            ("x", "1", None, "LISTEN_PID is \"x\""),
            ("7", "-1", None, "LISTEN_FDS is \"-1\""),
            ("7", "99999", None, "LISTEN_FDS is \"99999\""),
            ("7", "2", Some("web"), "1 names for the 2 sockets"),
        ] {
            let told = read(pid, fds, names).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
