//! The settings of a loop, and [`EventLoop`], which carries them.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::limits;

/// The settings of a loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopSettings {
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
    pub(crate) max_queued: usize,
    pub(crate) slow_callback: Duration,
}

impl Default for LoopSettings {
    fn default() -> Self {
        Self {
            high_water: 64 << 10,
            low_water: 16 << 10,
            max_queued: 8 << 20,
            slow_callback: Duration::from_millis(100),
        }
    }
}

/// Serves all connections on one thread. Its handler is a [`Factory`](crate::event_loop::Factory) of
/// [`Protocol`](crate::Protocol)s.
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{factory, EventLoop, HandlerResult};
/// use socketserver::{Protocol, ServerBuilder, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         Ok(transport.write(data)?)
///     }
/// }
///
/// let mut server = ServerBuilder::new()
///     .strategy(EventLoop::new())
///     .max_connections(10_000)
///     .bind_tcp("127.0.0.1:0", factory(|_peer| Echo))?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(client)?, "hello");
///
/// handle.shutdown();
/// assert_eq!(serving.join().unwrap()?.served, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Limits, time limits, stop, counters and hooks are the server's, as with every strategy. Buffer sizes are not: a loop
/// reads into one buffer of 64 KiB, and queues what a peer does not take.
///
/// It holds settings only, and makes its loop when the server runs. So a server can be sent to the thread where it is
/// to serve, although a [`Reactor`](crate::Reactor) cannot leave its thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventLoop {
    settings: LoopSettings,
}

impl EventLoop {
    /// Makes an event loop with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the water marks of a connection's queue, in bytes. Above `high`, `pause_writing` is called, and the
    /// connection is not read any more. At `low`, writing and reading go on. Defaults to 16 KiB and 64 KiB, as
    /// asyncio's.
    #[must_use]
    pub fn water_marks(mut self, low: usize, high: usize) -> Self {
        (self.settings.low_water, self.settings.high_water) = (low, high);
        self
    }

    /// Sets the most bytes that are queued for one connection. A write beyond it fails, and the connection is aborted.
    /// Defaults to 8 MiB.
    #[must_use]
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.settings.max_queued = bytes;
        self
    }

    /// Sets from which length on a callback is reported, because it holds up the loop. Each goes to the hook
    /// ([`Failure::Stalled`](crate::Failure::Stalled)), and a warning to the log, at most one a second. Defaults to
    /// 100 ms, as asyncio's `slow_callback_duration`: what a person begins to notice.
    #[must_use]
    pub fn slow_callback(mut self, time: Duration) -> Self {
        self.settings.slow_callback = time;
        self
    }

    pub(crate) fn checked(self) -> Result<LoopSettings> {
        let LoopSettings { low_water, high_water, max_queued, slow_callback } = self.settings;
        if low_water >= high_water || high_water > max_queued {
            let why = format!("not low {low_water} < high {high_water} <= max_queued {max_queued}");
            return Err(Error::setting("water_marks", why));
        }
        if slow_callback.is_zero() {
            return Err(Error::setting("slow_callback", "a time of zero would report every callback"));
        }
        Ok(self.settings)
    }

    /// Returns how many connections a loop takes by default: 64 less than the process may have descriptors.
    pub(crate) fn default_limit() -> usize {
        limits::descriptors().saturating_sub(64).clamp(1, i32::MAX as usize)
    }
}
