//! [`per_request`] and [`sessions`]: handlers that are called once for each request.

use std::fmt;
use std::sync::Arc;

use super::{run, StreamRequestHandler, StreamRequestHandlerMut};
use crate::connection::Connection;
use crate::error::HandlerResult;

/// What comes after a call of a handler that serves request by request: see [`per_request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// The request has been served. The handler is called again when the next one begins. An error if the handler
    /// has read nothing of this one: it would be called for the same input without end.
    Request,
    /// What has arrived is not the whole request. The handler is called again when more has arrived, and sees what it
    /// has not consumed once more. So a client that sends slowly holds no thread. The request goes on, with its
    /// [request limit](crate::ServerBuilder::request_timeout). If
    /// [`max_request_length`](crate::ServerBuilder::max_request_length) bytes are buffered, it is an error, a
    /// [`PeerFault`](crate::PeerFault). So is the end of the stream, as
    /// [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).
    More,
    /// The connection is closed, after its output.
    Close,
}

/// A value for each connection, which serves it request by request. [`sessions`] makes a handler of them. It keeps
/// what one request must know of the requests before.
///
/// The calls for one connection come one after the other, each perhaps on another thread: hence `Send`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Session`",
    label = "not a `Session`",
    note = "a `Session` serves one request at a call; a handler of whole connections wants `per_connection(|| ...)`"
)]
pub trait Session: Send + 'static {
    /// Called first. If it fails, neither `request` nor `finish` is called.
    ///
    /// # Errors
    /// Any error of the handler.
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// Serves a request. Its first byte has arrived, or more of it after [`Next::More`].
    ///
    /// # Errors
    /// Any error of the handler. It ends the connection.
    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next>;

    /// Called last, also after an error or a panic in `request`. Its error counts if `request` had none.
    ///
    /// # Errors
    /// Any error of the handler.
    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }
}

/// A handler that is called once for each request, made by [`per_request`] or [`sessions`].
pub struct PerRequest<M>(M);

impl<M> fmt::Debug for PerRequest<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerRequest")
    }
}

/// Makes a handler from a closure that serves one request. It says what comes [next](Next).
///
/// It is called when the first byte of a request has arrived. Between two requests the connection is idle: a stop
/// or the [idle limit](crate::ServerBuilder::idle_timeout) ends it there.
///
/// With [`ThreadPool`](crate::ThreadPool), [`Threading`](crate::Threading), [`Sequential`](crate::Sequential), and
/// [`PreForking`](crate::PreForking) over them, an idle connection is parked: it has no thread and no buffers. Each
/// request is served by any free thread, and holds it to the end: set a
/// [`request_timeout`](crate::ServerBuilder::request_timeout). With [`Forking`](crate::Forking),
/// [`handle_request`](crate::TcpServer::handle_request) and strategies of your own (see
/// [`parks`](crate::strategy::ServingStrategy::parks)) a connection keeps its process or thread.
/// [The guide](crate::guide::choosing#requests-or-connections) says more.
///
/// ```
/// use socketserver::{per_request, Next, TcpServer, ThreadPool};
///
/// let echo = per_request(|conn| {
///     let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
///     conn.send_line(&line)?;
///     Ok(if line == "bye" { Next::Close } else { Next::Request })
/// });
/// let server = TcpServer::with_strategy("127.0.0.1:0", echo, ThreadPool::new(4))?;
/// # Ok::<(), socketserver::Error>(())
/// ```
///
/// For a value that each connection keeps from request to request, see [`sessions`].
#[doc(alias = "keep-alive")]
#[doc(alias = "handle_one_request")]
pub fn per_request<F>(function: F) -> PerRequest<RequestFn<F>>
where
    F: Fn(&mut Connection) -> HandlerResult<Next> + Send + Sync + 'static,
{
    PerRequest(RequestFn(Arc::new(function)))
}

/// Makes a handler that gives each connection a [`Session`] of its own, and calls it for each request, as
/// [`per_request`] calls its closure.
///
/// ```
/// use socketserver::{sessions, Connection, HandlerResult};
/// use socketserver::{Next, Session, TcpServer, ThreadPool};
///
/// #[derive(Default)]
/// struct Counter { lines: usize }
///
/// impl Session for Counter {
///     fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
///         let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
///         self.lines += 1;
///         conn.send_line(format!("{}: {line}", self.lines))?;
///         Ok(if self.lines == 100 { Next::Close } else { Next::Request })
///     }
/// }
///
/// let handler = sessions(Counter::default);
/// let server = TcpServer::with_strategy("127.0.0.1:0", handler, ThreadPool::new(4))?;
/// # Ok::<(), socketserver::Error>(())
/// ```
pub fn sessions<F, T>(make: F) -> PerRequest<SessionMaker<F>>
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Session,
{
    PerRequest(SessionMaker(make))
}

/// A closure of [`per_request`].
pub struct RequestFn<F>(Arc<F>);

/// A maker of [`sessions`].
pub struct SessionMaker<F>(F);

/// What makes the session of a connection.
#[doc(hidden)]
pub trait MakeSession: Send + Sync + 'static {
    type Session: Session;

    fn make(&self) -> Self::Session;
}

impl<F> MakeSession for RequestFn<F>
where
    F: Fn(&mut Connection) -> HandlerResult<Next> + Send + Sync + 'static,
{
    type Session = RequestFn<F>;

    fn make(&self) -> Self::Session {
        RequestFn(self.0.clone())
    }
}

impl<F, T> MakeSession for SessionMaker<F>
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Session,
{
    type Session = T;

    fn make(&self) -> T {
        (self.0)()
    }
}

/// A closure keeps nothing of a connection.
impl<F> Session for RequestFn<F>
where
    F: Fn(&mut Connection) -> HandlerResult<Next> + Send + Sync + 'static,
{
    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
        (self.0)(conn)
    }
}

impl<M: MakeSession> StreamRequestHandler for PerRequest<M> {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        run(&mut RequestLoop(self.0.make()), conn)
    }

    fn is_per_request(&self) -> bool {
        true
    }

    fn session(&self) -> Option<Box<dyn Session>> {
        Some(Box::new(self.0.make()))
    }
}

/// A session that has the thread of its connection to itself.
struct RequestLoop<T>(T);

impl<T: Session> StreamRequestHandlerMut for RequestLoop<T> {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        self.0.setup(conn)
    }

    fn handle(&mut self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            loop {
                match self.0.request(conn)? {
                    Next::Request => break conn.check_progress()?,
                    Next::More => conn.wait_for_more()?,
                    Next::Close => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        self.0.finish(conn)
    }
}
