//! Rate limits: exact over time, shared in equal parts, and no reason that undoes another's pause.

use crate::script;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::script::teller::assert_no_spin;
use crate::script::{limited_reader as reader, Journal, Script};
use socketserver::event_loop::{ConnId, RateLimit};
use socketserver::testing::TestLoop;
use socketserver::{factory, HandlerResult, Protocol, Transport};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A connection whose writing has this limit.
fn writer(test: &mut TestLoop, limit: &RateLimit) -> ConnId {
    let limit = limit.clone();
    test.connect(Script::new(&Journal::default()).keep_open().on("made", move |t, _| {
        t.limit_writing(&limit);
        Ok(())
    }))
}

/// What has passed is never more than the burst and the rate allow, and little less.
fn assert_rate(passed: usize, burst: usize, rate: usize, time: Duration) {
    let may = burst + (rate as u128 * time.as_nanos() / 1_000_000_000) as usize;
    assert!(passed <= may, "{passed} of {may} in {time:?}");
    assert!(passed + rate / 50 + 1 >= may, "{passed} of {may} in {time:?}");
}

#[test]
fn reading_is_exact_over_time() {
    for (rate, burst) in [(1000, 1000), (1000, 1), (50, 500), (3_000_000, 100_000)] {
        let mut test = TestLoop::new().unwrap();
        let limit = RateLimit::new(rate as u64).burst(burst as u64);
        let (id, got) = reader(&mut test, &limit);
        for _ in 0..100 {
            test.hold(id, &[b'x'; 100_000]);
        }
        test.settle();
        let mut time = Duration::ZERO;
        for step in [1, 7, 100, 900, 333, 659, 1].map(|n| n * MS) {
            assert_rate(got.get(), burst, rate, time);
            test.advance(step);
            time += step;
        }
    }
}

#[test]
fn writing_is_exact_over_time() {
    for (rate, burst) in [(1000, 1000), (1000, 1), (50, 500), (3_000_000, 100_000)] {
        let mut test = TestLoop::new().unwrap();
        let id = writer(&mut test, &RateLimit::new(rate as u64).burst(burst as u64));
        test.act(|cx| (0..8).for_each(|_| assert!(cx.write_to(id, &[b'x'; 1_000_000]))));
        let (mut time, mut got) = (Duration::ZERO, test.output(id).len());
        for step in [1, 7, 100, 900, 333, 659, 1].map(|n| n * MS) {
            assert_rate(got, burst, rate, time);
            test.advance(step);
            got += test.output(id).len();
            time += step;
        }
    }
}

#[test]
fn silence_saves_no_more_than_the_burst() {
    let mut test = TestLoop::new().unwrap();
    let id = writer(&mut test, &RateLimit::new(1000).burst(2000));
    for _ in 0..3 {
        test.act(|cx| cx.write_to(id, &[b'x'; 5000]));
        assert_eq!(test.output(id).len(), 2000);
        test.advance(3 * SECOND);
        assert_eq!(test.output(id).len(), 3000);
        test.advance(100 * SECOND);
    }
}

#[test]
fn those_that_share_it_get_equal_parts() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(100_000).burst(5000));
    let readers: Vec<_> = (0..5).map(|_| reader(&mut test, &limit)).collect();
    for (id, _) in &readers {
        (0..10).for_each(|_| test.hold(*id, &[b'x'; 60_000]));
    }
    test.settle();
    test.advance(10 * SECOND);
    let got: Vec<usize> = readers.iter().map(|(_, got)| got.get()).collect();
    let all: usize = got.iter().sum();
    assert!((1_000_000..=1_005_000).contains(&all), "{got:?}");
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(most - least <= 6000, "{got:?}");
}

#[test]
fn reading_and_writing_share_one_and_none_starves() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(10_000).burst(100));
    let (id, got) = reader(&mut test, &limit);
    let writes = writer(&mut test, &limit);
    (0..10).for_each(|_| test.hold(id, &[b'x'; 60_000]));
    test.act(|cx| (0..10).for_each(|_| assert!(cx.write_to(writes, &[b'y'; 60_000]))));
    // A newcomer too, which writes a little now and then.
    let little = writer(&mut test, &limit);
    let (mut sent, mut small) = (0, 0);
    for _ in 0..100 {
        test.act(|cx| assert!(cx.write_to(little, b"z")));
        test.advance(100 * MS);
        (sent, small) = (sent + test.output(writes).len(), small + test.output(little).len());
    }
    let all = got.get() + sent + small;
    assert!((99_000..=100_100).contains(&all), "{all}");
    assert!(got.get().abs_diff(sent) < 2000 && small >= 99, "{} {sent} {small}", got.get());
}

#[test]
fn a_limit_undoes_no_other_pause_and_none_undoes_it() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(1000).burst(10));
    let (id, got) = reader(&mut test, &limit);
    test.feed(id, &[b'x'; 100]);
    assert_eq!((got.get(), test.is_reading(id)), (10, false));
    test.act(|cx| assert!(cx.resume_connection(id) && cx.pause_connection(id) && cx.resume_connection(id)));
    assert!(!test.is_reading(id) && got.get() == 10, "the protocol's wish does not undo the limit's");
    test.act(|cx| cx.pause_connection(id));
    test.advance(SECOND);
    assert_eq!((got.get(), test.timers()), (10, 0), "nor does the limit's end undo the protocol's pause");
    test.act(|cx| cx.resume_connection(id));
    test.advance(MS);
    assert!(got.get() >= 20, "{}", got.get());
}

#[test]
fn an_idle_connection_with_a_rate_limit_has_no_timer() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(1000).burst(100));
    let (id, got) = reader(&mut test, &limit);
    let writes = writer(&mut test, &limit.clone());
    assert_eq!(test.timers(), 0);
    test.feed(id, &[b'x'; 150]);
    test.act(|cx| cx.write_to(writes, &[b'y'; 50]));
    assert_eq!(test.timers(), 2);
    test.advance(SECOND);
    assert_eq!((got.get(), test.output(writes).len(), test.timers()), (150, 50, 0));
}

#[test]
fn a_waiting_connection_that_leaves_gives_its_part_back() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(1000).burst(1000));
    let first = writer(&mut test, &limit);
    test.act(|cx| cx.write_to(first, &[b'x'; 2000]));
    test.act(|cx| cx.abort_connection(first));
    assert_eq!((test.output(first).len(), test.timers()), (1000, 0));
    let second = writer(&mut test, &limit);
    test.act(|cx| cx.write_to(second, &[b'y'; 10]));
    test.advance(10 * MS);
    assert_eq!(test.output(second).len(), 10, "it waits for its own only");
}

#[test]
fn another_limit_takes_the_place_of_the_first() {
    let (mut test, slow) = (TestLoop::new().unwrap(), RateLimit::new(1).burst(1));
    let (journal, fast) = (Journal::default(), RateLimit::new(1_000_000));
    let got = Rc::new(Cell::new(0));
    let heard = got.clone();
    let script = Script::new(&journal).on("made", move |t, _| {
        t.limit_reading(&slow);
        t.limit_writing(&slow);
        Ok(())
    });
    let script = script.on("data", move |_, data| {
        heard.set(heard.get() + data.len());
        Ok(())
    });
    let id = test.connect(script.on("message", move |t, _| {
        t.limit_reading(&fast);
        t.limit_writing(&fast);
        t.limit_reading(&fast);
        Ok(())
    }));
    test.feed(id, &[b'x'; 1000]);
    test.act(|cx| cx.write_to(id, &[b'y'; 1000]));
    assert_eq!((got.get(), test.output(id).len(), test.timers()), (1, 0, 2), "they share it");
    test.act(|cx| cx.post(id, "faster"));
    assert_eq!((got.get(), test.output(id).len(), test.timers()), (1000, 1000, 0));
}

#[test]
fn to_wait_for_a_rate_is_no_idling_and_no_fault_of_the_peer() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.set_idle_timeout(Some(2 * SECOND));
        t.limit_writing(&RateLimit::new(10).burst(10));
        t.limit_reading(&RateLimit::new(1).burst(1));
        Ok(())
    }));
    test.act(|cx| cx.write_to(id, &[b'x'; 1000]));
    test.advance(99 * SECOND);
    assert_eq!((test.output(id).len(), test.is_closing(id)), (1000, false), "beyond the write limit of 30 s");
    test.hold(id, b"abcdefghij");
    test.settle();
    for _ in 0..9 {
        assert!(!test.is_closing(id));
        test.advance(SECOND);
    }
    assert_eq!(journal.count("data:"), 10);
    test.advance(3 * SECOND);
    assert!(journal.take().ends_with("lost:idle limit of 2s exceeded"));
    // A peer that takes nothing is still cut.
    let id = writer(&mut test, &RateLimit::new(1000));
    test.take_at_most(id, 5);
    test.act(|cx| cx.write_to(id, &[b'x'; 10]));
    test.advance(30 * SECOND);
    assert!(test.is_lost(id));
}

#[test]
fn the_water_marks_and_the_cap_hold_for_what_waits() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.limit_writing(&RateLimit::new(10_000).burst(1));
        Ok(())
    }));
    test.act(|cx| cx.write_to(id, &[b'x'; 70_000]));
    assert_eq!((journal.take().as_str(), test.is_reading(id)), ("made pause", false));
    test.advance(6 * SECOND);
    assert_eq!((journal.take().as_str(), test.is_reading(id)), ("resume", true));
    test.act(|cx| assert!(!cx.write_to(id, &vec![b'x'; 8 << 20])));
    assert!(test.is_lost(id));
}

#[test]
fn close_sends_at_the_rate_and_the_total_limit_and_the_drain_bound_it() {
    let close = |test: &mut TestLoop, journal: &Journal, total: Option<Duration>| {
        let id = test.connect(Script::new(journal).on("made", move |t, _| {
            t.limit_writing(&RateLimit::new(100).burst(100));
            t.set_total_timeout(total);
            t.write(&[b'x'; 1000])?;
            t.close();
            Ok(())
        }));
        assert!(!test.is_lost(id));
        id
    };
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = close(&mut test, &journal, None);
    test.advance(9 * SECOND - MS);
    assert!(!test.is_lost(id));
    test.advance(20 * MS);
    assert_eq!((test.output(id).len(), journal.take().as_str()), (1000, "made lost:closed"));
    let id = close(&mut test, &journal, Some(5 * SECOND));
    test.advance(5 * SECOND);
    assert!(test.is_lost(id) && journal.take().starts_with("made lost:total limit of 5s exceeded, 4"));
    let id = close(&mut test, &journal, None);
    test.act(|cx| cx.shutdown(3 * SECOND));
    test.advance(3 * SECOND);
    assert!(test.is_lost(id) && journal.take().starts_with("made lost:drain limit of 3s exceeded, 6"));
}

#[test]
fn input_that_waits_for_the_rate_is_served_before_a_drain_closes() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(1000).burst(10));
    let (id, got) = reader(&mut test, &limit);
    test.feed(id, &[b'x'; 500]);
    test.act(|cx| cx.shutdown(10 * SECOND));
    assert!(!test.is_lost(id));
    test.advance(SECOND);
    assert_eq!((got.get(), test.is_lost(id)), (500, true));
}

#[test]
fn a_reader_is_sent_at_the_rate_too() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.limit_writing(&RateLimit::new(100_000).burst(1000));
        t.send_reader(std::io::Read::take(std::io::repeat(b'x'), 300_000))?;
        Ok(())
    }));
    test.advance(SECOND);
    assert_rate(test.output(id).len(), 1000, 100_000, SECOND);
    test.advance(2 * SECOND);
    assert_eq!(journal.take(), "made transfer");
}

#[test]
fn the_end_and_a_reset_are_heard_while_it_waits() {
    let (mut test, limit) = (TestLoop::new().unwrap(), RateLimit::new(100).burst(10));
    let (id, got) = reader(&mut test, &limit);
    test.hold(id, &[b'x'; 15]);
    test.eof(id);
    test.advance(SECOND);
    assert_eq!((got.get(), test.is_lost(id)), (15, true));
    let (id, _) = reader(&mut test, &limit);
    test.feed(id, &[b'x'; 100]);
    test.reset(id);
    assert!(test.is_lost(id));
    assert_eq!(test.timers(), 0);
}

/// On real sockets: a shared limit of 200 KB/s over two loops, and no spin while they wait.
#[test]
fn two_loops_share_a_limit_and_sleep_while_they_wait() {
    struct Slow(RateLimit);
    impl Protocol for Slow {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.limit_writing(&self.0);
            Ok(t.write(&[b'x'; 100_000])?)
        }
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
    }
    let limit = RateLimit::new(200_000).burst(1000);
    let loops = [0, 1].map(|_| {
        let limit = limit.clone();
        let build = factory(move |_| Slow(limit.clone()));
        script::run(move |reactor| reactor.listen_tcp("127.0.0.1:0", build).unwrap())
    });
    let since = std::time::Instant::now();
    let clients = loops.each_ref().map(|looped| std::net::TcpStream::connect(looped.addr).unwrap());
    assert_no_spin(&loops[0], "at a rate limit");
    for client in clients {
        use std::io::Read;
        client.set_read_timeout(Some(30 * SECOND)).unwrap();
        (&client).read_exact(&mut vec![0; 100_000]).unwrap();
    }
    assert!(since.elapsed() >= 990 * MS, "{:?}", since.elapsed());
    assert!(since.elapsed() < 20 * SECOND, "{:?}", since.elapsed());
}
