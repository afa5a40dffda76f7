//! A program that is started anew while it runs, with descriptors of this process: its successor.
//!
//! The successor gets them by their numbers, in one variable of its environment. The variable names the process
//! that it is for, so that programs which the successor starts do not take it for theirs. A process number is
//! known only after the fork. So the child writes it into memory that was made before, and calls execve(2)
//! itself: it may not allocate there.

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use std::{env, fs};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::libc::{self, c_char};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::ends;
use super::limits;
use super::process::{self, Private, Status};

/// The variable of the environment: the process number, the descriptor to report to, and what else the two
/// processes agree on, apart by spaces.
pub(crate) const VARIABLE: &str = "SOCKETSERVER_RESTART";

/// The digits of a process number in the variable.
const DIGITS: usize = 10;

/// The byte by which a successor says that it serves.
const READY: u8 = b'R';

/// Returns the path of this program. Call it at the start: after a deploy the kernel has only the old file's name,
/// with " (deleted)" behind it. A link in the path that the program was called by is followed anew at each start, so
/// a deploy may turn it.
pub(crate) fn path_of_this_program() -> io::Result<PathBuf> {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = id(Path::new("/proc/self/exe"));
    let called = env::args_os().next().filter(|name| name.as_bytes().contains(&b'/'));
    let called = called.and_then(|name| std::path::absolute(name).ok());
    match called.filter(|path| own.is_some() && id(path) == own) {
        Some(path) => Ok(path),
        None => env::current_exe(),
    }
}

/// A program that was started, as the process that starts it knows it.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: Pid,
    /// Readable when it has ended.
    pub(crate) ended: Private,
    /// Readable when it serves.
    pub(crate) told: Private<UnixStream>,
}

/// What is known of a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// It serves.
    Ready,
    /// It has closed its end, and says nothing any more.
    Silence,
    Ended(Status),
}

impl Successor {
    /// Starts the program at this path, with the arguments of this one, its environment and `more` of it. It inherits
    /// the descriptors, and reads `agreed`.
    ///
    /// # Errors
    /// The system's, of fork(2) or execve(2).
    pub(crate) fn start(
        path: &Path,
        more: &[(&str, OsString)],
        agreed: &str,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let (told, tells) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        let value = format!("{:0DIGITS$} {} {agreed}", 0, tells.as_raw_fd());
        let environment = env::vars_os().filter(|(name, _)| name != VARIABLE && more.iter().all(|m| *m.0 != **name));
        let more = more.iter().map(|(name, value)| (OsString::from(name), value.clone()));
        let texts = environment.chain(more).map(|(name, value)| [name, value].join("=".as_ref()));
        let mut image = Image::new(path, env::args_os(), texts.chain([format!("{VARIABLE}={value}").into()]))?;
        let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).chain([tells.as_raw_fd()]).collect();
        let mut command = Command::new(path);
        let become_it = move || {
            for number in &descriptors {
                // SAFETY: the descriptors are open in the parent, and so in this copy of it.
                let fd = unsafe { BorrowedFd::borrow_raw(*number) };
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            limits::restore_descriptors()?;
            ends::let_through();
            Err(image.execute())
        };
        // SAFETY: between fork and exec the closure makes system calls, and writes into memory that is there. It
        // neither allocates nor locks.
        let child = unsafe { command.pre_exec(become_it) }.spawn()?;
        // Else the end of the successor would not close it.
        drop(tells);
        let pid = Pid::from_raw(child.id() as i32);
        match process::pidfd(pid) {
            Ok(ended) => Ok(Self { pid, ended: Private::new(ended), told: Private::new(told) }),
            Err(e) => {
                process::end_now(pid);
                Err(e)
            }
        }
    }

    /// Returns what is known by now. It never waits.
    pub(crate) fn hear(&self) -> Heard {
        let read = (&*self.told).read(&mut [0]);
        match (process::ended(self.ended.as_fd()), read) {
            (Some(status), _) => Heard::Ended(status),
            (None, Ok(1)) => Heard::Ready,
            (None, Err(e)) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Nothing
            }
            (None, _) => Heard::Silence,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.ended.as_fd(), signal);
    }
}

/// What execve(2) takes.
struct Image {
    path: CString,
    /// Lists of texts that `Image` owns, with a null pointer at the end.
    arguments: Vec<AtomicPtr<c_char>>,
    environment: Vec<AtomicPtr<c_char>>,
    /// The digits of the process number in the variable, which is the last one.
    number: AtomicPtr<c_char>,
}

impl Image {
    fn new(
        path: &Path,
        arguments: impl Iterator<Item = OsString>,
        environment: impl Iterator<Item = OsString>,
    ) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let list = |of: &mut dyn Iterator<Item = OsString>| -> io::Result<Vec<AtomicPtr<c_char>>> {
            let texts = of.map(|text| CString::new(text.into_vec())).collect::<Result<Vec<_>, _>>()?;
            // Raw, since the child writes into the last one.
            let pointers = texts.into_iter().map(|text| AtomicPtr::new(text.into_raw()));
            Ok(pointers.chain([AtomicPtr::new(null_mut())]).collect())
        };
        let arguments = list(&mut { arguments })?;
        let environment = list(&mut { environment })?;
        let variable = environment.iter().rev().nth(1).map_or(null_mut(), |text| text.load(SeqCst));
        let number = AtomicPtr::new(variable.wrapping_add(VARIABLE.len() + 1));
        Ok(Self { path, arguments, environment, number })
    }

    /// Becomes the program. It returns only if that fails. Async-signal-safe.
    fn execute(&mut self) -> io::Error {
        let mut rest = std::process::id();
        for place in (0..DIGITS).rev() {
            let digit = b'0' + (rest % 10) as u8;
            // SAFETY: the variable has that many digits there, and nothing else uses this copy of the memory.
            unsafe { self.number.load(SeqCst).add(place).write(digit as c_char) };
            rest /= 10;
        }
        // An atomic pointer lies in memory as a pointer does.
        let (arguments, environment) = (self.arguments.as_ptr().cast(), self.environment.as_ptr().cast());
        // SAFETY: the path ends with a NUL, and both lists with a null pointer; all texts live in `self`.
        unsafe { libc::execve(self.path.as_ptr(), arguments, environment) };
        Errno::last().into()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for text in self.arguments.iter().chain(&self.environment).map(|text| text.load(SeqCst)) {
            if !text.is_null() {
                // SAFETY: `new` has made it by `into_raw`, and nothing refers to it any more.
                drop(unsafe { CString::from_raw(text) });
            }
        }
    }
}

/// What a successor has got: the way to say that it serves, and what the two processes have agreed on.
#[derive(Debug)]
pub(crate) struct Inheritance {
    tells: Private<UnixStream>,
    pub(crate) agreed: String,
}

impl Inheritance {
    /// Reads the variable, and unsets it. `None` if it is not there, or for another process.
    ///
    /// # Errors
    /// It is malformed, or its descriptor is not open.
    pub(crate) fn from_environment() -> io::Result<Option<Self>> {
        let Some(value) = env::var_os(VARIABLE) else { return Ok(None) };
        env::remove_var(VARIABLE);
        let malformed = || io::Error::new(io::ErrorKind::InvalidInput, format!("{VARIABLE} is malformed"));
        let value = value.into_string().map_err(|_| malformed())?;
        let mut parts = value.splitn(3, ' ');
        let mut next = || parts.next().ok_or_else(malformed);
        let (process, number, agreed) = (next()?, next()?, next()?);
        if process.parse() != Ok(std::process::id()) {
            return Ok(None);
        }
        let tells = super::inherited::take(number.parse().map_err(|_| malformed())?)?;
        Ok(Some(Self { tells: Private::new(tells.into()), agreed: agreed.to_owned() }))
    }

    /// Says that the successor serves. The former process may be gone.
    pub(crate) fn say_ready(&self) {
        let _ = nix::sys::socket::send(self.tells.as_raw_fd(), &[READY], nix::sys::socket::MsgFlags::MSG_NOSIGNAL);
    }
}
