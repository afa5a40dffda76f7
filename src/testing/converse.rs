//! [`converse`]: a handler and its client, without a server.

use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use crate::connection::Connection;
use crate::error::HandlerResult;
use crate::finish::finish_apart;
use crate::handler;
use crate::handler::StreamRequestHandler;
use crate::observe::{contain, InHandler, Outcome};

/// Runs a handler on `input`, without a server and without a network: `setup`, `handle`, `finish`, and the
/// server's own close. The client sends the input, ends the stream, and reads to the end. It sends and reads
/// on two threads, so large data on one side cannot block the other.
///
/// ```
/// use socketserver::{handler, testing::converse};
///
/// let shout = handler(|conn| {
///     while conn.next_request()? {
///         let Some(line) = conn.next_line()? else { break };
///         conn.send_line(format!("{}!", line.to_uppercase()))?;
///     }
///     Ok(())
/// });
/// let conversation = converse(&shout, b"hello\nis anybody there?\n");
/// assert_eq!(conversation.text(), "HELLO!\nIS ANYBODY THERE?!\n");
/// conversation.result?;
///
/// let cut_off = converse(&shout, b"hello\nis any");
/// assert_eq!(cut_off.text(), "HELLO!\n");
/// assert!(cut_off.result.is_err());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// The handler runs on the calling thread, so its output and the backtrace of its panic are the test's. Its
/// connection has the default settings. All of it works as on a server: lines, frames, halves, writers, and
/// the limits that the handler sets. For a dialogue, where the client's next message depends on the answer,
/// take [`Connection::pair`]. For the settings of a server, take [`TestServer`](super::TestServer).
///
/// # Panics
/// If the system has no descriptors or threads left. A panic of the handler is part of the
/// [result](Conversation::result).
#[track_caller]
pub fn converse<H: StreamRequestHandler + ?Sized>(handler: &H, input: &[u8]) -> Conversation {
    let (conn, client) = Connection::pair().expect("a pair of sockets");
    thread::scope(|scope| {
        scope.spawn(|| feed(&client, input));
        let output = scope.spawn(|| read_all(&client));
        let outcome = serve(handler, conn);
        let output = output.join().expect("reading does not panic");
        Conversation { output, result: result(outcome) }
    })
}

fn serve<H: StreamRequestHandler + ?Sized>(handler: &H, mut conn: Connection) -> Outcome {
    let core = conn.server().core.clone();
    // As on a server: a handler that waits for the server's end gets an error.
    let outcome = {
        let _inside = InHandler::of(core.monitor.server);
        contain(|| handler::run(&mut &*handler, &mut conn))
    };
    finish_apart(&core, conn, outcome)
}

/// Sends the input. Errors are ignored, because a handler may end before it has read all.
fn feed(mut client: &UnixStream, input: &[u8]) {
    let _ = client.write_all(input);
    let _ = client.shutdown(Shutdown::Write);
}

/// Reads until the connection is closed, in order or by a reset.
fn read_all(mut client: &UnixStream) -> Vec<u8> {
    let mut output = Vec::new();
    let _ = client.read_to_end(&mut output);
    output
}

fn result(outcome: Outcome) -> HandlerResult {
    match outcome {
        Outcome::Served => Ok(()),
        Outcome::Failed(e) => Err(e),
        Outcome::NotServed(why) => Err(why.into()),
        Outcome::Panicked(message) => Err(Panicked { message }.into()),
    }
}

/// The result of [`converse`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Conversation {
    /// The bytes that the client has received, up to the end of the stream.
    pub output: Vec<u8>,
    /// The result of the handler, or the error of sending its last output. A panic is an error with a
    /// [`Panicked`] in it. So `result?` and `result.unwrap()` fail a test for both.
    pub result: HandlerResult,
}

impl Conversation {
    /// Returns the output as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap_or_else(|e| panic!("the output is no text: {e}"))
    }

    /// Returns the text of the handler's panic, if it has panicked.
    ///
    /// ```
    /// use socketserver::{handler, testing::converse};
    ///
    /// let conversation = converse(&handler(|_| panic!("no such luck")), b"");
    /// assert_eq!(conversation.panic(), Some("no such luck"));
    /// ```
    pub fn panic(&self) -> Option<&str> {
        let panicked = self.result.as_ref().err()?.downcast_ref::<Panicked>()?;
        Some(&panicked.message)
    }
}

/// A handler's panic as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Panicked {
    /// The panic's text, or `(a panic without a text)`.
    pub message: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.message)
    }
}

impl std::error::Error for Panicked {}
