//! The tokens of epoll's events that are no connection's.
//!
//! A connection's token is its whole id, generation included, so a late event finds nothing. A port's token has no room
//! for a generation.

pub(crate) const STOP: u64 = u64::MAX;
pub(crate) const NOW: u64 = u64::MAX - 1;
pub(crate) const GATE: u64 = u64::MAX - 2;
pub(crate) const INBOX: u64 = u64::MAX - 3;
pub(crate) const RESTART: u64 = u64::MAX - 4;
/// The clients' attempts to connect: one bit, which no connection's token has.
pub(crate) const CONNECTORS: u64 = 1 << 63;
/// The connections that are greeted: one bit more.
pub(crate) const GREETINGS: u64 = 1 << 63 | 1 << 62;
/// The datagram sockets, from here up, by their port's slot.
pub(crate) const DATAGRAMS: u64 = u64::MAX - (1 << 30);
/// The listeners, from here up, by their port's slot.
pub(crate) const PORTS: u64 = u64::MAX - (1 << 31);

/// The sockets of one port have tokens side by side.
pub(crate) const PER_PORT: usize = 64;
/// The most ports of a kind at a time. More would have the tokens of something else.
pub(crate) const AT_A_TIME: usize = 1 << 20;

/// Returns the token of a port's socket, made of the port's slot. A late event of a closed port finds its successor,
/// and a look at the successor does no harm.
pub(crate) fn of(kind: u64, index: usize, number: usize) -> u64 {
    kind + (index * PER_PORT + number) as u64
}

/// Returns the port's slot, and the number of its socket.
pub(crate) fn place(kind: u64, token: u64) -> (usize, usize) {
    let number = (token - kind) as usize;
    (number / PER_PORT, number % PER_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_ports_of_each_kind_have_tokens_of_their_own() {
        for (index, number) in [(0, 0), (16_384, 0), (AT_A_TIME - 1, PER_PORT - 1)] {
            for (kind, range) in [(PORTS, PORTS..DATAGRAMS), (DATAGRAMS, DATAGRAMS..RESTART)] {
                let token = of(kind, index, number);
                assert!(range.contains(&token));
                assert_eq!(place(kind, token), (index, number));
            }
        }
    }
}
