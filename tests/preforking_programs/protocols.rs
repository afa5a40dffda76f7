//! Protocols in workers, and the stop of workers that are late.

use super::*;

/// Hangs when it is told to.
pub(crate) struct Hangs;

impl Protocol for Hangs {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let said = std::str::from_utf8(data)?.trim().to_owned();
        match said.as_str() {
            "hang" => loop {
                thread::park();
            },
            "pid" => {
                writeln!(transport, "{}", std::process::id())?;
                transport.close(); // others may wait for the place
            }
            "place" => {
                transport.write(format!("{} {:?}\n", std::process::id(), thread::current().id()).as_bytes())?;
            }
            "crashed" => transport.write(format!("{}\n", transport.server().stats().crashed).as_bytes())?,
            "stop" => {
                transport.write(b"stopping\n")?;
                transport.server().shutdown();
            }
            _ => transport.write(data)?,
        }
        Ok(())
    }
}

/// Protocols in workers.
pub(crate) fn serve_protocols<E>(strategy: PreForking<E>)
where
    E: Engine<Blocking<fn(&Peer) -> Hangs>>,
{
    serve_protocols_of(builder(strategy));
}

pub(crate) fn serve_protocols_of<E>(builder: ServerBuilder<PreForking<E>>)
where
    E: Engine<Blocking<fn(&Peer) -> Hangs>>,
{
    let build: fn(&Peer) -> Hangs = |_peer| Hangs;
    let mut server = builder.bind("127.0.0.1:0", Blocking(build)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn four_protocols() {
    serve_protocols_of(builder(PreForking::new(1, Threading::new())).max_connections(4));
}

pub(crate) fn serves_four(program: &mut Program) {
    let words = ["first", "second", "third", "fourth"];
    let mut clients = words.map(|word| connect(program, word));
    assert_eq!(clients.each_mut().map(line), words, "all are there");
    drop(clients);
    program.stop();
}

pub(crate) fn hanging_protocol() {
    serve_protocols(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(1000)));
}

pub(crate) fn waiting_protocol() {
    serve_protocols(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(100)));
}

pub(crate) fn recycled_loops() {
    let strategy = PreForking::new(1, EventLoop::new()).max_requests(1).max_requests_jitter(0);
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_peer| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn recycled_protocols() {
    serve_protocols(PreForking::new(1, Threading::new()).max_requests(1).max_requests_jitter(0));
}

/// Each connection is the last of its worker, and comes before its first request.
pub(crate) fn first_requests_are_served(program: &mut Program) {
    let silent = |program: &Program| {
        let client = TcpStream::connect(&program.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        until("its worker has a successor", || workers(program).len() > 1);
        thread::sleep(Duration::from_millis(100)); // and is told to end
        BufReader::new(client)
    };
    let mut client = silent(program);
    writeln!(client.get_mut(), "hello").unwrap();
    assert_eq!(line(&mut client), "hello");
    assert_eq!(line(&mut client), "", "it was the only one");
    until("its worker has ended", || workers(program).len() == 1);

    let mut client = silent(program);
    let began = Instant::now();
    let report = program.stop();
    assert!(report.contains("accepted ") && !report.contains("failed"), "{report}");
    assert_eq!(line(&mut client), "", "nobody is spared when the server follows");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// The second worker is not ready for a while, and has no share of the places until then.
pub(crate) fn late_to_settle_in<E>(engine: E) -> ServerBuilder<PreForking<E>> {
    let slow = |index| thread::sleep(Duration::from_millis(700 * index as u64));
    builder(PreForking::new(2, engine).after_fork(slow)).max_connections(2).handle_signals()
}

pub(crate) fn late<E>(engine: E)
where
    PreForking<E>: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    serve(late_to_settle_in(engine));
}

/// Answers after a while, and then closes.
pub(crate) struct Slow;

impl Protocol for Slow {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let hold = data.starts_with(b"hold");
        transport.write(if hold { b"held\n" } else { data })?;
        if hold {
            transport.request_begins();
            transport.set_timer(Duration::from_millis(1200));
        } else {
            transport.close();
        }
        Ok(())
    }

    fn timer(&mut self, transport: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        transport.write(b"done\n")?;
        transport.close();
        Ok(())
    }
}

pub(crate) fn late_loops() {
    let builder = late_to_settle_in(EventLoops::new(2));
    let mut server = builder.bind("127.0.0.1:0", factory(|_peer| Slow)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

/// It waited for a place until its next heart beat, though there was nobody left to serve.
pub(crate) fn leaves_the_queue_to_others(program: &mut Program) {
    let mut busy = connect(program, "hold 1200");
    assert_eq!(line(&mut busy), "held");
    let mut queued = connect(program, "hello");
    let began = Instant::now();
    kill("TERM", program.child.id());
    assert_eq!((line(&mut busy).as_str(), line(&mut queued).as_str()), ("done", "hello"));
    assert!(program.rest().contains("served 2"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
