//! One source has no more than its share, whatever serves it, and the others do not notice.

use std::time::Instant;

use crate::support::{until, Client, Server, Stats, AT_ONCE};
use crate::Traits;

const HERE: &str = "127.0.0.1";
const GREEDY: &str = "127.0.0.2";
const HONEST: &str = "127.0.0.3";

/// True if the server serves this client, and false if it closes without a word.
fn is_served(client: &mut Client) -> bool {
    client.try_ask("ECHO in").is_ok_and(|said| said == "in")
}

/// The clients of a crowd that are served. All of them have connected before the first one speaks.
fn served_of(crowd: impl Iterator<Item = Client>) -> Vec<Client> {
    let crowd: Vec<_> = crowd.collect();
    crowd.into_iter().filter_map(|mut client| is_served(&mut client).then_some(client)).collect()
}

/// The counters, asked over a connection that stays.
fn stats(control: &mut Client) -> Stats {
    Stats::parse(&control.ask("STATS"))
}

fn from(server: &Server, source: &str) -> Client {
    Client::connect_from(source, server.addr())
}

pub(crate) fn a_source_has_no_more_at_once_than_it_may(of: &Traits) {
    if !of.concurrent {
        return a_source_alone_is_served_again_and_again(of);
    }
    let server = of.start(&["--per-source", "3", "--max-connections", "16", "--workers", "8"]);
    let mut control = server.connect();
    for _ in 0..3 {
        let mut served = served_of((0..20).map(|_| from(&server, GREEDY)));
        assert_eq!(served.len(), 3);
        assert!(is_served(&mut from(&server, HONEST)), "another source");
        served.pop();
        until("a place is free again", || is_served(&mut from(&server, GREEDY)));
        drop(served);
        until("all places are free again", || served_of((0..3).map(|_| from(&server, GREEDY))).len() == 3);
        until("they have ended", || stats(&mut control)["active"] == 1);
    }
    until("they are counted by the reason", || {
        let stats = stats(&mut control);
        stats["source_at_once"] >= 3 * 17 && stats["refused"] == stats["source_at_once"] && stats.add_up()
    });
}

/// Where clients are served one after the other, nobody has two connections that are served. Where they are parked between
/// two requests, the next one may come before the server has seen the end of the one before.
fn a_source_alone_is_served_again_and_again(of: &Traits) {
    let mut server = of.start(&["--per-source", "1"]);
    for _ in 0..10 {
        until("the place of the one before is free", || is_served(&mut from(&server, GREEDY)));
    }
    server.term().well_within(AT_ONCE);
    match of.args.contains(&"request") {
        true => server.until_reported_without("accepted ", &["failed"]),
        false => server.until_reported_without("accepted 10, served 10", &["refused"]),
    }
}

pub(crate) fn a_source_that_connects_too_fast_is_refused(of: &Traits) {
    let began = Instant::now();
    let mut server = of.start(&["--rate", "2"]);
    let mut served = 0;
    until("one comes too soon", || {
        let comes_in_time = is_served(&mut from(&server, GREEDY));
        served += u64::from(comes_in_time);
        !comes_in_time
    });
    let allowed = 2 + 2 * (began.elapsed().as_secs() + 1);
    assert!(served <= allowed, "{served} of {allowed}");
    assert!(is_served(&mut from(&server, HONEST)), "another source");
    server.term().well_within(AT_ONCE);
    server.until_reported("refused by source 1");
}

/// As the proxy of this machine says.
fn by_proxy(server: &Server, client: &str) -> Client {
    let mut proxy = server.connect();
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let ours = if client.contains(':') { "::1" } else { HERE };
    proxy.send(format!("PROXY {family} {client} {ours} 4242 25\r\n"));
    proxy
}

pub(crate) fn behind_a_proxy_the_client_is_the_source(of: &Traits) {
    if !of.concurrent {
        return;
    }
    let args = ["--per-source", "2", "--proxy-from", HERE, "--max-connections", "16", "--workers", "8"];
    let mut server = of.start(&args);
    for (one, same, other) in [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ("::ffff:198.51.100.7", "::ffff:198.51.100.7", "::ffff:198.51.100.8"),
    ] {
        let served = served_of((0..8).map(|n| by_proxy(&server, if n % 2 == 0 { one } else { same })));
        assert_eq!(served.len(), 2, "{one}");
        assert!(is_served(&mut by_proxy(&server, other)), "{other}");
        drop(served);
        until("its places are free again", || is_served(&mut by_proxy(&server, one)));
    }
    // The proxy's own connections have no source.
    let own = (0..5).map(|_| {
        let mut proxy = server.connect();
        proxy.send("PROXY UNKNOWN\r\n");
        proxy
    });
    assert_eq!(served_of(own).len(), 5);
    server.term().well_within(AT_ONCE);
    server.until_logged("refused by source");
}

pub(crate) fn a_unix_socket_has_no_sources(of: &Traits) {
    if !of.concurrent {
        return;
    }
    let folder = std::env::temp_dir().join(format!("sources-{}-{:p}", std::process::id(), of));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s");
    let server = of.start_at(&format!("unix:{}", path.display()), &["--per-source", "1", "--rate", "1"]);
    assert_eq!(served_of((0..3).map(|_| server.connect())).len(), 3);
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}
