//! A handler in a process of its own becomes another program, which serves the client in its place.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::Connection;

impl Connection {
    /// Replaces the handler, with its process, by a program whose standard input and output are the connection, as
    /// inetd does (execve(2)). It does not return, unless it fails. It works in a handler of
    /// [`Forking`](crate::Forking) only, whose process is the connection's alone.
    ///
    /// What the handler has written is sent first. The connection counts as served if the program exits with 0, and else
    /// as failed and crashed, with its exit code in the log. The request limit, the drain and the
    /// [bounds](crate::Forking::limit_cpu) of the process hold for the program too. Standard error stays the server's.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use socketserver::{handler, Connection, Forking, ServerBuilder};
    ///
    /// let cat = handler(|conn: &mut Connection| {
    ///     Err(conn.exec(&mut Command::new("cat")).into())
    /// });
    /// let mut server = ServerBuilder::new()
    ///     .strategy(Forking::new())
    ///     .bind("127.0.0.1:1234", cat)?;
    /// server.serve_forever()?;
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// # Errors
    /// Why the program could not be started. [`Unsupported`](io::ErrorKind::Unsupported) with another strategy, where it
    /// would replace the server: there, start the program by [`Command::spawn`]. The same kind under TLS, because the
    /// program would read ciphertext. [`InvalidInput`](io::ErrorKind::InvalidInput) if the handler has read ahead what the program
    /// would miss: read nothing before.
    pub fn exec(&mut self, command: &mut Command) -> io::Error {
        match self.become_program(command) {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    fn become_program(&mut self, command: &mut Command) -> io::Result<std::convert::Infallible> {
        let refuse = |kind, why| Err(io::Error::new(kind, why));
        if self.wire.parent_deadline.get().is_none() {
            return refuse(
                io::ErrorKind::Unsupported,
                "exec would replace the server: it needs Forking, or Command::spawn",
            );
        }
        if self.wire.tls.get().is_some() {
            return refuse(io::ErrorKind::Unsupported, "a program cannot read what TLS has encrypted");
        }
        if !self.input.is_empty() {
            return refuse(io::ErrorKind::InvalidInput, "input was read ahead, which the program would miss");
        }
        self.flush()?;
        let copy = || self.as_fd().try_clone_to_owned().map(Stdio::from);
        command.stdin(copy()?).stdout(copy()?);
        let note = |executes| self.wire.parent_deadline.get().into_iter().for_each(|p| p.note_program(executes));
        note(true);
        let failed = command.exec();
        note(false);
        Err(failed)
    }
}
