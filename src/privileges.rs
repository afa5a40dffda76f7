//! [`RunAs`]: from root to another user, for good.
//!
//! The walk: [`RunAs::named`] looks the user up before anything is bound. [`RunAs::become_it`] gives up groups,
//! group and user in that order, since each step needs the rights that the next one gives up, and proves it.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{
    getegid, geteuid, getgrouplist, getresgid, getresuid, setgroups, setresgid, setresuid, Gid, Group, Uid, User,
};

use crate::error::{Error, Result};
use crate::sys::process;

/// A user to run as, with all of its groups.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunAs {
    /// As it was given.
    text: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl RunAs {
    /// Looks up `USER` or `USER:GROUP`, each a name or a number.
    pub(crate) fn named(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::setting("run_as", why);
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let known = find_user(user).map_err(|e| wrong(format!("cannot look up the user {user:?}: {e}")))?;
        let uid = match (&known, user.parse()) {
            (Some(known), _) => known.uid,
            (None, Ok(number)) => Uid::from_raw(number),
            (None, Err(_)) => return Err(wrong(format!("this machine has no user {user:?}"))),
        };
        let gid = match group {
            Some(group) => find_group(group)
                .map_err(|e| wrong(format!("cannot look up the group {group:?}: {e}")))?
                .ok_or_else(|| wrong(format!("this machine has no group {group:?}")))?,
            None => match &known {
                Some(known) => known.gid,
                None => {
                    return Err(wrong(format!("user {user} is not in the user database: name a group, {user}:GROUP")))
                }
            },
        };
        let groups = match known.and_then(|known| CString::new(known.name).ok()) {
            Some(name) => {
                getgrouplist(&name, gid).map_err(|e| wrong(format!("cannot list the groups of {user:?}: {e}")))?
            }
            None => vec![gid],
        };
        Ok(Self { text: text.to_owned(), uid, gid, groups })
    }

    /// Becomes the user. Neither this process nor a program that it starts can go back, or gain rights by a
    /// set-user-ID program.
    ///
    /// # Errors
    /// The process has other threads, which would keep their rights (`no_new_privs` is per thread). Or the system
    /// refuses: only root may become another user.
    pub(crate) fn become_it(&self) -> Result<()> {
        let failed = |source| Error::System { act: format!("run as {}", self.text).into(), source };
        // Without /proc the threads cannot be counted.
        let others = process::threads().map_or(0, |threads| threads.saturating_sub(1));
        if others > 0 {
            return Err(failed(io::Error::other(format!("{others} other threads run; bind before you start threads"))));
        }
        self.change().map_err(|e| match e {
            Errno::EPERM => {
                failed(io::Error::new(io::ErrorKind::PermissionDenied, format!("{e}; start the program as root")))
            }
            e => failed(e.into()),
        })?;
        set_no_new_privs().map_err(|e| failed(e.into()))?;
        self.prove().map_err(|why| failed(io::Error::other(why)))
    }

    fn change(&self) -> nix::Result<()> {
        // Already that user, as under systemd's `User=`: without root's rights even the same groups are refused.
        if geteuid() == self.uid && getegid() == self.gid && !self.uid.is_root() {
            return Ok(());
        }
        setgroups(&self.groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }

    /// Asks the kernel for what must be refused from now on.
    fn prove(&self) -> std::result::Result<(), &'static str> {
        let (Ok(users), Ok(groups)) = (getresuid(), getresgid()) else {
            return Err("the system does not tell the user");
        };
        let (uid, gid) = (self.uid, self.gid);
        if (users.real, users.effective, users.saved) != (uid, uid, uid) {
            return Err("a user identity was left over");
        }
        if (groups.real, groups.effective, groups.saved) != (gid, gid, gid) {
            return Err("a group identity was left over");
        }
        let (root, wheel) = (Uid::from_raw(0), Gid::from_raw(0));
        if !uid.is_root()
            && (setresuid(root, root, root).is_ok() || (gid != wheel && setresgid(wheel, wheel, wheel).is_ok()))
        {
            return Err("root's rights could be regained");
        }
        Ok(())
    }
}

/// Finds a user by name, or by number.
fn find_user(text: &str) -> nix::Result<Option<User>> {
    match text.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(text),
    }
}

/// Finds a group by name. A number needs no entry in the database.
fn find_group(text: &str) -> nix::Result<Option<Gid>> {
    match text.parse() {
        Ok(number) => Ok(Some(Gid::from_raw(number))),
        Err(_) => Ok(Group::from_name(text)?.map(|group| group.gid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number_with_or_without_a_group() {
        let by_name = RunAs::named("nobody").unwrap();
        let by_number = RunAs::named(&by_name.uid.to_string()).unwrap();
        assert_eq!((by_name.uid, by_name.gid), (by_number.uid, by_number.gid));
        assert!(by_name.groups.contains(&by_name.gid));
        assert_eq!(RunAs::named("nobody:0").unwrap().gid, Gid::from_raw(0));
        assert_eq!(RunAs::named("nobody:root").unwrap().gid, Gid::from_raw(0));
        let stranger = RunAs::named("4000000000:4000000001").unwrap();
        assert_eq!((stranger.uid.as_raw(), stranger.groups), (4_000_000_000, vec![Gid::from_raw(4_000_000_001)]));
    }

    #[test]
    fn an_unknown_user_or_group_is_told() {
        for (text, why) in [
            ("no-such-user", "no user \"no-such-user\""),
            ("nobody:no-such-group", "no group \"no-such-group\""),
            ("4000000000", "name a group, 4000000000:GROUP"),
            ("", "no user \"\""),
            ("99999999999", "no user"),
            ("no\0body", "user"),
        ] {
            let told = RunAs::named(text).unwrap_err().to_string();
            assert!(told.starts_with("run_as: ") && told.contains(why), "{text:?}: {told}");
        }
    }
}
