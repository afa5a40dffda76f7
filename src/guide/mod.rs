//! Pages that explain, beside the reference.
//!
//! | page | read it when |
//! |---|---|
//! | [`choosing`] | you do not know yet which strategy to take |
//! | [`recipes`] | you look for middleware, an access log, keep-alive, metrics, thread-local state |
//! | [`defaults`] | you want to know a default, or why it is what it is |
//! | [`exposing`] | strangers will connect to your server |
//! | [`beyond`] | one process or one machine is not enough |
//! | [`logging`] | you want to see what the server does, or to count it |
//! | [`forking`] | a handler runs in a process of its own |
//! | [`event_loop`] | you write a [`Protocol`](crate::Protocol) and ask what happens in which order |
//! | [`from_socketserver`] | you port a server from Python's `socketserver` |
//! | [`from_twisted`] | you port a server from Twisted, asyncio, asyncore or `selectors` |
//! | [`cost`] | you want to know what a connection costs |
//! | [`not_for`] | you are not sure that this crate is the right one |

#[doc = include_str!("choosing.md")]
pub mod choosing {}

#[doc = include_str!("recipes.md")]
#[doc(alias = "middleware")]
#[doc(alias = "decorator")]
#[doc(alias = "access log")]
#[doc(alias = "metrics")]
#[doc(alias = "keep-alive")]
#[doc(alias = "keepalive")]
#[doc(alias = "pipelining")]
#[doc(alias = "thread-local")]
#[doc(alias = "thread_local")]
#[doc(alias = "session")]
#[doc(alias = "authentication")]
#[doc(alias = "rate limit")]
#[doc(alias = "periodic")]
pub mod recipes {}

#[doc = include_str!("exposing.md")]
#[doc(alias = "security")]
#[doc(alias = "slowloris")]
#[doc(alias = "systemd")]
pub mod exposing {}

#[doc = include_str!("beyond.md")]
#[doc(alias = "load balancer")]
#[doc(alias = "HAProxy")]
#[doc(alias = "nginx")]
#[doc(alias = "Kubernetes")]
#[doc(alias = "Docker")]
#[doc(alias = "cluster")]
#[doc(alias = "rolling restart")]
#[doc(alias = "SIGUSR2")]
#[doc(alias = "zero downtime")]
#[doc(alias = "hot restart")]
#[doc(alias = "deploy")]
pub mod beyond {}

#[doc = include_str!("defaults.md")]
#[doc(alias = "settings")]
pub mod defaults {}

#[doc = include_str!("logging.md")]
#[doc(alias = "access log")]
#[doc(alias = "RUST_LOG")]
#[doc(alias = "metrics")]
pub mod logging {}

#[doc = include_str!("not_for.md")]
#[doc(alias = "async")]
#[doc(alias = "tls")]
#[doc(alias = "http")]
#[doc(alias = "windows")]
pub mod not_for {}

#[doc = include_str!("cost.md")]
#[doc(alias = "benchmark")]
#[doc(alias = "performance")]
#[doc(alias = "memory")]
pub mod cost {}

#[doc = include_str!("forking.md")]
#[doc(alias = "nice")]
#[doc(alias = "umask")]
#[doc(alias = "exit code")]
pub mod forking {}

#[doc = include_str!("event_loop.md")]
#[doc(alias = "reactor")]
#[doc(alias = "back-pressure")]
#[doc(alias = "flow control")]
#[doc(alias = "port forward")]
pub mod event_loop {}

#[doc = include_str!("from_socketserver.md")]
#[doc(alias = "python")]
#[doc(alias = "handle_request")]
#[doc(alias = "server_close")]
#[doc(alias = "rfile")]
#[doc(alias = "wfile")]
#[doc(alias = "max_children")]
#[doc(alias = "daemon_threads")]
#[doc(alias = "block_on_close")]
#[doc(alias = "request_queue_size")]
#[doc(alias = "allow_reuse_address")]
pub mod from_socketserver {}

#[doc = include_str!("from_twisted.md")]
#[doc(alias = "python")]
#[doc(alias = "asyncio")]
#[doc(alias = "asyncore")]
#[doc(alias = "deferToThread")]
#[doc(alias = "LoopingCall")]
pub mod from_twisted {}
