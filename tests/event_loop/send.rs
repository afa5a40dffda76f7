//! Writing more than one buffer: several at once, readers and files, in order, in bounded memory.

use crate::kit;
use crate::script;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use crate::script::{with, Journal, Script};
use socketserver::event_loop::{ConnId, LostReason, WriteError};
use socketserver::testing::TestLoop;
use socketserver::{factory, EventLoop, HandlerResult, Protocol, Transport};

const SECOND: Duration = Duration::from_secs(1);
const HIGH: usize = 64 << 10;

/// Bytes that tell where they are; counts what was read, and whether it was dropped.
#[derive(Clone, Default)]
struct Numbers {
    left: usize,
    read: Rc<Cell<usize>>,
    drops: Rc<RefCell<()>>,
}

impl Numbers {
    fn new(len: usize) -> Self {
        Self { left: len, ..Self::default() }
    }

    fn byte(at: usize) -> u8 {
        (at % 251) as u8
    }
}

impl Read for Numbers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.left.min(buffer.len());
        let at = self.read.get();
        buffer[..n].iter_mut().enumerate().for_each(|(i, byte)| *byte = Self::byte(at + i));
        self.read.set(at + n);
        self.left -= n;
        Ok(n)
    }
}

fn are_numbers(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, byte)| *byte == Numbers::byte(at))
}

#[test]
fn several_buffers_are_written_as_one_or_not_at_all() {
    let settings = EventLoop::new().water_marks(1, 50).max_queued(100);
    let (mut test, results) = (TestLoop::with(settings).unwrap(), Rc::new(Cell::new([Ok(()); 4])));
    let theirs = results.clone();
    let id = test.connect(Script::new(&Journal::default()).on("data", move |t, _| {
        let parts = [&b"hello"[..], b"", b", ", b"world"].map(IoSlice::new);
        let first = t.write_vectored(&parts);
        assert_eq!(t.queued(), 12);
        let (nothing, fits) = (t.write_vectored(&[]), t.write_vectored(&[IoSlice::new(&[b'.'; 88])]));
        let too_much = t.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"!")]);
        theirs.set([first, nothing, fits, too_much]);
        Ok(())
    }));
    test.hold(id, b"go");
    test.turn();
    let [first, nothing, fits, too_much] = results.get();
    assert_eq!((first, nothing, fits), (Ok(()), Ok(()), Ok(())));
    assert!(matches!(too_much, Err(WriteError::QueueFull(_))) && test.is_lost(id));
    let (mut test, id, _) = with(|t, _| {
        t.write_vectored(&[IoSlice::new(b"one, "), IoSlice::new(b"two")])?;
        t.close();
        assert_eq!(t.write_vectored(&[IoSlice::new(b"late")]), Err(WriteError::Closed));
        Ok(())
    });
    test.feed(id, b"go");
    assert_eq!((test.output(id), test.sends(id)), (b"one, two".to_vec(), 1));
}

#[test]
fn a_reader_is_sent_between_what_was_written_before_and_afterwards() {
    let (mut test, id, journal) = with(|t, _| {
        t.write(b"<")?;
        t.send_reader(&b"one"[..])?;
        t.send_reader(io::empty())?;
        t.write(b"|")?;
        t.send_reader(&b"two"[..])?;
        t.write(b">")?;
        assert_eq!(t.queued(), 3, "readers do not count");
        Ok(())
    });
    test.feed(id, b"go");
    assert_eq!(test.output(id), b"<one|two>");
    assert_eq!(journal.take(), "data:go pause resume transfer transfer transfer");
    for step in 1..9 {
        test.take_at_most(id, 0);
        test.feed(id, b"again");
        let mut got = Vec::new();
        for _ in 0..9 {
            test.take_at_most(id, step);
            got.extend(test.output(id));
        }
        assert_eq!(got, b"<one|two>", "{step}");
        test.take_at_most(id, usize::MAX);
        assert_eq!(journal.take(), "data:again pause resume transfer transfer transfer", "{step}");
    }
}

#[test]
fn only_as_much_is_read_as_the_peer_takes() {
    const ALL: usize = 20 << 20; // more than the hard cap
    let numbers = Numbers::new(ALL);
    let (read, drops) = (numbers.read.clone(), Rc::downgrade(&numbers.drops));
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let reader = Cell::new(Some(numbers));
    let id = test.connect(Script::new(&journal).on("data", move |t, data| match reader.take() {
        Some(numbers) => Ok(t.send_reader(numbers)?),
        None => Ok(t.write(data)?),
    }));
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    assert!(read.get() <= HIGH, "{}", read.get());
    test.feed(id, b"echo");
    assert_eq!(journal.take(), "made data:go data:echo", "a reader does not pause reading");
    let mut got = Vec::new();
    while drops.upgrade().is_some() {
        test.take_at_most(id, 300_000);
        got.extend(test.output(id));
        assert!(read.get() <= got.len() + HIGH, "{} of {}", read.get(), got.len());
    }
    test.take_at_most(id, 10);
    got.extend(test.output(id));
    assert!(got.len() == ALL + 4 && are_numbers(&got[..ALL]) && got.ends_with(b"echo"));
    assert_eq!(journal.take(), "transfer");
}

#[test]
fn a_small_high_water_mark_bounds_what_is_read_at_once() {
    let mut test = TestLoop::with(EventLoop::new().water_marks(1, 100).max_queued(100)).unwrap();
    let numbers = Numbers::new(1000);
    let (read, reader) = (numbers.read.clone(), Cell::new(Some(numbers)));
    let id = test.connect(Script::new(&Journal::default()).on("data", move |t, _| {
        t.send_reader(reader.take().unwrap_or_default())?;
        Ok(t.write(&[b'.'; 100])?)
    }));
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    assert_eq!(read.get(), 100);
    test.take_at_most(id, usize::MAX);
    let got = test.output(id);
    assert!(are_numbers(&got[..1000]) && got.len() == 1100);
}

#[test]
fn a_peer_that_takes_all_of_a_long_reader_holds_nobody_up() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("data", |t, _| Ok(t.send_reader(Numbers::new(10 << 20))?)));
    let other = test.connect(Script::new(&journal).on("data", |t, data| Ok(t.write(data)?)));
    test.hold(id, b"go");
    test.hold(other, b"hello");
    test.turn();
    let first = test.output(id).len();
    assert_eq!(test.output(other), b"hello");
    assert!(first <= 512 << 10, "{first}: once after its callback, once at the end of the turn");
    test.settle();
    assert_eq!(test.output(id).len(), (10 << 20) - first);
}

#[test]
fn close_sends_all_of_it_and_abort_drops_it() {
    for abort in [false, true] {
        let numbers = Numbers::new(1 << 20);
        let (drops, reader) = (Rc::downgrade(&numbers.drops), Cell::new(Some(numbers)));
        let (mut test, id, journal) = with(move |t, _| {
            t.send_reader(reader.take().unwrap_or_default())?;
            t.write(b"last")?;
            t.close();
            assert_eq!(t.send_reader(io::empty()), Err(WriteError::Closed));
            Ok(())
        });
        test.take_at_most(id, 1000);
        test.feed(id, b"go");
        assert!(test.is_closing(id) && !test.is_lost(id));
        if abort {
            test.act(|cx| cx.abort_connection(id));
            assert_eq!(journal.take(), "data:go lost:aborted, 4 bytes unsent");
        } else {
            test.take_at_most(id, usize::MAX);
            let got = test.output(id);
            assert!(are_numbers(&got[..1 << 20]) && got.len() == (1 << 20) + 4);
            assert_eq!(journal.take(), "data:go lost:closed", "nothing is told once it closes");
        }
        assert!(test.is_lost(id) && drops.upgrade().is_none());
    }
}

/// Fails after this number of bytes.
struct Fails(usize, fn() -> io::Result<usize>);

impl Read for Fails {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {
            0 => (self.1)(),
            left => {
                let n = left.min(buffer.len());
                self.0 -= n;
                Ok(n)
            }
        }
    }
}

#[test]
fn a_reader_that_fails_ends_the_connection_after_what_was_before() {
    type Read = fn() -> io::Result<usize>;
    let cases: [(Read, &str, u64); 3] = [
        (|| Err(io::Error::other("bad sector")), "failed: cannot read what is to be sent: bad sector", 0),
        (|| Err(io::ErrorKind::WouldBlock.into()), "failed: cannot read what is to be sent: operation would block", 0),
        (|| panic!("asked to"), "panicked: asked to", 1),
    ];
    for (fails, reason, panicked) in cases {
        for closes in [false, true] {
            let (mut test, id, journal) = with(move |t, _| {
                t.write(b"before")?;
                t.send_reader(Fails(100_000, fails))?;
                t.write(b"never")?;
                if closes {
                    t.close();
                }
                Ok(())
            });
            test.take_at_most(id, 50_000);
            test.feed(id, b"go");
            test.take_at_most(id, usize::MAX);
            assert_eq!(test.output(id).len(), 100_006);
            assert_eq!(journal.take(), format!("data:go lost:{reason}, 5 bytes unsent"));
            assert!(!test.is_reset(id), "what was sent is not put at risk");
            let stats = test.reactor().server().stats();
            assert_eq!((stats.failed, stats.panicked), (1, panicked));
        }
    }
}

#[test]
fn a_read_that_is_interrupted_is_tried_again_and_one_that_lies_is_not_believed() {
    struct Odd(u8);
    impl Read for Odd {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => Ok(buffer.len() + 1000),
                _ => Ok(0),
            }
        }
    }
    let (mut test, id, journal) = with(|t, _| Ok(t.send_reader(Odd(0))?));
    test.feed(id, b"go");
    assert_eq!((test.output(id).len(), journal.take().as_str()), (HIGH, "data:go transfer"));
}

#[test]
fn limits_and_the_drain_hold_while_it_is_sent() {
    let (mut test, id, journal) = with(|t, _| {
        t.set_idle_timeout(Some(SECOND));
        Ok(t.send_reader(Numbers::new(1 << 20))?)
    });
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    test.advance(29 * SECOND);
    assert!(!test.is_lost(id), "it is not idle");
    test.take_at_most(id, 100_000);
    test.take_at_most(id, 0);
    test.advance(29 * SECOND);
    test.act(|cx| cx.shutdown(100 * SECOND));
    assert!(!test.is_closing(id), "nor for a drain");
    test.advance(SECOND);
    let end = "lost:write limit of 30s exceeded".to_owned();
    assert!(test.is_lost(id) && journal.take().ends_with(&end));
    let (mut test, id, journal) = with(|t, _| Ok(t.send_reader(Numbers::new(1 << 20))?));
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    test.act(|cx| cx.shutdown(100 * SECOND));
    test.take_at_most(id, usize::MAX);
    assert!(test.output(id).len() == 1 << 20 && test.is_lost(id));
    assert!(journal.take().ends_with("transfer lost:the server stops"));
}

#[test]
fn the_next_one_is_sent_when_one_is_complete() {
    let left = Cell::new(3);
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("data", |t, _| Ok(t.send_reader(&b"first "[..])?));
    let id = test.connect(script.on("transfer", move |t, _| {
        left.set(left.get() - 1);
        match left.get() {
            0 => t.close(),
            _ => t.send_reader(&b"next "[..])?,
        }
        Ok(())
    }));
    test.feed(id, b"go");
    assert_eq!(test.output(id), b"first next next ");
    assert_eq!(journal.take(), "made data:go transfer transfer transfer lost:closed");
}

/// A file without a name.
fn file(text: &[u8]) -> File {
    let folder = kit::Folder::new();
    let file = File::options().read(true).write(true).create_new(true).open(folder.path("file")).unwrap();
    file.write_all_at(text, 0).unwrap();
    file
}

#[test]
fn a_file_is_sent_whole_or_in_part() {
    let (mut test, id, journal) = with(|t, _| {
        let file = file(b"0123456789");
        t.send_file(file.try_clone()?, ..)?;
        t.write(b"|")?;
        t.send_file(file.try_clone()?, 2..4)?;
        t.write(b"|")?;
        t.send_file(file.try_clone()?, 8..)?;
        t.write(b"|")?;
        Ok(t.send_file(file, 0..0)?)
    });
    test.feed(id, b"go");
    assert_eq!(test.output(id), b"0123456789|23|89|");
    assert_eq!(journal.take(), "data:go pause resume transfer transfer transfer transfer");
}

#[test]
fn a_file_that_is_shorter_than_told_is_an_error() {
    let file = file(&[b'x'; 200_000]);
    let theirs = file.try_clone().unwrap();
    let kind = Rc::new(Cell::new(None));
    let (mut test, heard) = (TestLoop::new().unwrap(), kind.clone());
    let script = Script::new(&Journal::default()).on("data", move |t, _| {
        t.send_file(theirs.try_clone()?, ..)?;
        Ok(t.write(b"never")?)
    });
    let id = test.connect(script.at_loss(move |_, why| {
        if let LostReason::Error(e) = &why.reason {
            heard.set(e.downcast_ref::<io::Error>().map(io::Error::kind));
        }
    }));
    test.take_at_most(id, 10);
    test.feed(id, b"go");
    file.set_len(100_000).unwrap();
    test.take_at_most(id, usize::MAX);
    assert!(test.is_lost(id), "no hang");
    assert_eq!((test.output(id).len(), kind.get()), (100_000, Some(io::ErrorKind::UnexpectedEof)));
}

#[test]
fn what_is_no_file_is_an_error() {
    let (mut test, id, journal) = with(|t, _| Ok(t.send_file(File::open("/proc/self")?, ..)?));
    test.feed(id, b"go");
    assert!(test.is_lost(id));
    let journal = journal.take();
    assert!(journal.contains("cannot read what is to be sent") && journal.contains("os error 21"), "{journal}");
}

/// Over a real socket: a file of 30 MB, and what is written behind it.
#[test]
fn a_large_file_arrives_over_a_socket() {
    const ALL: usize = 30_000_000;
    struct Sends(File);
    impl Protocol for Sends {
        fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            t.send_file(self.0.try_clone()?, ..)?;
            t.write(b"end")?;
            t.close();
            Ok(())
        }
    }
    let mut all = Vec::new();
    Numbers::new(ALL).read_to_end(&mut all).unwrap();
    let file = file(&all);
    let build = factory(move |_| Sends(file.try_clone().unwrap()));
    let looped = script::run(move |reactor| reactor.listen_tcp("127.0.0.1:0", build).unwrap());
    let mut client = kit::connect(looped.addr);
    io::Write::write_all(&mut client, b"go").unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got.len() == ALL + 3 && got[..ALL] == all && got.ends_with(b"end"));
}

#[test]
fn a_lost_connection_drops_its_readers() {
    let endings: [fn(&mut TestLoop, ConnId); 2] =
        [|test, id| test.reset(id), |test, _| test.act(|cx| cx.shutdown(Duration::ZERO))];
    for ending in endings {
        let numbers = Numbers::new(1 << 20);
        let (drops, reader) = (Rc::downgrade(&numbers.drops), numbers);
        let (mut test, id, _) = with(move |t, _| {
            t.send_reader(reader.clone())?;
            Ok(t.send_reader(reader.clone())?)
        });
        test.take_at_most(id, 0);
        test.feed(id, b"go");
        assert_eq!(drops.strong_count(), 3);
        ending(&mut test, id);
        assert!(test.is_lost(id));
        assert_eq!(drops.strong_count(), 0, "and the protocol, which had the original");
    }
}
