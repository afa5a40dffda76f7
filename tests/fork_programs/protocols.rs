//! Protocols of an event loop, each served in a child.

use super::*;

struct Told;

impl Protocol for Told {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        match std::str::from_utf8(data)?.trim_end() {
            "fail" => return Err("as it was told".into()),
            "panic" => panic!("as it was told"),
            "exit" => exit(7),
            "pid" => writeln!(transport, "{}", std::process::id())?,
            "hang" => loop {
                thread::park();
            },
            "dial" => {
                let (id, port) = (transport.id(), transport.local_addr().socket_addr().unwrap().port());
                // By a name, which is looked up on another thread.
                transport.connect_tcp(format!("localhost:{port}"), factory(move |_peer| Asks(id)));
            }
            "stop" => {
                transport.write(b"stopping\n")?;
                transport.server().shutdown();
            }
            _ => transport.write(data)?,
        }
        Ok(())
    }
}

/// Asks another child for its number, and passes on the answer.
struct Asks(ConnId);

impl Protocol for Asks {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(transport.write(b"pid\n")?)
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        transport.write_to(self.0, data);
        transport.close();
        Ok(())
    }
}

pub fn with_clients() {
    let builder = ServerBuilder::new().strategy(Forking::new());
    let mut server = builder.bind("127.0.0.1:0", Blocking(factory(|_peer| Told))).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub fn answers_by_a_client(program: &mut Program) {
    let mut client = BufReader::new(TcpStream::connect(&program.addr).unwrap());
    client.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut ask = |word: &str| {
        client.get_mut().write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).unwrap();
        answer
    };
    let (own, others) = (ask("pid\n"), ask("dial\n"));
    assert!(others.trim_end().parse::<u32>().is_ok() && others != own, "{own}{others}");
    drop(client);
    let told = program.stop();
    assert!(told.contains("accepted 3, served 3"), "{told}");
}

pub fn with_a_protocol() {
    let builder = ServerBuilder::new().strategy(Forking::new()).request_timeout(Duration::from_millis(500));
    let mut server = builder.bind("127.0.0.1:0", Blocking(factory(|_peer| Told))).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub fn serves_by_a_protocol(program: &mut Program) {
    assert_ne!(program.ask("pid"), program.child.id().to_string());
    for word in ["fail", "panic", "exit", "hang"] {
        assert_eq!(program.ask(word), "", "{word}");
    }
    // No request is under way, for the parent neither.
    let mut silent = BufReader::new(TcpStream::connect(&program.addr).unwrap());
    for word in ["after a while\n", "and another\n"] {
        thread::sleep(Duration::from_millis(1000)); // twice the limit of a request
        silent.get_mut().write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        silent.read_line(&mut answer).unwrap();
        assert_eq!(answer, word);
    }
    let told = program.stop();
    // Idle connections are ended at once: two of the three that were served.
    let report = "accepted 7, served 3, failed 4 (panicked 1, timed out 1, crashed 1), drained 2";
    assert!(told.lines().any(|line| line.ends_with(report)), "{told}");
}

struct Nobody;

impl Factory for Nobody {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        None
    }
}

pub fn with_a_choosy_factory() {
    let mut server = ServerBuilder::new().strategy(Forking::new()).bind("127.0.0.1:0", Blocking(Nobody)).unwrap();
    println!("{}", server.local_addr());
    assert!(server.handle_request(None).unwrap());
    let handle = server.handle();
    while handle.stats().active > 0 {
        server.handle_request(Some(Duration::from_millis(10))).unwrap();
    }
    println!("refused {}, failed {}", handle.stats().refused, handle.stats().failed);
}

pub fn is_refused_by_the_factory(program: &mut Program) {
    assert_eq!(program.ask("anything"), "");
    assert_eq!(program.rest().trim(), "refused 1, failed 0");
}
