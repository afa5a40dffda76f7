//! How handlers are tested: a small server, and its tests at the end of the file.
//! `cargo test --example testing_a_handler` runs them; `cargo run --example testing_a_handler -- 127.0.0.1:1234` the
//! server, which adds up numbers: `echo 1 2 3 | nc -N 127.0.0.1 1234`.

mod common;

use std::time::Duration;

use common::any::STRATEGY;
use socketserver::event_loop::TimerId;
use socketserver::{factory, lines, Connection, HandlerResult, LineReceiver, LineTransport};
use socketserver::{ServerBuilder, StreamRequestHandler};

/// The sum of the numbers of a line.
fn sum(line: &str) -> Result<i64, String> {
    let mut sum = 0_i64;
    for word in line.split_whitespace() {
        let number: i64 = word.parse().map_err(|e| format!("{word:?}: {e}"))?;
        sum = sum.checked_add(number).ok_or("too large a sum")?;
    }
    Ok(sum)
}

/// What a line is answered.
fn answer(line: &str) -> String {
    sum(line).map_or_else(|e| format!("error: {e}"), |sum| sum.to_string())
}

/// For most strategies.
struct Sums;

impl StreamRequestHandler for Sums {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                None | Some("quit") => break,
                Some(line) => conn.send_line(answer(line))?,
            }
        }
        Ok(())
    }
}

/// How long an event loop lets a client be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for an event loop, with a limit of its own.
#[derive(Default)]
struct PatientSums {
    timer: Option<TimerId>,
}

impl LineReceiver for PatientSums {
    fn connection_made(&mut self, transport: &mut LineTransport<'_>) -> HandlerResult {
        self.timer = Some(transport.set_timer(PATIENCE));
        Ok(())
    }

    fn line_received(&mut self, transport: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
        if let Some(timer) = self.timer {
            transport.reset(timer, PATIENCE);
        }
        match line {
            b"quit" => transport.close(),
            _ => transport.send_line(answer(&String::from_utf8_lossy(line)))?,
        }
        Ok(())
    }

    fn timer(&mut self, transport: &mut LineTransport<'_>, _timer: TimerId) -> HandlerResult {
        transport.send_line("good bye")?;
        transport.close();
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Adds up the numbers of a line.", &[STRATEGY, common::LIMITS]);
    let builder = args.limits(ServerBuilder::new().handle_signals());
    let mut server = args.bind(builder, Sums, factory(|_peer| lines(PatientSums::default())))?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use socketserver::testing::{converse, FailingListener, TestLoop, TestServer};
    use socketserver::{AtLimit, EventLoop};

    #[test]
    fn each_line_is_answered_with_its_sum() {
        let conversation = converse(&Sums, b"1 2 3\n\n-5 5 -7\n");
        assert_eq!(conversation.text(), "6\n0\n-7\n");
        conversation.result.unwrap();
    }

    #[test]
    fn what_is_no_number_is_named_and_the_dialogue_goes_on() {
        let conversation = converse(&Sums, b"1 two 3\n1 2\nquit\n4\n");
        assert_eq!(conversation.text(), "error: \"two\": invalid digit found in string\n3\n");
        conversation.result.unwrap();
    }

    #[test]
    fn half_a_line_is_no_request() {
        let conversation = converse(&Sums, b"1 2\n3 4");
        assert_eq!(conversation.text(), "3\n");
        assert!(conversation.result.is_err());
    }

    #[test]
    fn a_dialogue_can_be_held_by_hand() {
        let (mut conn, client) = Connection::pair().unwrap();
        (&client).write_all(b"1 2\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        Sums.handle(&mut conn).unwrap();
        drop(conn); // flushes and closes
        assert_eq!(std::io::read_to_string(client).unwrap(), "3\n");
    }

    #[test]
    fn a_whole_server_answers_its_clients() {
        let server = TestServer::start(Sums);
        let (mut one, mut two) = (server.connect(), server.connect());
        assert_eq!((one.ask("1 1"), two.ask("2 2"), one.ask("3 3")), ("2".into(), "4".into(), "6".into()));
        two.send("quit\n");
        assert_eq!(two.rest(), b"");
        assert_eq!(server.stop().served, 2); // the stop has ended the other one, which was idle
    }

    #[test]
    fn who_is_one_too_many_is_told() {
        let few = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(b"busy\n".to_vec()));
        let server = TestServer::with(few, Sums);
        let mut first = server.connect();
        assert_eq!(first.ask("1"), "1");
        assert_eq!(server.connect().line(), "busy");
        assert_eq!(server.stop().refused, 1);
    }

    #[test]
    fn a_client_that_is_gone_before_it_is_accepted_disturbs_nobody() {
        let (listener, failures) = FailingListener::bind("127.0.0.1:0").unwrap();
        failures.add([103]); // ECONNABORTED, see accept(2)
        let server = TestServer::of(ServerBuilder::new().from_listener(listener, Sums).unwrap());
        assert_eq!(server.connect().ask("1 2"), "3");
        assert_eq!(failures.left(), 0);
        assert_eq!(server.stop().accept_errors, 1);
    }

    #[test]
    fn a_protocol_s_minute_passes_in_no_time() {
        let mut test = TestLoop::new().unwrap();
        let client = test.connect(lines(PatientSums::default()));
        test.advance(PATIENCE - Duration::from_millis(1));
        test.feed(client, b"1 2\n");
        assert_eq!(test.output(client), b"3\n");
        test.advance(PATIENCE - Duration::from_millis(1));
        assert_eq!(test.output(client), b"");
        test.advance(Duration::from_millis(1));
        assert_eq!(test.output(client), b"good bye\n");
        assert!(test.is_ended(client));
    }

    #[test]
    fn protocols_answer_over_the_network_too() {
        let builder = ServerBuilder::new().strategy(EventLoop::new());
        let server = TestServer::with(builder, factory(|_peer| lines(PatientSums::default())));
        assert_eq!(server.connect().ask("1 2"), "3");
    }
}
