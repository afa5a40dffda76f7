//! Parked connections beside wakers and observers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::{ms, serve, until};
use crate::parked::{parking, until_parked};
use crate::{line, Talker, ANY};
use socketserver::connection::ConnectionWaker;
use socketserver::{per_request, sessions, Closed, Connection, HandlerResult, Next, Observer, Opened};
use socketserver::{ServerBuilder, Session};

type Wakers = Arc<Mutex<Vec<ConnectionWaker>>>;

/// Gives the test its waker, and answers each line with what a wait within the request ends for.
struct Wakes(Wakers);

impl Session for Wakes {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        self.0.lock().unwrap().push(conn.waker()?);
        Ok(())
    }

    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
        let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
        let event = conn.wait_timeout(Duration::ZERO)?;
        conn.send_line(format!("{line} {event:?}"))?;
        Ok(Next::Request)
    }
}

#[test]
fn a_waker_takes_no_parked_connection_up_and_the_next_wait_hears_of_it() {
    for (name, strategy) in parking() {
        let wakers = Wakers::default();
        let kept = wakers.clone();
        let wakes = sessions(move || Wakes(kept.clone()));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, wakes).unwrap());
        let mut client = Talker::to(&server);
        assert_eq!(client.ask("one"), "one None\n", "{name}");
        until_parked(&server, 1);
        let waker = wakers.lock().unwrap()[0].clone();
        (0..100).for_each(|_| waker.wake());
        let mut other = Talker::to(&server);
        assert_eq!(other.ask("two"), "two None\n", "{name}: it is another's");
        until_parked(&server, 2);
        assert_eq!(client.ask("three"), "three Some(Woken)\n", "{name}");
        assert_eq!(client.ask("four"), "four None\n", "{name}: all calls were one");
        until_parked(&server, 2);
        drop((client, other));
        until("both have ended", || server.handle.stats().active == 0);
        waker.wake(); // nothing is there any more
        let report = server.stop();
        assert_eq!((report.served, report.failed), (2, 0), "{name}: {report}");
    }
}

/// What was told, in order: `opened`, and the bytes and the outcome of what was closed.
#[derive(Default)]
struct Told(Mutex<Vec<(u64, String, Duration)>>);

impl Told {
    fn all(&self) -> Vec<(u64, String, Duration)> {
        self.0.lock().unwrap().clone()
    }

    fn end_of(&self, id: u64) -> Option<(String, Duration)> {
        let found = self.all().into_iter().find(|(of, text, _)| *of == id && text != "opened");
        found.map(|(_, text, duration)| (text, duration))
    }
}

impl Observer for Told {
    fn opened(&self, opened: &Opened<'_>) {
        self.0.lock().unwrap().push((opened.id, "opened".to_owned(), Duration::ZERO));
    }

    fn closed(&self, closed: &Closed<'_>) {
        let reason = closed.reason.unwrap_or("-");
        let text = format!("read {} written {} {} {reason}", closed.bytes_read, closed.bytes_written, closed.outcome);
        self.0.lock().unwrap().push((closed.id, text, closed.duration));
    }
}

#[test]
fn an_observer_is_told_of_a_parked_connection_when_it_ends_and_not_before() {
    for (name, strategy) in parking() {
        let told = Arc::new(Told::default());
        let builder = ServerBuilder::new().strategy(strategy).observer(told.clone());
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut clients: Vec<_> = (0..4).map(|_| Talker::to(&server)).collect();
        // The last one says nothing.
        for client in &mut clients[..3] {
            client.echo("one");
        }
        let parked_at = Instant::now();
        until_parked(&server, 4);
        clients[0].echo("two");
        until_parked(&server, 4);
        assert!(told.all().iter().all(|(_, text, _)| text == "opened") && told.all().len() == 4, "{name}");

        let silent = clients.pop();
        assert_eq!(clients.pop().unwrap().ask("fail"), "", "{name}");
        drop(clients.remove(0));
        let lived = parked_at.elapsed();
        until("the first is told", || told.end_of(1).is_some());
        let (text, duration) = told.end_of(1).unwrap();
        assert_eq!(text, "read 8 written 8 served -", "{name}");
        assert!(duration >= lived, "{name}: {duration:?} for {lived:?}");
        until("the third is told", || told.end_of(3).is_some());
        assert_eq!(told.end_of(3).unwrap().0, "read 9 written 4 failed asked to fail", "{name}");
        until_parked(&server, 2);
        let report = server.stop();
        assert_eq!((report.served, report.failed, report.drained), (3, 1, 2), "{name}: {report}");
        assert_eq!(told.end_of(2).unwrap().0, "read 4 written 4 served -", "{name}: ended by the stop");
        assert_eq!(told.end_of(4).unwrap().0, "read 0 written 0 served -", "{name}: ended by the stop");
        assert_eq!(told.all().len(), 8, "{name}: each once");
        drop(silent);
    }
}

#[test]
fn an_observer_is_told_of_the_limit_that_ends_a_parked_connection() {
    for (name, strategy) in parking() {
        let told = Arc::new(Told::default());
        let builder = ServerBuilder::new().strategy(strategy).observer(told.clone()).idle_timeout(ms(50));
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut client = Talker::to(&server);
        client.echo("one");
        assert_eq!(client.hear(), "", "{name}: the limit ends it");
        until("it is told", || told.end_of(1).is_some());
        let text = told.end_of(1).unwrap().0;
        assert!(text.starts_with("read 4 written 4 timed_out ") && text.contains("idle"), "{name}: {text}");
        assert_eq!(server.stop().timed_out, 1, "{name}");
    }
}
