//! The file of a Unix socket, from `bind` to its removal.
//!
//! All steps are taken under the [`Lock`] beside it. They go through the descriptor of the folder: it means the
//! same after a `chdir`, and after a rename of the folder. The price: a Unix listener has three descriptors.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{openat, AtFlags, OFlag};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{fstat, fstatat, FileStat, Mode, SFlag};
use nix::unistd::{fchownat, unlinkat, Gid, Uid, UnlinkatFlags};

use super::lock::Lock;
use crate::error::{CHANGE_OWNER, SET_MODE};
use crate::sys::clamped;
use crate::sys::process::Private;
use crate::sys::socket::{self, Act, SockType};

pub(super) type Outcome<T> = std::result::Result<T, (Act, io::Error)>;

/// The permissions of a socket file, as for chmod(2) and chown(2). They decide which processes may connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Default for Access {
    /// Lets the owner connect, and no other user. A wider mode is the administrator's decision.
    fn default() -> Self {
        Self { mode: 0o600, uid: None, gid: None }
    }
}

impl Access {
    fn changes_owner(self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }
}

/// Binds a path where nothing stands, or a dead socket, and sets mode and owner. All of that comes before
/// `listen`, so no process can connect with rights that it does not have in the end.
pub(super) fn bind_at(path: &Path, kind: SockType, access: Access) -> Outcome<(OwnedFd, SocketFile)> {
    let addr = UnixAddr::new(path).map_err(|e| ("bind", e.into()))?;
    let place = Arc::new(Place::of(path)?);
    // The lock is held until the listener ends: no other server may judge this socket meanwhile.
    let lock = Lock::take(&place)?;
    place.clear(path)?;
    // On Linux a socket's file is born with the mode of the socket's inode, less the umask. So the mode is
    // set before `bind`, and the umask of the process, which all threads share, is not touched. If the owner
    // changes, the file has no rights at all until the owner is set.
    let birth = if access.changes_owner() { 0 } else { access.mode };
    let fd = socket::bind_unix(&addr, kind, Some(birth))?;
    // The file may be replaced at any time. From here on it is named by this descriptor and its inode only.
    let born = place.pin().map_err(|e| ("look at the new file", e.into()))?;
    let id = Id::of(&fstat(&born).map_err(|e| ("look at the new file", e.into()))?);
    // Made before `adjust`: if that fails, the drop removes the file.
    let file = SocketFile { place, id, lock };
    adjust(&born, access)?;
    Ok((fd, file))
}

/// Sets owner and mode through the open file, so that a file that has replaced it is not changed. The owner
/// comes first, because chown(2) may clear bits of the mode.
fn adjust(born: &OwnedFd, access: Access) -> Outcome<()> {
    let path = proc_path(born.as_fd());
    if access.changes_owner() {
        let (uid, gid) = (access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw));
        fchownat(born, "", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(|e| (CHANGE_OWNER, e.into()))?;
    }
    let now = fstat(born).map_err(|e| ("look at the new file", e.into()))?;
    if kind(&now) != SFlag::S_IFSOCK {
        return Err(("bind", io::Error::new(io::ErrorKind::AlreadyExists, "the new file was replaced")));
    }
    // The umask may have removed rights.
    if now.st_mode & 0o7777 != access.mode {
        let set = fs::set_permissions(&path, fs::Permissions::from_mode(access.mode));
        set.map_err(|e| (SET_MODE, if e.kind() == io::ErrorKind::NotFound { without_proc() } else { e }))?;
    }
    Ok(())
}

fn without_proc() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "/proc is not mounted")
}

/// Returns a path to an open file. It follows no link, and means the same after a rename.
fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// The file that a listener has made, and its lock. The drop removes the file, if it is still the same, unless
/// another process goes on with the socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Arc<Place>,
    id: Id,
    /// Dropped after the file was removed.
    lock: Lock,
}

impl SocketFile {
    /// Makes the file this process's, which serves from now on.
    pub(super) fn serve_here(&self) {
        self.lock.serve_here();
    }

    /// Returns the descriptors for a successor: those of the lock and of the folder. Empty if the file at this name
    /// is another one by now.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let is_ours = self.place.id().is_ok_and(|id| id == self.id);
        let lock = self.lock.as_fd().filter(|_| is_ours);
        lock.into_iter().flat_map(|lock| [lock, self.place.folder.as_fd()]).collect()
    }

    /// Takes over the file of a former process, by these descriptors. `None` if it had none any more.
    pub(super) fn taken_over(path: &Path, descriptors: Vec<OwnedFd>) -> Outcome<Option<Self>> {
        let Ok([lock, folder]) = <[OwnedFd; 2]>::try_from(descriptors) else { return Ok(None) };
        let failed = |e: Errno| ("take over", e.into());
        let place = Arc::new(Place { folder: Private::new(folder), name: name_of(path)? });
        let id = place.id().map_err(failed)?;
        let lock = Lock::taken_over(&place, lock).map_err(failed)?;
        Ok(Some(Self { place, id, lock }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.lock.is_last() {
            let _ = remove(&self.place.folder, &self.place.name, self.id);
        }
    }
}

/// The identity of a file, without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self { device: clamped(stat.st_dev, u64::MAX), inode: clamped(stat.st_ino, u64::MAX) }
    }
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Removes the name if it still belongs to this file.
pub(super) fn remove(folder: &OwnedFd, name: &OsString, id: Id) -> nix::Result<()> {
    match fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if Id::of(&stat) == id => unlinkat(folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir),
        _ => Ok(()),
    }
}

/// A name in an open folder. Its meaning does not change with the working directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: Private,
    pub(super) name: OsString,
}

impl Place {
    pub(super) fn of(path: &Path) -> Outcome<Self> {
        let name = name_of(path)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(folder, flags, Mode::empty()).map_err(|e| ("open the folder of", e.into()))?;
        Ok(Self { folder: Private::new(folder), name })
    }

    /// Returns the identity of what stands at this name.
    fn id(&self) -> nix::Result<Id> {
        Ok(Id::of(&fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    /// Opens the file at this name. While it is open, its inode number is not given to another file. No link
    /// is followed.
    fn pin(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.folder, self.name.as_os_str(), flags, Mode::empty())
    }

    /// Removes a dead socket at this name. The caller holds the lock. Any other file is an error.
    fn clear(&self, path: &Path) -> Outcome<()> {
        let failed = |e: Errno| ("look at what stands at", e.into());
        let there = match self.pin() {
            Err(Errno::ENOENT) => return Ok(()),
            other => other.map_err(failed)?,
        };
        let stat = fstat(&there).map_err(failed)?;
        if let Some(what) = not_a_socket(kind(&stat)) {
            return Err(("bind", io::Error::new(io::ErrorKind::AlreadyExists, format!("{what} stands there"))));
        }
        // A datagram socket connects to it, which reaches no server. The kernel answers EPROTOTYPE for a
        // living stream socket, and ECONNREFUSED for a dead one.
        let is_bound = match socket::is_bound(&proc_path(there.as_fd())) {
            // Without /proc its name is asked. A file that has replaced it meanwhile is not removed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => socket::is_bound(path),
            answer => answer,
        };
        match is_bound {
            Ok(false) => {
                remove(&self.folder, &self.name, Id::of(&stat)).map_err(|e| ("remove the dead socket", e.into()))
            }
            Ok(true) => Err(("bind", Errno::EADDRINUSE.into())),
            Err(e) => Err(("find out which process listens on", e)),
        }
    }
}

fn name_of(path: &Path) -> Outcome<OsString> {
    Ok(path.file_name().ok_or_else(|| ("bind", invalid("the path names no file")))?.to_owned())
}

fn not_a_socket(kind: SFlag) -> Option<&'static str> {
    match kind {
        SFlag::S_IFSOCK => None,
        SFlag::S_IFREG => Some("a regular file"),
        SFlag::S_IFDIR => Some("a folder"),
        SFlag::S_IFLNK => Some("a symbolic link"),
        SFlag::S_IFIFO => Some("a named pipe"),
        _ => Some("a device"),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
