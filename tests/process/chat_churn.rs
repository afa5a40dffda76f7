//! A room of a thousand members that join, leave, are killed, and never read: on one loop and on several. The test's own
//! thread is all clients at once, by a selector. 5 s; with `SOAK=1` a minute.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::kit::{connect, ms, serve, Running, LONG};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeValLike;
use nix::time::{clock_gettime, ClockId};
use socketserver::event_loop::FramedTransport;
use socketserver::event_loop::{Lines, Peer};
use socketserver::selectors::{Events, Selector};
use socketserver::ServerBuilder;
use socketserver::{factory, lines, EventLoop, EventLoops, Group, HandlerResult, LineReceiver};

/// Members that read, and members that do not.
const READERS: usize = 1000;
const MUTE: usize = 8;
/// The members that speak, and those that come and go, in a round.
const SPEAKERS: usize = 4;
const CHANGES: usize = 12;
/// A text that many queues share.
const LONG_TEXT: usize = 2000;
/// What is queued for a member.
const QUEUE: usize = 256 << 10;

/// Says to all what it hears; `flood` is for members that do not read.
struct Member {
    room: Group,
    mutes: Group,
}

impl LineReceiver for Member {
    fn connection_made(&mut self, transport: &mut FramedTransport<'_>) -> HandlerResult {
        transport.join(self.room);
        transport.send_line("welcome")
    }

    fn line_received(&mut self, transport: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        match line {
            b"mute" => drop(transport.join(self.mutes)),
            b"flood" => drop(transport.broadcast(self.mutes, &[b'x'; 64 << 10], None)),
            _ => drop(transport.broadcast(self.room, &[line, b"\n"].concat(), None)),
        }
        Ok(())
    }
}

fn members() -> impl Fn(&Peer) -> Lines<Member> + Send + Sync {
    let (room, mutes) = (Group::new(), Group::new());
    factory(move |_peer: &Peer| lines(Member { room, mutes }))
}

fn builder() -> ServerBuilder {
    ServerBuilder::new().max_connections(READERS + MUTE + 100)
}

#[test]
fn a_thousand_members_come_and_go_in_one_loop() {
    alone!();
    let server = builder().strategy(EventLoop::new().max_queued(QUEUE)).bind("127.0.0.1:0", members());
    churn(serve(server.unwrap()));
}

#[test]
fn a_thousand_members_come_and_go_in_two_loops() {
    alone!();
    let loops = EventLoops::new(2).each(EventLoop::new().max_queued(QUEUE));
    churn(serve(builder().strategy(loops).bind("127.0.0.1:0", members()).unwrap()));
}

fn churn(server: Running) {
    let mut crowd = Crowd::new(server.addr());
    (0..READERS).for_each(|_| crowd.join());
    crowd.pump_until("all are welcome", |crowd| crowd.all_are_welcome());
    let before = resident();
    let began = Instant::now();
    let least = Duration::from_secs(if std::env::var_os("SOAK").is_some() { 60 } else { 5 });
    let mut most = 0;
    // A busy machine takes longer for the rounds that show something.
    while began.elapsed() < least || crowd.rounds <= 20 || crowd.cut_mutes == 0 {
        assert!(began.elapsed() < least + 10 * LONG, "{} rounds, {} cut", crowd.rounds, crowd.cut_mutes);
        crowd.round();
        most = most.max(resident());
    }
    crowd.pump_until("every reader has every text that was said since it came", Crowd::all_have_all);
    assert!(most < before + (100 << 20), "{} MiB more than before", (most - before) >> 20);
    assert_idle();
    let stats = server.handle.stats();
    assert_eq!(stats.panicked, 0, "{stats}, {} rounds", crowd.rounds);
    // A member that never read was cut, and another one came in its place. A killed one has gone, or failed with a write.
    assert!(stats.failed > 0, "{stats}, {} cut", crowd.cut_mutes);
    drop(crowd);
    assert_eq!(server.stop().forced, 0);
}

/// A thousand connections that are silent, and some whose output is stuck, cost no time: less than 5 %, once what was
/// begun is done.
fn assert_idle() {
    let used = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().num_nanoseconds();
    let of_a_second = || {
        let before = used();
        std::thread::sleep(ms(1000));
        used() - before
    };
    let by = Instant::now() + LONG;
    let mut last = of_a_second();
    while last >= 50_000_000 && Instant::now() < by {
        last = of_a_second();
    }
    assert!(last < 50_000_000, "{} ms of each second's silence", last / 1_000_000);
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A client that reads.
struct Reader {
    stream: TcpStream,
    /// Its name, which no other has had.
    name: usize,
    /// The round in which it was welcome.
    since: Option<usize>,
    /// What has come after the last line end.
    rest: Vec<u8>,
    /// The number of the last text of each speaker.
    heard: HashMap<usize, usize>,
    said: usize,
}

/// All clients.
struct Crowd {
    addr: SocketAddr,
    selector: Selector<()>,
    readers: HashMap<RawFd, Reader>,
    mutes: Vec<TcpStream>,
    cut_mutes: usize,
    names: usize,
    rounds: usize,
    /// By speaker: how many texts, and when the first one was said.
    said: HashMap<usize, (usize, usize)>,
    dice: u64,
}

impl Crowd {
    fn new(addr: SocketAddr) -> Self {
        let selector = Selector::new().unwrap();
        let (readers, mutes, said) = (HashMap::new(), Vec::new(), HashMap::new());
        Self { addr, selector, readers, mutes, cut_mutes: 0, names: 0, rounds: 0, said, dice: 7 }
    }

    /// One of this number, the same in each run.
    fn any(&mut self, of: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % of
    }

    fn anybody(&mut self) -> RawFd {
        let welcome = self.readers.iter().filter(|(_, reader)| reader.since.is_some());
        let mut all: Vec<RawFd> = welcome.map(|(fd, _)| *fd).collect();
        all.sort_unstable();
        all[self.any(all.len())]
    }

    fn join(&mut self) {
        let stream = connect(self.addr);
        stream.set_nonblocking(true).unwrap();
        self.selector.register(&stream, Events::READ, ()).unwrap();
        let (rest, heard) = (Vec::new(), HashMap::new());
        let reader = Reader { stream, name: self.names, since: None, rest, heard, said: 0 };
        self.names += 1;
        self.readers.insert(reader.stream.as_raw_fd(), reader);
    }

    fn join_mute(&mut self) {
        let mut stream = connect(self.addr);
        setsockopt(&stream, sockopt::RcvBuf, &4096).unwrap();
        stream.write_all(b"mute\n").unwrap();
        self.mutes.push(stream);
    }

    /// In order, or by a reset.
    fn leave(&mut self, fd: RawFd, killed: bool) {
        let reader = self.readers.remove(&fd).unwrap();
        self.selector.unregister(&fd).unwrap();
        if killed {
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&reader.stream, sockopt::Linger, &linger).unwrap();
        }
    }

    fn say(&mut self, fd: RawFd, long: bool) {
        let round = self.rounds;
        let reader = self.readers.get_mut(&fd).unwrap();
        let text = format!("{}.{}", reader.name, reader.said);
        let padding = if long { LONG_TEXT } else { 40 };
        reader.stream.write_all(format!("{text:<padding$}\n").as_bytes()).unwrap();
        reader.said += 1;
        self.said.entry(reader.name).or_insert((0, round)).0 = reader.said;
    }

    /// Some speak, which all hear; then some go, and others come.
    fn round(&mut self) {
        self.rounds += 1;
        let speakers: Vec<RawFd> = (0..SPEAKERS).map(|_| self.anybody()).collect();
        for (n, fd) in speakers.iter().enumerate() {
            self.say(*fd, n == 0 && self.rounds % 4 == 0);
        }
        for fd in &speakers {
            let heard = |crowd: &Crowd| {
                let name = crowd.readers[fd].name;
                speakers.iter().all(|reader| crowd.readers[reader].heard.get(&name) == Some(&(crowd.said[&name].0 - 1)))
            };
            self.pump_until("the speakers hear each other", heard);
        }
        for change in 0..CHANGES {
            let fd = self.anybody();
            self.leave(fd, change % 2 == 0);
        }
        (0..CHANGES).for_each(|_| self.join());
        self.mutes_go_on();
    }

    fn mutes_go_on(&mut self) {
        let before = self.mutes.len();
        self.mutes.retain(|mute| !matches!(mute.take_error(), Ok(Some(_)) | Err(_))); // reset
        self.cut_mutes += before - self.mutes.len();
        while self.mutes.len() < MUTE {
            self.join_mute();
        }
        let fd = self.anybody();
        let flood = b"flood\nflood\nflood\n";
        self.readers.get_mut(&fd).unwrap().stream.write_all(flood).unwrap();
    }

    fn all_are_welcome(&self) -> bool {
        self.readers.values().all(|reader| reader.since.is_some())
    }

    /// Texts of speakers that have begun after a reader was there; the last of each.
    fn all_have_all(&self) -> bool {
        self.readers.values().all(|reader| {
            let since = reader.since.unwrap_or(usize::MAX);
            let mut said = self.said.iter().filter(|(_, (_, first))| *first > since);
            said.all(|(name, (texts, _))| reader.heard.get(name) == Some(&(texts - 1)))
        })
    }

    fn pump_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let by = Instant::now() + LONG;
        while !done(self) {
            assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
            for (key, _) in self.selector.select(Some(ms(100))).unwrap() {
                self.read(key.as_raw_fd());
            }
        }
    }

    fn read(&mut self, fd: RawFd) {
        let Some(reader) = self.readers.get_mut(&fd) else { return };
        let mut buffer = [0; 64 << 10];
        match reader.stream.read(&mut buffer) {
            Ok(0) => panic!("member {} was closed", reader.name),
            Ok(n) => reader.hear(&buffer[..n], self.rounds, &self.said),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("member {} that reads was cut: {e}", reader.name),
        }
    }
}

impl Reader {
    fn hear(&mut self, bytes: &[u8], round: usize, said: &HashMap<usize, (usize, usize)>) {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return };
        let later = self.rest.split_off(end + 1);
        for line in std::mem::replace(&mut self.rest, later).split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
            let line = std::str::from_utf8(line).unwrap().trim_end();
            let Some((speaker, text)) = line.split_once('.') else {
                assert_eq!((line, self.since.replace(round)), ("welcome", None));
                continue;
            };
            let (speaker, text): (usize, usize) = (speaker.parse().unwrap(), text.parse().unwrap());
            match self.heard.insert(speaker, text) {
                Some(last) => assert_eq!(text, last + 1, "member {}: of {speaker}", self.name),
                None => {
                    let first = said[&speaker].1;
                    let was_here = self.since.is_some_and(|since| since < first);
                    assert!(text == 0 || !was_here, "member {}: {text} is the first of {speaker}", self.name);
                }
            }
        }
    }
}
