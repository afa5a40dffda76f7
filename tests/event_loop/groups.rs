//! Groups: which member gets what, in which order, and what a member that never reads costs.

use std::time::Instant;

use crate::script::{Journal, Script};
use socketserver::event_loop::ConnId;
use socketserver::testing::TestLoop;
use socketserver::{EventLoop, Group};

fn members(test: &mut TestLoop, group: Group, n: usize) -> Vec<ConnId> {
    let member = || {
        Script::new(&Journal::default()).on("made", move |t, _| {
            assert!(t.join(group) && !t.join(group));
            Ok(())
        })
    };
    (0..n).map(|_| test.connect(member())).collect()
}

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

#[test]
fn all_but_one_get_what_is_broadcast_each_in_one_call() {
    for size in [5, 5000] {
        let (mut test, group) = (test_loop(), Group::new());
        let all = members(&mut test, group, 4);
        let outsider = test.connect(Script::new(&Journal::default()));
        let texts: Vec<Vec<u8>> = (0..100).map(|n| vec![n; size]).collect();
        test.act(|cx| {
            assert_eq!(cx.members(group), 4);
            texts.iter().for_each(|text| assert_eq!(cx.broadcast(group, text, Some(all[1])), 3));
            assert_eq!(cx.broadcast(group, b"end", None), 4);
            assert_eq!(cx.broadcast(Group::new(), b"nobody", None), 0);
        });
        for (n, id) in all.iter().enumerate() {
            let expected = if n == 1 { b"end".to_vec() } else { [texts.concat(), b"end".to_vec()].concat() };
            assert!(test.output(*id) == expected, "member {n}, {size} bytes");
            assert_eq!(test.sends(*id), 1, "one system call for many texts of {size} bytes");
        }
        assert_eq!(test.output(outsider), b"");
    }
}

#[test]
fn members_come_in_the_order_in_which_they_joined() {
    let (mut test, group, journal) =
        (TestLoop::with(EventLoop::new().water_marks(1, 2)).unwrap(), Group::new(), Journal::default());
    let member = |n: usize| {
        let notes = journal.clone();
        let script = Script::new(&Journal::default()).on("pause", move |_, _| {
            notes.add(n.to_string());
            Ok(())
        });
        script.on("data", move |t, _| {
            t.join(group);
            Ok(())
        })
    };
    let all: Vec<_> = (0..5).map(|n| test.connect(member(n))).collect();
    for n in [3, 1, 4, 0, 2] {
        test.feed(all[n], b"join");
        test.take_at_most(all[n], 0);
    }
    test.act(|cx| cx.broadcast(group, b"news", None));
    assert_eq!(journal.take(), "3 1 4 0 2");
}

#[test]
fn a_connection_that_leaves_or_is_lost_is_in_no_group() {
    let (mut test, group, other) = (test_loop(), Group::new(), Group::lossy());
    let journal = Journal::default();
    let id = test.connect(Script::new(&journal).on("data", move |t, data| {
        match data {
            b"join" => assert!(t.join(group) && t.join(other)),
            b"leave" => assert!(t.leave(group) && !t.leave(group)),
            _ => t.close(),
        }
        Ok(())
    }));
    test.feed(id, b"join");
    test.act(|cx| assert_eq!((cx.members(group), cx.members(other)), (1, 1)));
    test.feed(id, b"leave");
    test.act(|cx| assert_eq!((cx.members(group), cx.members(other), cx.broadcast(group, b"x", None)), (0, 1, 0)));
    test.feed(id, b"join again: close");
    assert!(test.is_lost(id));
    test.act(|cx| assert_eq!((cx.members(group), cx.members(other), cx.broadcast(other, b"x", None)), (0, 0, 0)));
}

#[test]
fn a_member_that_is_closing_is_not_reached() {
    let (mut test, group) = (test_loop(), Group::new());
    let all = members(&mut test, group, 3);
    test.take_at_most(all[0], 0);
    test.act(|cx| {
        cx.write_to(all[0], b"stuck");
        cx.close_connection(all[0]);
        assert_eq!(cx.broadcast(group, b"news", None), 2);
        assert_eq!(cx.members(group), 3, "it is a member until it is lost");
    });
    test.take_at_most(all[0], 100);
    assert_eq!(test.output(all[0]), b"stuck");
    test.act(|cx| assert_eq!(cx.members(group), 2));
}

#[test]
fn the_others_are_told_from_connection_lost() {
    let (mut test, group) = (test_loop(), Group::new());
    let all = members(&mut test, group, 3);
    let journal = Journal::default();
    let leaver = test.connect(
        Script::new(&journal)
            .on("made", move |t, _| {
                t.join(group);
                Ok(())
            })
            .at_loss(move |cx, why| {
                assert_eq!((cx.members(group), cx.broadcast(group, b"bye", Some(why.id))), (3, 3));
                assert!(cx.queued_of(why.id).is_none() && !cx.write_to(why.id, b"x"));
            }),
    );
    test.eof(leaver);
    all.iter().for_each(|id| assert_eq!(test.output(*id), b"bye"));
    assert_eq!((journal.take().as_str(), test.output(leaver)), ("made eof lost:closed by the peer", vec![]));
}

#[test]
fn a_member_that_never_reads_is_cut_and_costs_the_others_nothing() {
    let (mut test, group) = (test_loop(), Group::new());
    let all = members(&mut test, group, 3);
    test.take_at_most(all[0], 0);
    let text = vec![b'x'; 64 << 10];
    let mut reached = Vec::new();
    for _ in 0..130 {
        reached.push(test.act(|cx| cx.broadcast(group, &text, None)));
        let queued = test.act(|cx| cx.queued_of(all[0])).unwrap_or_default();
        assert!(queued <= 8 << 20);
        all[1..].iter().for_each(|id| assert_eq!((test.output(*id).len(), test.sends(*id)), (64 << 10, 1)));
    }
    assert_eq!(reached, [[3; 128].as_slice(), &[2; 2]].concat(), "8 MiB fit, the next is one too many");
    assert!(test.is_lost(all[0]) && test.is_reset(all[0]));
}

#[test]
fn a_slow_member_of_a_lossy_group_misses_texts_and_stays() {
    for slow_text in [10, 1000] {
        let (mut test, group) = (test_loop(), Group::lossy());
        let all = members(&mut test, group, 2);
        test.take_at_most(all[0], 0);
        let text = vec![b'x'; slow_text];
        let n = (64 << 10) / slow_text + 1;
        test.act(|cx| (0..n).for_each(|_| assert_eq!(cx.broadcast(group, &text, None), 2)));
        test.act(|cx| (0..10).for_each(|_| assert_eq!(cx.broadcast(group, &text, None), 1, "it is behind")));
        test.take_at_most(all[0], n * slow_text - (16 << 10) - 1);
        test.act(|cx| assert_eq!(cx.broadcast(group, &text, None), 1, "until it is down to the low mark"));
        test.take_at_most(all[0], usize::MAX);
        test.act(|cx| assert_eq!(cx.broadcast(group, b"again", None), 2));
        let got = test.output(all[0]);
        assert_eq!(got.len(), n * slow_text + 5, "whole texts only");
        assert!(got.ends_with(b"again"));
        assert_eq!(test.output(all[1]).len(), (n + 11) * slow_text + 5);
    }
}

#[test]
fn groups_of_thousands_come_and_go() {
    let (mut test, group, since) = (test_loop(), Group::new(), Instant::now());
    let all = members(&mut test, group, 500);
    test.act(|cx| (0..100).for_each(|_| assert_eq!(cx.broadcast(group, &[b'x'; 1000], None), 500)));
    test.act(|cx| all.iter().for_each(|id| assert!(cx.abort_connection(*id))));
    test.act(|cx| assert_eq!((cx.members(group), cx.connections()), (0, 0)));
    assert!(since.elapsed().as_secs() < 30, "{:?}", since.elapsed());
}
