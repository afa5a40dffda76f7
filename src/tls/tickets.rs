//! [`Tickets`]: session tickets that every process of a server can open.
//!
//! rustls's own ticketer makes its keys by itself, so a child or a worker could open only its own tickets. Here the keys
//! follow from a secret that is made before any fork, and from the clock. A secret is replaced by a hash of itself every
//! few hours, so that today's secret does not open the tickets of yesterday.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::server::ProducesTickets;

use super::provider::rand::{SecureRandom, SystemRandom};
use super::provider::{aead, hkdf};

/// How long a key makes tickets. It opens them for as long again.
pub(super) const ROTATION: Duration = Duration::from_secs(6 * 3600);

const NAME: usize = 16;
const NONCE: usize = aead::NONCE_LEN;

/// Makes and opens tickets.
pub(super) struct Tickets {
    rotation: Duration,
    /// What a ticket must agree with: a hash of the authorities of client certificates. A ticket carries its client's
    /// certificate, and must not outlive the trust in it.
    context: [u8; 32],
    keys: Mutex<Keys>,
}

struct Keys {
    epoch: u64,
    secret: [u8; 32],
    current: Key,
    previous: Option<([u8; 32], Key)>,
}

/// A key, and the name by which its tickets are known.
struct Key {
    name: [u8; NAME],
    key: aead::LessSafeKey,
}

impl Tickets {
    /// Makes a fresh secret.
    pub(super) fn new(rotation: Duration, context: [u8; 32]) -> io::Result<Self> {
        let mut secret = [0; 32];
        fill_random(&mut secret).ok_or_else(|| io::Error::other("the system gives no random bytes"))?;
        Self::with(rotation, context, epoch(rotation), secret, None)
    }

    /// Makes tickets of the same secret for another context.
    pub(super) fn for_context(&self, context: [u8; 32]) -> io::Result<Self> {
        let keys = self.keys.lock();
        let previous = keys.previous.as_ref().map(|(secret, _)| *secret);
        Self::with(self.rotation, context, keys.epoch, keys.secret, previous)
    }

    fn with(
        rotation: Duration,
        context: [u8; 32],
        epoch: u64,
        secret: [u8; 32],
        previous: Option<[u8; 32]>,
    ) -> io::Result<Self> {
        let derive =
            |secret: &[u8; 32]| Key::of(secret, &context).ok_or_else(|| io::Error::other("cannot derive a ticket key"));
        let current = derive(&secret)?;
        let previous = previous.map(|secret| derive(&secret).map(|key| (secret, key))).transpose()?;
        Ok(Self { rotation, context, keys: Mutex::new(Keys { epoch, secret, current, previous }) })
    }

    /// Moves the keys on to the present. A clock that goes back changes nothing.
    fn turn(&self, keys: &mut Keys) -> Option<()> {
        let now = epoch(self.rotation);
        while keys.epoch < now {
            let mut next = [0; 32];
            derive(&keys.secret, &[b"next"], &mut next)?;
            let key = Key::of(&next, &self.context)?;
            let old = std::mem::replace(&mut keys.current, key);
            keys.previous = Some((std::mem::replace(&mut keys.secret, next), old));
            keys.epoch += 1;
        }
        Some(())
    }
}

impl Key {
    fn of(secret: &[u8; 32], context: &[u8; 32]) -> Option<Self> {
        let (mut name, mut key) = ([0; NAME], [0; 32]);
        derive(secret, &[b"name", context], &mut name)?;
        derive(secret, &[b"key", context], &mut key)?;
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::CHACHA20_POLY1305, &key).ok()?);
        Some(Self { name, key })
    }
}

/// HKDF (RFC 5869) of a secret, for one purpose.
fn derive(secret: &[u8; 32], purpose: &[&[u8]], out: &mut [u8]) -> Option<()> {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret).expand(purpose, Length(out.len())).ok()?.fill(out).ok()
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn fill_random(bytes: &mut [u8]) -> Option<()> {
    SystemRandom::new().fill(bytes).ok()
}

/// Returns the number of the present rotation: the same in all processes of a machine.
fn epoch(rotation: Duration) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    since / rotation.as_secs().max(1)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotation.as_secs() * 2).unwrap_or(u32::MAX)
    }

    // A ticket: the key's name, a nonce, the ciphertext and its tag. `None` makes the client shake hands in full.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = &mut *self.keys.lock();
        self.turn(keys)?;
        let Key { name, key } = &keys.current;
        let mut nonce = [0; NONCE];
        fill_random(&mut nonce)?;
        let mut ticket = [&name[..], &nonce, plain].concat();
        let sealed = &mut ticket[NAME + NONCE..];
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(name), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = &mut *self.keys.lock();
        self.turn(keys)?;
        let (name, nonce) = (ticket.get(..NAME)?, ticket.get(NAME..NAME + NONCE)?);
        let all = std::iter::once(&keys.current).chain(keys.previous.as_ref().map(|(_, key)| key));
        let Key { name, key } = all.into_iter().find(|key| key.name == name)?;
        let mut opened = ticket[NAME + NONCE..].to_vec();
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let len = key.open_in_place(nonce, aead::Aad::from(name), &mut opened).ok()?.len();
        opened.truncate(len);
        Some(opened)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets") // and no key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CONTEXT: [u8; 32] = [0; 32];

    fn tickets() -> Tickets {
        Tickets::new(ROTATION, NO_CONTEXT).unwrap()
    }

    /// As a fork copies them, or as another process has them that has made no ticket for a while.
    fn copy(of: &Tickets) -> Tickets {
        of.for_context(of.context).unwrap()
    }

    fn move_on(tickets: &Tickets) {
        tickets.keys.lock().epoch -= 1;
    }

    #[test]
    fn a_ticket_opens_in_every_process_and_after_one_rotation() {
        let parent = tickets();
        let (child, other) = (copy(&parent), copy(&parent));
        let ticket = child.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
        move_on(&other);
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session", "the previous key opens");
        assert_eq!(copy(&other).decrypt(&ticket).unwrap(), b"session", "after a reload too");
        let later = other.encrypt(b"later").unwrap();
        move_on(&parent);
        assert_eq!(parent.decrypt(&later).unwrap(), b"later", "all come to the same key");
        move_on(&other);
        assert_eq!(other.decrypt(&ticket), None, "two rotations are too many");
    }

    #[test]
    fn what_is_no_ticket_of_ours_does_not_open() {
        let (ours, theirs) = (tickets(), tickets());
        let ticket = ours.encrypt(b"session").unwrap();
        assert_eq!(theirs.decrypt(&ticket), None);
        assert_eq!(ours.for_context([1; 32]).unwrap().decrypt(&ticket), None, "other authorities");
        for len in 0..ticket.len() {
            assert_eq!(ours.decrypt(&ticket[..len]), None);
        }
        for place in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[place] ^= 1;
            assert_eq!(ours.decrypt(&forged), None);
        }
    }

    #[test]
    fn long_sessions_fit_and_no_two_tickets_are_equal() {
        let tickets = tickets();
        let session = vec![7; 20_000];
        let (one, other) = (tickets.encrypt(&session).unwrap(), tickets.encrypt(&session).unwrap());
        assert_ne!(one, other);
        assert_eq!(tickets.decrypt(&one).unwrap(), session);
    }
}
