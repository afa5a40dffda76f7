use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;

fn sources(setting: PerSource) -> Sources {
    setting.check().unwrap();
    Sources::new(&setting).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The n-th address of a crowd.
fn stranger(n: u32) -> IpAddr {
    IpAddr::from((0x1000_0000 | n).to_be_bytes())
}

const SMALL: usize = 64 << 10;

#[test]
fn a_source_is_an_address_or_a_network_of_64_bits() {
    for (one, other, is_same) in [
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("2001:db8::1", "2001:db8::2:3:4:5", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("::1", "192.0.2.1", false),
        ("::1", "::2", true),
    ] {
        let sources = sources(PerSource::new().at_once(1));
        let stay = sources.admit(ip(one)).unwrap().expect("there is room");
        assert_eq!(sources.admit(ip(other)).is_err(), is_same, "{one} and {other}");
        sources.leave(stay);
        assert!(sources.admit(ip(one)).is_ok());
    }
    let wide = sources(PerSource::new().at_once(1).ipv4_prefix(24).ipv6_prefix(48));
    assert!(wide.admit(ip("192.0.2.1")).is_ok() && wide.admit(ip("192.0.2.255")).is_err());
    assert!(wide.admit(ip("192.0.3.1")).is_ok());
    assert!(wide.admit(ip("2001:db8:1::1")).is_ok() && wide.admit(ip("2001:db8:1:ffff::1")).is_err());
}

#[test]
fn the_limit_is_exact_over_threads() {
    let sources = sources(PerSource::new().at_once(3).memory(SMALL));
    let (here, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if let Ok(stay) = sources.admit(ip("192.0.2.1")) {
                        most.fetch_max(here.fetch_add(1, SeqCst) + 1, SeqCst);
                        here.fetch_sub(1, SeqCst);
                        sources.leave(stay.expect("there is room"));
                    }
                }
            });
        }
    });
    assert!((1..=3).contains(&most.into_inner()));
    assert_eq!((0..5).filter(|_| sources.admit(ip("192.0.2.1")).is_ok()).count(), 3, "all were given back");
}

#[test]
fn a_rate_holds_for_each_source() {
    let sources = sources(PerSource::new().rate(3, Duration::from_secs(3)));
    let comes = |client: &str, millis| {
        let admitted = sources.admit_after(ip(client), || Duration::from_millis(millis));
        admitted.map(|stay| sources.leave(stay.expect("there is room")))
    };
    assert_eq!((0..5).filter(|_| comes("192.0.2.1", 10).is_ok()).count(), 3);
    assert!(comes("192.0.2.2", 10).is_ok());
    assert_eq!(comes("192.0.2.1", 1009), Err(SourceRefusal::Rate));
    assert!(comes("192.0.2.1", 1010).is_ok());
    assert_eq!(comes("192.0.2.1", 1011), Err(SourceRefusal::Rate));
}

/// X4: a million sources, in a table with room for two thousand. They evict nobody else's connection.
#[test]
fn a_flood_of_sources_evicts_nobody_who_is_connected() {
    let sources = sources(PerSource::new().at_once(2).rate(2, Duration::from_secs(3600)).memory(SMALL));
    let connected: Vec<_> = (0..200).map(|n| ip(&format!("192.0.2.{n}"))).collect();
    let stays: Vec<_> = connected.iter().flat_map(|client| [sources.admit(*client), sources.admit(*client)]).collect();
    assert!(stays.iter().all(|stay| matches!(stay, Ok(Some(_)))));
    for n in 0..1_000_000 {
        let stay = sources.admit(stranger(n)).expect("its first connection");
        stay.into_iter().for_each(|stay| sources.leave(stay));
    }
    assert!(connected.iter().all(|client| sources.admit(*client) == Err(SourceRefusal::AtOnce)));
    stays.into_iter().flatten().flatten().for_each(|stay| sources.leave(stay));
    assert!(connected.iter().all(|client| sources.admit(*client) == Err(SourceRefusal::Rate)), "nor is its debt gone");
}

/// More sources than there is room for, all connected.
#[test]
fn sources_without_room_are_served_and_not_counted() {
    let sources = sources(PerSource::new().at_once(1).memory(SMALL));
    let all: Vec<_> = (0..5000).map(|n| sources.admit(stranger(n)).unwrap()).collect();
    let counted = all.iter().flatten().count();
    assert!((1000..2000).contains(&counted), "{counted} of 5000, and there is room for {}", SMALL / 33);
    for (n, stay) in all.iter().enumerate() {
        let again = sources.admit(stranger(n as u32));
        assert_eq!(again.is_err(), stay.is_some(), "those that are counted are limited");
    }
    all.into_iter().flatten().for_each(|stay| sources.leave(stay));
    assert!((0..100).all(|n| sources.admit(stranger(n)).is_ok_and(|stay| stay.is_some())));
}

/// One router with all of its clients behind it.
#[test]
fn one_source_may_have_thousands() {
    let sources = sources(PerSource::new().at_once(1500).memory(SMALL));
    let stays: Vec<_> = (0..1500).map(|_| sources.admit(ip("192.0.2.1")).unwrap()).collect();
    assert!(stays.iter().all(Option::is_some));
    assert_eq!(sources.admit(ip("192.0.2.1")), Err(SourceRefusal::AtOnce));
}

#[test]
fn a_worker_s_connections_are_given_back_at_its_end_and_no_others() {
    let master = sources(PerSource::new().at_once(4).memory(SMALL));
    let (one, other) = (master.for_worker(), master.for_worker());
    let client = ip("192.0.2.1");
    let of_one: Vec<_> = (0..3).map(|_| one.admit(client).unwrap().unwrap()).collect();
    let of_other = other.admit(client).unwrap().unwrap();
    assert!(one.admit(client).is_err() && other.admit(client).is_err());
    other.leave(of_one[0]);
    assert!(other.admit(client).is_err(), "it cannot give back what is not its own");
    one.leave(of_one[0]);
    one.settle();
    one.settle();
    assert_eq!((0..9).map_while(|_| other.admit(client).ok()).count(), 3);
    other.leave(of_other);
    assert!(other.admit(client).is_ok());
    one.leave(of_one[1]);
    assert!(other.admit(client).is_err(), "what was given back is not given back twice");
}

#[test]
fn a_process_that_serves_after_a_fork_has_an_empty_table() {
    let sources = sources(PerSource::new().at_once(1).memory(SMALL));
    let stay = sources.admit(ip("192.0.2.1")).unwrap().unwrap();
    sources.renew().unwrap();
    sources.leave(stay);
    assert!(sources.admit(ip("192.0.2.1")).is_ok());
    assert!(sources.admit(ip("192.0.2.1")).is_err());
    sources.renew().unwrap();
    assert!(sources.admit(ip("192.0.2.1")).is_ok());
}

/// The promise: 2 µs of processor time for a connection, and 16 MiB. `cargo test --release --lib sources -- --nocapture`
/// shows the time.
#[test]
#[allow(clippy::print_stdout)]
fn a_connection_of_100_000_known_sources_costs_little() {
    let setting = PerSource::new().at_once(20).rate(10, Duration::from_secs(1));
    let sources = sources(setting);
    assert!(sources.on_pages().len() <= 16 << 20);
    let visit = |n| {
        if let Ok(Some(stay)) = sources.admit(stranger(n)) {
            sources.leave(stay);
        }
    };
    (0..100_000).for_each(visit);
    let time = || Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let began = time();
    // In another order than they came in.
    (0..100_000).map(|n: u32| n.wrapping_mul(77_777) % 100_000).for_each(visit);
    let each = (time() - began) / 100_000;
    println!("admit and leave: {each:?} each");
    assert!(each < Duration::from_micros(20), "{each:?}");
}
