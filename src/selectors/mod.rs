//! A wait for many descriptors on one thread: Python's `selectors`, with one contract on all back ends.
//!
//! A [`Selector`] watches descriptors for reading and writing, each with data of the program, and returns
//! those that are ready. [`Backend`] names the system call that waits; [`Waker`] ends a wait from another
//! thread. The servers of this crate do not use it: many of their threads wait at once, each for one
//! connection. It is for a loop of your own.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::rc::Rc;
//! use socketserver::selectors::{Events, Selector};
//!
//! #[derive(Clone)]
//! enum Source { Listener, Client(Rc<TcpStream>) }
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut selector = Selector::new()?;
//! selector.register(&listener, Events::READ, Source::Listener)?;
//! # let mut peer = TcpStream::connect(listener.local_addr()?)?;
//! # peer.write_all(b"hello")?;
//! # peer.shutdown(std::net::Shutdown::Write)?;
//!
//! let mut text = String::new();
//! # let mut running = true;
//! # while running {
//! for (key, _) in selector.select(None)? {        // in a loop
//!     match key.data {
//!         Source::Listener => {
//!             let client = Rc::new(listener.accept()?.0);
//!             let source = Source::Client(client.clone());
//!             selector.register(&*client, Events::READ, source)?;
//!         }
//!         Source::Client(client) => {
//!             let mut buf = [0; 1000];
//!             match (&*client).read(&mut buf)? {
//!                 0 => drop(selector.unregister(&*client)?),
//!                 n => text += &String::from_utf8_lossy(&buf[..n]),
//!             }
//!             # running = selector.len() > 1;
//!         }
//!     }
//! }
//! # }
//! assert_eq!(text, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Contract
//!
//! It is the same on every back end, except for two limits of `select`, which are marked.
//!
//! - **Level-triggered.** A descriptor that stays ready is reported again by each `select`.
//! - **Only the requested events** are reported: READ, WRITE, or both at once. A hang-up or an error shows as
//!   the events that are watched; the read or the write then fails. (With `select`, a hang-up shows as WRITE
//!   alone only if the descriptor is also writable, as sockets are.)
//! - **Timeouts.** `None` waits without a limit, zero looks and returns. Otherwise a wait lasts at least the
//!   timeout, up to the next whole unit of the [back end](Backend). A signal does not end it: it goes on with
//!   the time left. To end it from a signal handler, [wake](Waker::wake) it.
//! - **Files that cannot be waited for** are refused ([`Error::NotPollable`]): regular files, folders, and
//!   some devices, as epoll(7) says. They leave no key.
//! - **Large numbers.** Any descriptor can be registered. (`select` takes those below 1024,
//!   [`Error::TooLarge`].)
//! - **One registration for each number.** A second one is refused ([`Error::Registered`]), also through
//!   another owner of the same descriptor. Duplicates have numbers of their own, and can be registered too.
//! - **Closed descriptors** should be unregistered, before or after they are closed. If they are not, they
//!   are never reported again, even if a duplicate or a forked child keeps the file open. The waits for
//!   others go on. The key and its data stay until the number is unregistered: to drop the data within a wait
//!   would surprise its owner.
//! - **A number that is used again** after a close belongs to another descriptor. The old key is never
//!   reported for it. To register the new descriptor is refused until the old key is unregistered
//!   ([`Error::Registered`]): a silent replacement would hide a mistake of the program.
//! - **Changes** of the data, or to the same events, need no system call and always succeed. A change of the
//!   events may fail, for a closed descriptor for example ([`Error::Closed`]). It is unregistered then.
//! - **Changes within a pass.** You may register and unregister while you go through the ready descriptors.
//!   [`is_current`](Selector::is_current) and [`key`](Selector::key) say whether a key still stands.
//! - **Threads.** One thread uses the selector at a time: `&mut self` ensures it. Other threads
//!   [wake](Waker::wake) it. After a `fork`, only one of the processes may use it, because they share the
//!   kernel's part.

mod backend;
mod error;
mod key;
mod selector;
mod waker;

pub use crate::sys::Events;
pub use backend::Backend;
pub use error::{Error, Result};
pub use key::{Key, Ready};
pub use selector::Selector;
pub use waker::Waker;
