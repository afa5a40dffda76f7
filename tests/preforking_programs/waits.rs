//! Handlers that wait for the peer and for other threads at once, in workers.

use super::*;
use socketserver::connection::Event;

/// Echoes lines, and tells what else its waits end for.
fn tell_events(conn: &mut Connection) -> HandlerResult {
    let waker = conn.waker()?;
    loop {
        match conn.wait()? {
            Event::Input => {
                while let Some(line) = conn.try_next_line()? {
                    match line.as_str() {
                        "wake" => drop(thread::spawn({
                            let waker = waker.clone();
                            move || waker.wake()
                        })),
                        "reload" => writeln!(conn, "{:?}", conn.server().reload())?,
                        "pids" => writeln!(conn, "{} {}", std::process::id(), nix::unistd::getppid())?,
                        _ => writeln!(conn, "{line}")?,
                    }
                }
            }
            Event::Woken => writeln!(conn, "woken")?,
            Event::Stopping => writeln!(conn, "told of the stop")?,
            _ => return Ok(()),
        }
    }
}

fn wait_within<E>(strategy: PreForking<E>)
where
    PreForking<E>: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    let tell_events: fn(&mut Connection) -> HandlerResult = tell_events;
    serve_long(builder(strategy), tell_events);
}

/// A drain would outlast the test.
fn serve_long<S>(builder: ServerBuilder<S>, answer: fn(&mut Connection) -> HandlerResult)
where
    S: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    let builder = builder.handle_signals().drain_timeout(Duration::from_secs(120));
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn waiting_threads() {
    wait_within(PreForking::new(2, Threading::new()));
}

pub(crate) fn waiting_pools() {
    wait_within(PreForking::new(2, ThreadPool::new(8)));
}

pub(crate) fn waiting_processes() {
    wait_within(PreForking::new(2, Forking::new()));
}

/// A reload is a stop for the workers that are replaced. The handler goes on until its peer ends.
pub(crate) fn waits_end_for_all_that_comes(program: &mut Program) {
    until("two workers", || workers(program).len() == 2);
    let mut clients: Vec<_> = (0..6).map(|n| connect(program, &n.to_string())).collect();
    clients.iter_mut().enumerate().for_each(|(n, client)| assert_eq!(line(client), n.to_string()));
    let mut say = |what: &str, answer: &str| {
        clients.iter_mut().for_each(|client| writeln!(client.get_mut(), "{what}").unwrap());
        clients.iter_mut().for_each(|client| assert_eq!(line(client), answer));
    };
    say("wake", "woken");
    say("echo", "echo");
    let before = workers(program);
    let mut asks = connect(program, "reload");
    assert_eq!(line(&mut asks), "Ok(())");
    clients.iter_mut().for_each(|client| assert_eq!(line(client), "told of the stop"));
    assert_eq!(line(&mut asks), "told of the stop");
    // Workers are replaced one after another, so an old one may accept a little longer.
    let (mut accepted, mut late) = (7, None);
    until("a new worker serves", || {
        let mut client = connect(program, "pids");
        let served_by = line(&mut client);
        accepted += 1;
        late = Some(client);
        // An old one may say first that it is to stop.
        let is_new = |pid: &str| pid.parse().is_ok_and(|pid| !before.contains(&pid));
        served_by.split(' ').all(is_new)
    });
    let mut late = late.unwrap();
    // It has been told, and goes on.
    writeln!(asks.get_mut(), "wake").unwrap();
    assert_eq!(line(&mut asks), "woken");
    drop((clients, asks));
    until("the old workers are gone", || workers(program).is_disjoint(&before));
    writeln!(late.get_mut(), "wake").unwrap();
    assert_eq!(line(&mut late), "woken");
    kill("TERM", program.child.id());
    assert_eq!(line(&mut late), "told of the stop");
    drop(late);
    let report = program.rest();
    // One that was left before it had read all counts as disconnected.
    let all = format!("accepted {accepted}, served ");
    assert!(report.contains(&all) && !report.contains("failed") && !report.contains("forced"), "{report}");
}

pub(crate) fn idle_processes() {
    let echo = |conn: &mut Connection| -> HandlerResult {
        while let Some(line) = conn.next_line()? {
            match line.as_str() {
                "reload" => writeln!(conn, "{:?}", conn.server().reload())?,
                _ => writeln!(conn, "{line}")?,
            }
        }
        Ok(())
    };
    serve_long(builder(PreForking::new(2, Forking::new())), echo);
}

/// It is the master that stops the worker, and the worker that tells its children.
pub(crate) fn idle_processes_end_at_once(program: &mut Program) {
    let meet = |n: usize| {
        let mut client = connect(program, &n.to_string());
        assert_eq!(line(&mut client), n.to_string());
        client
    };
    let mut before: Vec<_> = (0..6).map(meet).collect();
    let mut asks = connect(program, "reload");
    assert_eq!(line(&mut asks), "Ok(())");
    before.push(asks);
    before.iter_mut().for_each(|client| assert_eq!(client.read_line(&mut String::new()).unwrap(), 0, "a reload"));
    let mut after: Vec<_> = (0..6).map(meet).collect();
    kill("TERM", program.child.id());
    after.iter_mut().for_each(|client| assert_eq!(client.read_line(&mut String::new()).unwrap(), 0, "a stop"));
    let report = program.rest();
    assert!(report.contains("accepted 13, served 13") && !report.contains("failed"), "{report}");
}
