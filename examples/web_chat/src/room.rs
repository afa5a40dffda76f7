//! The members of the room, and what a message of a member does. It sends nothing: each variant does that in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::allowance::Allowance;
use crate::broker::{Broker, Letter};

/// Longest name and longest message, in characters.
const NAME: usize = 32;
const TEXT: usize = 2000;

/// What members by lines are told at a stop; a browser gets code 1001.
pub const STOPPING: &str = "* the server stops";

/// Why the connection of a member ends who says too much.
pub const FLOOD: &str = "a member says too much at once";

/// Tells a text to every member on this machine.
type Tell = Box<dyn Fn(String) + Send + Sync>;

/// One value for all members, which may be on many threads.
#[derive(Default)]
pub struct Room {
    /// Messages that a member may say in a second.
    most_said: u32,
    people: Mutex<People>,
    next_seat: AtomicU64,
    /// Messages that members have said here, and copies of them and of news that were sent out.
    pub said: AtomicU64,
    pub delivered: AtomicU64,
    tell: OnceLock<Tell>,
    broker: OnceLock<Broker>,
}

#[derive(Default)]
struct People {
    /// The names of the members on this machine, by their seats.
    here: BTreeMap<u64, String>,
    /// The names on other machines, by their servers.
    elsewhere: BTreeMap<String, BTreeSet<String>>,
}

impl People {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.here.values().chain(self.elsewhere.values().flatten())
    }
}

/// What a message does: what its member is told, and what all others are told.
#[derive(Default)]
pub struct Effect {
    pub reply: Option<String>,
    pub news: Option<String>,
    /// True if the member says too much: told so, it must go.
    pub is_flood: bool,
}

impl Effect {
    fn reply(text: impl Into<String>) -> Self {
        Self { reply: Some(text.into()), ..Self::default() }
    }
}

impl Room {
    /// A room whose members may say so many messages in a second each.
    pub fn new(most_said: u32) -> Self {
        Self { most_said, ..Self::default() }
    }

    fn people(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many members there are on this machine.
    pub fn members(&self) -> usize {
        self.people().here.len()
    }

    /// Their names.
    pub fn names_here(&self) -> Vec<String> {
        self.people().here.values().cloned().collect()
    }

    /// Says how to tell a text to every member here. Once, by the variant that serves.
    pub fn set_tell(&self, tell: impl Fn(String) + Send + Sync + 'static) {
        let _ = self.tell.set(Box::new(tell)); // the first one stays
    }

    /// Tells a text to every member here.
    pub fn tell(&self, text: String) {
        if let Some(tell) = self.tell.get() {
            tell(text);
        }
    }

    /// From now on, the broker passes on what is said here.
    pub fn set_broker(&self, broker: Broker) {
        let _ = self.broker.set(broker); // the first one stays
    }

    /// Passes news on to the other machines.
    fn publish(&self, letter: Letter) {
        if let Some(broker) = self.broker.get() {
            broker.send(letter);
        }
    }

    /// Sends what is on its way to other machines.
    pub fn finish(&self) {
        if let Some(broker) = self.broker.get() {
            broker.finish();
        }
    }

    /// A member has come on another machine.
    pub fn join_elsewhere(&self, server: &str, name: String) {
        let is_new = self.people().elsewhere.entry(server.to_owned()).or_default().insert(name.clone());
        if is_new {
            self.tell(joined(&name));
        }
    }

    /// A member has gone on another machine.
    pub fn leave_elsewhere(&self, server: &str, name: &str) {
        let was_here = self.people().elsewhere.get_mut(server).is_some_and(|names| names.remove(name));
        if was_here {
            self.tell(left(name));
        }
    }

    /// Replaces the names on another machine. What differs from what is known is told.
    pub fn set_elsewhere(&self, server: &str, names: &[String]) {
        let names: BTreeSet<String> = names.iter().cloned().collect();
        let before = match names.is_empty() {
            true => self.people().elsewhere.remove(server),
            false => self.people().elsewhere.insert(server.to_owned(), names.clone()),
        };
        let before = before.unwrap_or_default();
        before.difference(&names).for_each(|name| self.tell(left(name)));
        names.difference(&before).for_each(|name| self.tell(joined(name)));
    }
}

fn joined(name: &str) -> String {
    format!("* {name} has joined")
}

fn left(name: &str) -> String {
    format!("* {name} has left")
}

/// One connection's place in the room, named or not. Its member leaves when it is dropped.
pub struct Seat {
    room: Arc<Room>,
    number: u64,
    name: Option<String>,
    allowance: Allowance,
}

impl Seat {
    pub fn new(room: &Arc<Room>) -> Self {
        let (number, allowance) = (room.next_seat.fetch_add(1, Relaxed), Allowance::new(room.most_said));
        Self { room: room.clone(), number, name: None, allowance }
    }

    /// Which no other seat has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True once the member has a name.
    pub fn has_joined(&self) -> bool {
        self.name.is_some()
    }

    /// Takes a message: the first one is a name.
    pub fn hear(&mut self, text: &str) -> Effect {
        if !self.allowance.take(Instant::now()) {
            let most = self.room.most_said;
            return Effect {
                is_flood: true,
                ..Effect::reply(format!("* too much at once: at most {most} messages a second"))
            };
        }
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        match &self.name {
            None => self.join(&text),
            Some(_) if text.is_empty() => Effect::default(),
            Some(_) if text == "/who" => self.who(),
            Some(_) if text.starts_with('/') => Effect::reply("* there is /who, and no other command"),
            Some(_) if text.chars().count() > TEXT => Effect::reply(format!("* at most {TEXT} characters")),
            Some(name) => {
                self.room.said.fetch_add(1, Relaxed);
                let news = format!("{name}: {text}");
                self.room.publish(Letter::Said(news.clone()));
                Effect { news: Some(news), ..Effect::default() }
            }
        }
    }

    fn join(&mut self, name: &str) -> Effect {
        if name.is_empty() || name.chars().count() > NAME || name.contains([':', ',', '*', '/']) {
            return Effect::reply(format!("* a name has 1 to {NAME} characters, and no : , * /"));
        }
        let mut people = self.room.people();
        if people.names().any(|other| other == name) {
            return Effect::reply(format!("* {name} is taken"));
        }
        people.here.insert(self.number, name.to_owned());
        drop(people);
        self.name = Some(name.to_owned());
        self.room.publish(Letter::Joined(name.to_owned()));
        let news = Some(joined(name));
        Effect { reply: news.clone(), news, is_flood: false }
    }

    fn who(&self) -> Effect {
        let mut names: Vec<String> = self.room.people().names().cloned().collect();
        names.sort();
        Effect::reply(format!("* here: {}", names.join(", ")))
    }

    /// Leaves the room; returns what the others are told.
    pub fn leave(&mut self) -> Option<String> {
        let name = self.name.take()?;
        self.room.people().here.remove(&self.number);
        self.room.publish(Letter::Left(name.clone()));
        Some(left(&name))
    }
}
