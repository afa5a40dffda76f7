//! What epoll tells that is no connection: numbers that no connection's has.

pub(crate) const STOP: u64 = u64::MAX;
pub(crate) const NOW: u64 = u64::MAX - 1;
pub(crate) const GATE: u64 = u64::MAX - 2;
pub(crate) const INBOX: u64 = u64::MAX - 3;
/// One bit, which no connection's number has: the clients' attempts to connect.
pub(crate) const CONNECTORS: u64 = 1 << 63;
/// And above: the sockets of datagrams, by their place.
pub(crate) const DATAGRAMS: u64 = u64::MAX - (1 << 30);
/// And above: the listeners, by theirs.
pub(crate) const PORTS: u64 = u64::MAX - (1 << 31);

/// The sockets of one port have tokens side by side.
pub(crate) const PER_PORT: usize = 64;
/// More ports of a kind at a time than this would have the tokens of something else.
pub(crate) const AT_A_TIME: usize = 1 << 20;

/// Of a socket of a port, by the port's place alone: an event of a port that is closed by then has the one that follows
/// it there looked at, in vain.
pub(crate) fn of(kind: u64, index: usize, number: usize) -> u64 {
    kind + (index * PER_PORT + number) as u64
}

/// The port's place, and the number of its socket.
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
            for (kind, range) in [(PORTS, PORTS..DATAGRAMS), (DATAGRAMS, DATAGRAMS..INBOX)] {
                let token = of(kind, index, number);
                assert!(range.contains(&token));
                assert_eq!(place(kind, token), (index, number));
            }
        }
    }
}
