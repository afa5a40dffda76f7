//! Waits that go on where the kernel has broken them off.

use std::io;

/// A receive with a time limit ends with `EINTR` when a signal of another test comes, or when the machine is frozen for a
/// moment, see signal(7). It is made again then.
pub fn uninterrupted<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match receive() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
