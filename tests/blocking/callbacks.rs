//! What a protocol is called for, what its peer reads, and how its end is counted.

use std::io::Read;
use std::net::Shutdown;
use std::thread;

use socketserver::connection::LingeringClose;

use crate::doer::BIG;
use crate::kit::{expect, ms, read_all, until, Running};
use crate::{greeted, say, say_last};

#[test]
fn callbacks_and_counters_are_those_of_an_event_loop() {
    let (heard, journal, report) = same!("an echo and an end", |server| {
        let mut client = greeted(server);
        say(&client, "hello");
        expect(&mut client, "hello");
        client.shutdown(Shutdown::Write).unwrap();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made hello eof lost: closed by the peer"));
    assert_eq!(report, "accepted 1, served 1");

    let (heard, journal, report) = same!("a close", |server| say_last(server, "quit"));
    assert_eq!((heard.as_str(), journal.as_str()), ("bye", "made quit lost: closed"));
    assert_eq!(report, "accepted 1, served 1");
}

#[test]
fn errors_and_panics_end_their_connection_after_what_was_written() {
    let (heard, journal, report) = same!("an error", |server| say_last(server, "fail"));
    assert_eq!((heard.as_str(), journal.as_str()), ("kept", "made fail lost: failed: asked to fail"));
    assert!(report.contains("failed 1"), "{report}");
    let (heard, journal, report) = same!("a panic", |server| say_last(server, "panic"));
    assert_eq!((heard.as_str(), journal.as_str()), ("kept", "made panic lost: panicked: asked to panic"));
    assert!(report.contains("failed 1") && report.contains("panicked 1"), "{report}");
}

#[test]
fn a_client_that_is_cut_reads_a_reset() {
    let reset = |server: &Running, word: &str| {
        let mut client = greeted(server);
        say(&client, word);
        until("the connection has ended", || server.handle.stats().active == 0);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).map_err(|e| e.kind()).unwrap_err().to_string()
    };
    let (heard, journal, report) =
        same!("an abort", |b| b.lingering_close(LingeringClose::Always), |server| reset(server, "abort"));
    assert_eq!((heard.as_str(), journal.as_str()), ("connection reset", "made abort lost: aborted"));
    assert!(report.contains("served 1"), "{report}");
    let (heard, journal, report) = same!("a queue that is full", |server| reset(server, "flood"));
    assert_eq!(heard, "connection reset");
    assert_eq!(journal, "made flood lost: the output queue would exceed 8388608 bytes");
    assert!(report.contains("failed 1"), "{report}");
}

#[test]
fn timers_calls_and_messages_come_back_to_the_thread_of_the_connection() {
    for (word, answer, entries) in [
        ("timer", "timer", "made timer timer eof"),
        ("later", "later", "made later eof"),
        ("post", "posted", "made post message eof"),
        ("thread", "from a thread", "made thread eof"),
        ("rest", "timer", "made rest timer resumed eof"),
        ("work", "worked", "made work eof"),
        ("switch:rest", ">timer", "made switch:rest made rest timer resumed eof"),
    ] {
        let (_, journal, _) = same!(word, |server| {
            let mut client = greeted(server);
            say(&client, word);
            expect(&mut client, answer);
            client.shutdown(Shutdown::Write).unwrap();
            read_all(&mut client)
        });
        assert_eq!(journal, format!("{entries} lost: closed by the peer"));
    }
}

#[test]
fn a_big_answer_goes_at_the_peer_s_pace() {
    let (heard, journal, _) = same!("a big answer", |server| {
        let mut client = greeted(server);
        say(&client, "big");
        thread::sleep(ms(20)); // the client's slowness is what is tested
        read_all(&mut client).len().to_string()
    });
    assert_eq!((heard.as_str(), journal.as_str()), (BIG.to_string().as_str(), "made big lost: closed"));
}

#[test]
fn a_reader_is_sent_to_its_end() {
    let (heard, journal, _) = same!("a reader", |server| {
        let heard = say_last(server, "reader");
        format!("{} {}", heard.len(), heard.ends_with("xend"))
    });
    assert_eq!((heard, journal.as_str()), (format!("{} true", BIG + 3), "made reader lost: closed"));
}

#[test]
fn a_protocol_may_end_its_half_and_read_on() {
    let (heard, journal, report) = same!("a writing half that ends", |server| {
        let mut client = greeted(server);
        say(&client, "shut");
        let heard = read_all(&mut client);
        say(&client, "more");
        client.shutdown(Shutdown::Write).unwrap();
        heard
    });
    assert_eq!(heard, "last");
    assert_eq!(journal, "made shut more eof lost: closed by the peer");
    assert!(report.contains("served 1"), "{report}");
}

#[test]
fn a_half_closed_connection_may_still_be_answered() {
    let (heard, journal, _) = same!("a half-close", |server| {
        let mut client = greeted(server);
        say(&client, "half");
        client.shutdown(Shutdown::Write).unwrap();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("timer", "made half eof timer lost: closed"));
}

#[test]
fn a_peer_that_resets_is_no_failure() {
    let (_, journal, report) = same!("a reset", |server| {
        let mut client = greeted(server);
        say(&client, "big");
        client.read_exact(&mut [0]).unwrap(); // the rest stays unread: the close sends a reset
        String::new()
    });
    assert!(journal.starts_with("made big lost: broken:"), "{journal}");
    assert_eq!(report, "accepted 1, served 0, disconnected 1");

    let (_, journal, report) = same!("a reset that nobody reads", |server| {
        let mut client = greeted(server);
        say(&client, "hush");
        expect(&mut client, "hushed"); // and a byte is left
        String::new()
    });
    assert!(journal.starts_with("made hush lost: broken:"), "{journal}");
    assert_eq!(report, "accepted 1, served 0, disconnected 1");
}

#[test]
fn each_limit_ends_its_connection_and_is_counted() {
    let (heard, journal, report) = same!("idle", |b| b.idle_timeout(ms(50)), |server| read_all(&mut greeted(server)));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made lost: idle limit of 50ms exceeded"));
    assert!(report.contains("failed 1"), "{report}");

    let (heard, journal, _) = same!("request", |b| b.request_timeout(ms(50)), |server| say_last(server, "hold"));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made hold lost: request limit of 50ms exceeded"));

    let (heard, journal, _) = same!("total", |server| say_last(server, "total"));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made total tick lost: total limit of 50ms exceeded"));

    let (_, journal, report) = same!("write", |b| b.write_timeout(ms(50)), |server| {
        let client = greeted(server);
        say(&client, "big");
        until("the connection has ended", || server.handle.stats().active == 0);
        server.handle.stats().timed_out.to_string()
    });
    assert_eq!(journal, "made big lost: write limit of 50ms exceeded");
    assert!(report.contains("failed 1"), "{report}");
}
