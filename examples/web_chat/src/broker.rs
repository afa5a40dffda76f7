//! Many machines: what is said in one server is heard in the others, through a channel of Redis (PUBLISH, SUBSCRIBE).
//!
//! Pub/sub keeps nothing: a server that is not subscribed at the moment misses the message. So each server numbers
//! what is said in it. The others see what they have missed, and say how much it was. Each server tells all names
//! once a second, so the list of members heals itself. The names of a server that is gone leave after [`GONE`].
//!
//! Two threads wait for Redis, so that neither the loop nor a member ever does: `incoming` has the subscription,
//! `outgoing` publishes.

mod incoming;
mod letter;
mod outgoing;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Client, RedisResult};

use crate::room::Room;
pub use letter::Letter;

/// How often a server tells all of its names, and after how long without a word it is taken for gone.
const ROLL: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_secs(10);

/// Longest wait for an answer of Redis. A subscription hears at least its own server's names in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Letters that may wait for Redis. More are lost, and the servers that miss them count them as lost.
const MOST_WAITING: usize = 10_000;

/// Where the room's letters go out.
pub struct Broker {
    desk: Mutex<Desk>,
    outgoing: Mutex<Option<JoinHandle<()>>>,
}

/// Where letters get their numbers. One lock for both, so that the queue has them in order.
struct Desk {
    said: u64,
    queue: Option<SyncSender<Stamped>>,
}

/// A letter, and how much has been said in this server so far, the letter included.
struct Stamped {
    said: u64,
    letter: Letter,
}

/// Where all servers of a room meet.
#[derive(Clone)]
struct Meeting {
    client: Client,
    channel: String,
    /// This server among the others.
    us: String,
}

impl Broker {
    /// Shares a room with all servers that have the same Redis and the same room's name. Redis may be down: it is tried
    /// again.
    ///
    /// # Errors
    /// If the URL is none, or of a kind that this build does not have.
    pub fn start(url: &str, name: &str, room: &Arc<Room>) -> RedisResult<()> {
        // Random, as each `RandomState` is.
        let us = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let meeting = Meeting { client: Client::open(url)?, channel: format!("web_chat:{name}"), us };
        let (queue, letters) = sync_channel(MOST_WAITING);
        let desk = Mutex::new(Desk { said: 0, queue: Some(queue) });
        let (ours, theirs) = (meeting.clone(), room.clone());
        let outgoing = thread::spawn(move || outgoing::run(&ours, &letters, &theirs));
        room.set_broker(Self { desk, outgoing: Mutex::new(Some(outgoing)) });
        let room = room.clone();
        thread::spawn(move || incoming::run(&meeting, &room)); // ends with the process
        Ok(())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a letter to the other servers. Never waits.
    pub fn send(&self, letter: Letter) {
        let mut desk = self.desk();
        desk.said += u64::from(matches!(letter, Letter::Said(_)));
        let stamped = Stamped { said: desk.said, letter };
        if let Some(queue) = &desk.queue {
            let _ = queue.try_send(stamped); // a full queue: the others will see the gap
        }
    }

    /// Ends the queue, and waits until what is in it has been sent or given up: a few times [`PATIENCE`] at most.
    pub fn finish(&self) {
        self.desk().queue = None;
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = outgoing.map(JoinHandle::join) {
            log::error!("the thread that publishes has panicked");
        }
    }
}

impl Meeting {
    fn connect(&self) -> RedisResult<redis::Connection> {
        let connection = self.client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }
}

/// Waits between two attempts, longer each time.
struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(3);

    fn new() -> Self {
        Self(Self::FIRST)
    }

    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Self::LONGEST);
        wait
    }
}
