//! Handlers of requests in workers: connections that are parked there.

use super::*;

fn answer_and_stay(conn: &mut Connection) -> HandlerResult<Next> {
    answer(conn)?;
    Ok(Next::Request)
}

fn serve_requests<E>(strategy: PreForking<E>)
where
    PreForking<E>: Engine<PerRequest<RequestFn<fn(&mut Connection) -> HandlerResult<Next>>>>,
{
    let answer: fn(&mut Connection) -> HandlerResult<Next> = answer_and_stay;
    let mut server = builder(strategy).bind("127.0.0.1:0", per_request(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn parking_pools() {
    serve_requests(PreForking::new(2, ThreadPool::new(2)));
}

pub(crate) fn recycled_requests() {
    serve_requests(PreForking::new(1, ThreadPool::new(2)).max_requests(1).max_requests_jitter(0));
}

fn talk(client: &mut BufReader<TcpStream>, text: &str) -> String {
    writeln!(client.get_mut(), "{text}").unwrap();
    line(client)
}

/// A reload ends what is idle and has spoken, and nothing else.
pub(crate) fn parks_over_a_reload(program: &mut Program) {
    until("two workers", || workers(program).len() == 2);
    let mut spoke: Vec<_> = (0..30).map(|n| connect(program, &n.to_string())).collect();
    spoke.iter_mut().enumerate().for_each(|(n, client)| assert_eq!(line(client), n.to_string()));
    for round in 0..3 {
        for (n, client) in spoke.iter_mut().enumerate() {
            assert_eq!(talk(client, &format!("{round} {n}")), format!("{round} {n}"), "more clients than threads");
        }
    }
    let silent: Vec<_> = (0..10).map(|_| TcpStream::connect(&program.addr).unwrap()).collect();
    let mut asks = connect(program, "stats");
    assert!(line(&mut asks).starts_with("active "));
    until("all are accepted", || talk(&mut asks, "stats").starts_with("active 41 of "));
    let before = workers(program);
    assert_eq!(talk(&mut asks, "reload"), "Ok(())");
    spoke.iter_mut().for_each(|client| assert_eq!(line(client), "", "idle between two requests"));
    until("there are others", || !workers(program).is_subset(&before));
    for client in silent {
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = BufReader::new(client);
        assert_eq!(talk(&mut client, "my first"), "my first", "a client that has said nothing is spared");
        assert_eq!(line(&mut client), "", "and ends then");
    }
    until("the old ones are gone", || workers(program).is_disjoint(&before));
    let mut client = connect(program, "workers 4");
    assert_eq!(line(&mut client), "Ok(())");
    until("four workers", || workers(program).len() == 4);
    let mut many: Vec<_> = (0..30).map(|n| connect(program, &n.to_string())).collect();
    many.iter_mut().enumerate().for_each(|(n, client)| assert_eq!(line(client), n.to_string()));
    assert_eq!(line(&mut connect(program, "workers 1")), "Ok(())");
    until("one worker", || workers(program).len() == 1);
    let mut last = connect(program, "hello");
    assert_eq!(line(&mut last), "hello");
    let report = program.stop();
    assert!(!report.contains("failed") && !report.contains("forced"), "{report}");
    assert_eq!(line(&mut last), "");
}
