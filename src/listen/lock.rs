//! [`Lock`]: the file `PATH.lock` beside a Unix socket. Its holder may judge whether the socket is dead.
//!
//! "Is the old socket dead?" and "remove it" are two steps. If two servers start at once, both could find it
//! dead, and the second would remove the socket of the first. So only the holder of the lock may judge. The lock
//! is the kernel's (flock(2)): it goes with the last process that has the descriptor, however that ends. The
//! file is removed while it is locked.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{fcntl, openat, AtFlags, FcntlArg, OFlag};
use nix::libc;
use nix::sys::stat::{fstat, fstatat, Mode, SFlag};

use super::file::{kind, remove, Id, Outcome, Place};
use crate::sys::fork;
use crate::sys::process::Private;
use crate::sys::socket::{self, Act};

/// The locked file `PATH.lock`.
#[derive(Debug)]
pub(super) struct Lock {
    place: Arc<Place>,
    name: OsString,
    id: Id,
    /// Private: a forked child of ours with this descriptor would hold the lock after our end.
    file: Option<Private<File>>,
    /// The number of forks when this process bound the socket, or began to serve.
    forks: AtomicU64,
    /// True if the files are left to another process.
    left: bool,
}

/// Returns the name of the lock's file.
fn name_beside(place: &Place) -> OsString {
    let mut name = place.name.clone();
    name.push(".lock");
    name
}

/// The number of tries, if another process removes the lock file between our open and our lock.
const TRIES: usize = 100;

impl Lock {
    pub(super) fn take(place: &Arc<Place>) -> Outcome<Self> {
        let name = name_beside(place);
        for _ in 0..TRIES {
            if let Some((file, id)) = lock(&place.folder, &name, true)? {
                let (place, file) = (Arc::clone(place), Some(Private::new(file)));
                return Ok(Self { place, name, id, file, forks: AtomicU64::new(fork::forks()), left: false });
            }
        }
        Err((LOCK, Errno::EADDRINUSE.into()))
    }

    /// Takes over the lock of a former process, which has it too.
    pub(super) fn taken_over(place: &Arc<Place>, file: OwnedFd) -> nix::Result<Self> {
        let id = Id::of(&fstat(&file)?);
        let (place, name, file) = (Arc::clone(place), name_beside(place), Some(Private::new(File::from(file))));
        Ok(Self { place, name, id, file, forks: AtomicU64::new(fork::forks()), left: false })
    }

    /// Returns the descriptor of the lock.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// Notes that this process serves: other processes with the socket leave the file to it. It notes so by a
    /// second lock (fcntl(2)), which is one process's alone, and goes with it.
    pub(super) fn serve_here(&self) {
        self.forks.store(fork::forks(), SeqCst);
        if let Some(file) = &self.file {
            let _ = fcntl(file, FcntlArg::F_SETLK(&whole(libc::F_RDLCK)));
        }
    }

    /// True if this process, at its end, is the last with the socket. False if another process serves, or may serve
    /// later: it was forked after this one bound the socket or began to serve.
    pub(super) fn is_last(&mut self) -> bool {
        self.left = self.serves_elsewhere() || (self.forks.load(SeqCst) != fork::forks() && !self.lock_again());
        !self.left
    }

    fn serves_elsewhere(&self) -> bool {
        let mut found = whole(libc::F_WRLCK);
        let looked = self.file.as_ref().map(|file| fcntl(file, FcntlArg::F_GETLK(&mut found)));
        looked.is_some_and(|looked| looked.is_ok()) && found.l_type != libc::F_UNLCK as libc::c_short
    }

    /// True if no other process has the descriptor. The kernel keeps the lock while any process has it. So the
    /// descriptor is closed here, and the file is locked anew: that fails only if another process has it, or has removed it.
    fn lock_again(&mut self) -> bool {
        self.file = None;
        let until = Instant::now() + WHILE_PROGRAMS_START;
        loop {
            match lock(&self.place.folder, &self.name, false) {
                Ok(Some((file, id))) => {
                    self.file = Some(Private::new(file));
                    return id == self.id;
                }
                Err((_, e)) if e.kind() != io::ErrorKind::NotFound && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                _ => return false,
            }
        }
    }
}

/// Between its fork and its exec, a program that another thread starts has a copy of the descriptor. The end of
/// a server waits so long for that.
const WHILE_PROGRAMS_START: Duration = Duration::from_millis(50);

/// A lock of this kind on the whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

const LOCK: Act = "lock";

/// Opens and locks the file, and makes it where it is missing, if that is wanted. `None` if its former holder has removed
/// it in between: try again.
fn lock(folder: &OwnedFd, name: &OsString, makes_it: bool) -> Outcome<Option<(File, Id)>> {
    let failed = |e: Errno| (LOCK, io::Error::from(e));
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let create = flags | OFlag::O_CREAT | OFlag::O_EXCL;
    // Two calls: O_CREAT on another user's file in a sticky folder is refused (fs.protected_regular).
    let opened = match openat(folder, name.as_os_str(), flags, Mode::empty()) {
        Err(Errno::ENOENT) if makes_it => openat(folder, name.as_os_str(), create, Mode::S_IRUSR | Mode::S_IWUSR),
        other => other,
    };
    let file = match opened {
        Err(Errno::EEXIST) => return Ok(None),
        Err(Errno::ELOOP) => return Err((LOCK, no_lock("a symbolic link"))),
        Err(Errno::EISDIR) => return Err((LOCK, no_lock("a folder"))),
        Err(Errno::ENXIO) => return Err((LOCK, no_lock("a socket"))),
        other => File::from(other.map_err(failed)?),
    };
    let stat = fstat(&file).map_err(failed)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err((LOCK, no_lock("no regular file")));
    }
    claim(folder, name, file, Id::of(&stat))
}

/// Locks an open file. `None` if the name no longer belongs to it: then the lock would protect nothing.
fn claim(folder: &OwnedFd, name: &OsString, file: File, id: Id) -> Outcome<Option<(File, Id)>> {
    match socket::lock_file(&file) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(("bind", Errno::EADDRINUSE.into())),
        Err(e) => return Err((LOCK, e)),
    }
    let now = fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
    let same = now.is_ok_and(|now| Id::of(&now) == id);
    Ok(same.then_some((file, id)))
}

fn no_lock(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("its lock file is {what}"))
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.left {
            let _ = remove(&self.place.folder, &self.name, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_file_that_was_removed_before_it_was_locked_locks_nothing() {
        let folder = std::env::temp_dir().join(format!("socketserver-lock-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let place = Place::of(&folder.join("lock")).unwrap();
        for comes_another in [false, true] {
            let file = File::create(folder.join("lock")).unwrap();
            let id = Id::of(&fstat(&file).unwrap());
            fs::remove_file(folder.join("lock")).unwrap();
            let other = comes_another.then(|| File::create(folder.join("lock")).unwrap());
            assert!(claim(&place.folder, &place.name, file, id).unwrap().is_none());
            drop(other);
        }
        let (held, _) = lock(&place.folder, &place.name, true).unwrap().unwrap();
        assert_eq!(lock(&place.folder, &place.name, true).unwrap_err().1.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        assert!(lock(&place.folder, &place.name, true).unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }

    /// As when the process that served with this socket has removed its files, and the one that had forked it ends.
    #[test]
    fn a_lock_file_that_another_process_has_removed_is_not_made_anew() {
        let folder = std::env::temp_dir().join(format!("socketserver-lock-gone-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut lock = Lock::take(&Arc::new(Place::of(&folder.join("socket")).unwrap())).unwrap();
        let file = folder.join("socket.lock");
        let keeps_the_inode = File::open(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(!lock.lock_again());
        drop((lock, keeps_the_inode));
        fs::remove_dir(&folder).unwrap(); // empty
    }
}
