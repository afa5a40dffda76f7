//! The thread with the subscription: it tells the members here what other servers write, and what was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use redis::{Connection, RedisResult};

use super::letter::{Arrived, Letter};
use super::{BackOff, Meeting, GONE, PATIENCE};
use crate::room::Room;

/// What is known of another server.
struct Peer {
    /// How much of what was said there has been heard here, or is known to be lost.
    said: u64,
    /// When it last wrote.
    seen: Instant,
}

/// Runs as long as the process.
pub(super) fn run(meeting: &Meeting, room: &Arc<Room>) {
    let (mut peers, mut back_off) = (BTreeMap::new(), BackOff::new());
    let mut is_away = false;
    loop {
        let mut was_reached = false;
        let lost = meeting.connect().and_then(|mut connection| {
            hear(meeting, room, &mut connection, &mut peers, || {
                was_reached = true;
                if std::mem::take(&mut is_away) {
                    log::info!("the other servers of {} are in reach again", meeting.channel);
                    room.tell("* the other servers are in reach again".to_owned());
                }
            })
        });
        if was_reached {
            back_off = BackOff::new();
        }
        if let (Err(e), false) = (lost, is_away) {
            is_away = true;
            log::warn!("no way to the other servers of {}: {e}; it is tried again", meeting.channel);
            room.tell("* the other servers are out of reach: what you say is heard on this one only".to_owned());
        }
        thread::sleep(back_off.next());
    }
}

/// Hears letters until Redis fails. `reached` is called once our own come back: then both ways are open.
fn hear(
    meeting: &Meeting,
    room: &Room,
    connection: &mut Connection,
    peers: &mut BTreeMap<String, Peer>,
    reached: impl FnOnce(),
) -> RedisResult<()> {
    let mut subscription = connection.as_pubsub();
    subscription.subscribe(&meeting.channel)?;
    subscription.set_read_timeout(Some(PATIENCE))?;
    let mut reached = Some(reached);
    peers.values_mut().for_each(|peer| peer.seen = Instant::now()); // nobody could write meanwhile
    loop {
        let line: String = subscription.get_message()?.get_payload()?;
        match Arrived::read(&line) {
            Some(arrived) if arrived.from == meeting.us => reached.take().into_iter().for_each(|call| call()),
            Some(arrived) => take(room, peers, arrived),
            None => log::debug!("not a letter of a chat server: {line:?}"),
        }
        forget_the_gone(room, peers);
    }
}

/// Does what a letter says.
fn take(room: &Room, peers: &mut BTreeMap<String, Peer>, arrived: Arrived) {
    let Arrived { from, said, letter } = arrived;
    // Nothing that was said before we met is lost: nobody here could have heard it.
    let ours = u64::from(matches!(letter, Letter::Said(_)));
    let peer = peers.entry(from.clone()).or_insert_with(|| Peer { said: said - ours.min(said), seen: Instant::now() });
    peer.seen = Instant::now();
    let lost = said.saturating_sub(peer.said + ours);
    peer.said = peer.said.max(said);
    match lost {
        0 => {}
        1 => room.tell("* 1 message from another server was lost".to_owned()),
        n => room.tell(format!("* {n} messages from another server were lost")),
    }
    match letter {
        Letter::Said(text) => room.tell(text),
        Letter::Joined(name) => room.join_elsewhere(&from, name),
        Letter::Left(name) => room.leave_elsewhere(&from, &name),
        Letter::Here(names) => room.set_elsewhere(&from, &names),
    }
}

/// The members of servers that no longer write have left.
fn forget_the_gone(room: &Room, peers: &mut BTreeMap<String, Peer>) {
    peers.retain(|server, peer| {
        let is_gone = peer.seen.elapsed() > GONE;
        if is_gone {
            room.set_elsewhere(server, &[]);
        }
        !is_gone
    });
}
