//! The thread that publishes: letters as they come, several in one round trip, and all names once a second.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use super::{BackOff, Letter, Meeting, Stamped, ROLL};
use crate::room::Room;

/// Most letters in one round trip.
const TOGETHER: usize = 200;

/// Runs until the queue has ended.
pub(super) fn run(meeting: &Meeting, letters: &Receiver<Stamped>, room: &Arc<Room>) {
    let (mut said, mut back_off) = (0, BackOff::new());
    loop {
        let lost = match meeting.connect() {
            Ok(mut connection) => {
                back_off = BackOff::new();
                publish(meeting, letters, room, &mut connection, &mut said)
            }
            Err(e) => Err(e),
        };
        match lost {
            Ok(()) => return,
            Err(e) => log::debug!("publishing to {}: {e}", meeting.channel),
        }
        if !forget(letters, back_off.next(), &mut said) {
            return;
        }
    }
}

/// Publishes until the queue has ended, or until Redis fails. Then the letters under way are lost.
fn publish(
    meeting: &Meeting,
    letters: &Receiver<Stamped>,
    room: &Room,
    connection: &mut Connection,
    said: &mut u64,
) -> RedisResult<()> {
    let mut next_roll = Instant::now();
    loop {
        let mut batch = redis::pipe();
        let mut add = |said: u64, letter: &Letter| {
            batch.publish(&meeting.channel, letter.write(&meeting.us, said)).ignore();
        };
        match letters.recv_timeout(next_roll.saturating_duration_since(Instant::now())) {
            Ok(first) => {
                for stamped in std::iter::once(first).chain(letters.try_iter().take(TOGETHER - 1)) {
                    *said = stamped.said;
                    add(stamped.said, &stamped.letter);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if Instant::now() >= next_roll {
            add(*said, &Letter::Here(room.names_here()));
            next_roll = Instant::now() + ROLL;
        }
        let () = batch.query(connection)?;
    }
}

/// Loses the letters that come while Redis is away, and knows how much was said; false once the queue has ended.
fn forget(letters: &Receiver<Stamped>, time: Duration, said: &mut u64) -> bool {
    let until = Instant::now() + time;
    loop {
        match letters.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(stamped) => *said = stamped.said,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
