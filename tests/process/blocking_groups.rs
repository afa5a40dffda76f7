//! A group of `Blocking` does not reach across connections, and the log says so once.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use socketserver::{factory, Blocking, EventLoop, Group, HandlerResult, Protocol, ServerBuilder, Threading, Transport};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(format!("{} {}", record.target(), record.args()));
    }

    fn flush(&self) {}
}

struct Member(Group);

impl Protocol for Member {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.join(self.0);
        t.send_line(format!("{}", t.members(self.0)))?;
        t.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

fn ask(addr: std::net::SocketAddr) -> String {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_log_says_once_that_a_group_of_blocking_has_one_connection() {
    alone!();
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let group = Group::new();
    let member = move || factory(move |_| Member(group));
    let warned =
        || LINES.lock().unwrap().iter().filter(|line| line.contains("a broadcast reaches no other one")).count();

    let mut server = ServerBuilder::new().strategy(EventLoop::new()).bind("127.0.0.1:0", member()).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = std::thread::spawn(move || server.serve_forever());
    assert_eq!(ask(addr), "1\n");
    handle.shutdown();
    serving.join().unwrap().unwrap();
    assert_eq!(warned(), 0, "in an event loop it has all");

    let builder = ServerBuilder::new().strategy(Threading::new());
    let mut server = builder.bind("127.0.0.1:0", Blocking(member())).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = std::thread::spawn(move || server.serve_forever());
    assert_eq!((ask(addr), ask(addr)), ("1\n".to_owned(), "1\n".to_owned()));
    handle.shutdown();
    serving.join().unwrap().unwrap();
    assert_eq!(warned(), 1, "{:?}", LINES.lock().unwrap());
}
