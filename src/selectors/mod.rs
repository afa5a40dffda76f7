//! Waiting for many descriptors on one thread: Python's `selectors`, with one contract on all back ends.
//!
//! A [`Selector`] watches descriptors for reading and writing, each with data of the program's, and tells those that
//! are ready. [`Backend`] says with which system call; [`Waker`] ends a wait from elsewhere.
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
//!             selector.register(&*client, Events::READ, Source::Client(client.clone()))?;
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
//! The same on every back end, but for two limits of `select`, which are marked.
//!
//! - **Level-triggered.** What stays ready is told again by each `select`.
//! - **Only what was asked for** is told: READ, WRITE, or both at once. A hang-up or an error of the descriptor shows
//!   as what it is watched for; the read or the write then tells. (`select` tells a hang-up to who watches for WRITE
//!   alone only where the descriptor is writable too, as sockets are.)
//! - **Timeouts.** `None` waits for ever, zero looks and returns. Otherwise a wait lasts at least the timeout, up to
//!   the next whole unit of the [back end](Backend). A signal does not end it: it goes on with the time that is left. To
//!   end it from a signal handler, [wake](Waker::wake) it.
//! - **Files that cannot be waited for** are refused: regular files, folders, and some devices, as epoll(7) has it
//!   ([`Error::NotPollable`]). They leave no key.
//! - **Large numbers.** Any descriptor can be registered. (`select` takes those below 1024, [`Error::TooLarge`].)
//! - **One registration for each number.** A second one is refused, also through another owner of the same descriptor
//!   ([`Error::Registered`]). Duplicates have numbers of their own and can be registered besides.
//! - **Closed descriptors** should be unregistered, before or after they are closed. Those that are not are never told
//!   again, not even while a duplicate or a forked child keeps the file open, and the waits for others go on. The
//!   key stays, with its data, until the number is unregistered.
//! - **A number that is used again** after a close is another descriptor's, and the old key is never told for it.
//!   Registering the new one is refused until the old key is unregistered ([`Error::Registered`]).
//! - **Changes** of the data, or to the same events, need no system call and always succeed. A change of the events
//!   that fails, as that of a closed descriptor does ([`Error::Closed`]), leaves it unregistered.
//! - **A stop in the middle of a pass.** Unregistering or registering while going through what `select` has told is
//!   safe; [`is_current`](Selector::is_current) and [`key`](Selector::key) know whether a key is of now.
//! - **Threads.** One uses the selector at a time, and the compiler sees to that; others [wake](Waker::wake) it. After
//!   a `fork`, one of the processes may use it: the kernel's part is shared.

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
