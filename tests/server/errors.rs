//! What cannot be: each mistake is one line at bind that says what and where, never a panic or a surprise later.

use crate::kit;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use crate::kit::{has_ipv6, ms, Folder, Lines};
use socketserver::{Error, Sequential, ServerBuilder, ThreadPool, Threading};

fn bind_error(address: &str) -> (String, ErrorKind) {
    let error = ServerBuilder::new().bind(address, Lines).unwrap_err();
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    match error {
        Error::Listen { address: named, source, .. } => {
            assert_eq!(named, address);
            (line, source.kind())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_in_use_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (line, kind) = bind_error(&address);
    assert_eq!(kind, ErrorKind::AddrInUse);
    for part in ["cannot bind", &address, "os error 98", "another program listens there"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn an_address_of_another_machine_says_so() {
    let (line, kind) = bind_error("192.0.2.1:0");
    assert_eq!(kind, ErrorKind::AddrNotAvailable);
    for part in ["cannot bind 192.0.2.1:0", "os error 99", "no interface of this machine"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn an_unknown_name_says_so() {
    let (line, _) = bind_error("no-such-host.invalid:80");
    for part in ["cannot resolve no-such-host.invalid:80", "check the name"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn malformed_addresses_say_what_is_missing() {
    let cases = [
        ("127.0.0.1", "no port"),
        ("localhost", "no port"),
        ("", "no port"),
        ("127.0.0.1:80x", "the port is no number"),
        ("127.0.0.1:", "the port is no number"),
        ("127.0.0.1:65536", "the port is no number"),
        ("127.0.0.1:-1", "the port is no number"),
        ("::1:80", "brackets"),
    ];
    for (address, why) in cases {
        let (line, kind) = bind_error(address);
        assert_eq!(kind, ErrorKind::InvalidInput, "{address}");
        assert!(line.contains(why) && line.contains("HOST:PORT"), "{address}: {line}");
    }
}

#[test]
fn an_unusable_unix_path_says_so() {
    let long = format!("/tmp/{}", "x".repeat(200));
    let (line, _) = bind_error(&format!("unix:{long}"));
    assert!(line.contains("cannot listen on unix:/tmp/xxx") && line.contains("at most 107 bytes"), "{line}");
    let folder = Folder::new();
    let path = format!("unix:{}", folder.path("no/such/folder").display());
    let (line, kind) = bind_error(&path);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(line.contains("the folder of the socket file does not exist"), "{line}");
}

#[test]
fn empty_unix_addresses_are_errors() {
    for address in ["unix:", "unix:@"] {
        let error = ServerBuilder::new().bind(address, Lines).map(drop).expect_err(address);
        assert!(matches!(error, Error::Listen { .. }), "{error}");
    }
}

/// One address that cannot be had is an error of the whole, not a server on the rest.
#[test]
fn of_several_addresses_each_must_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = ServerBuilder::new().listen(taken.local_addr().unwrap());
    assert!(matches!(server.bind("127.0.0.1:0", Lines).unwrap_err(), Error::Listen { .. }));
}

#[test]
fn both_families_on_one_port_need_only_v6() {
    if !has_ipv6() {
        return;
    }
    let six = ServerBuilder::new().only_v6(false).bind("[::]:0", Lines).unwrap();
    let port = six.local_addr().port().unwrap();
    assert_eq!(bind_error(&format!("0.0.0.0:{port}")).1, ErrorKind::AddrInUse);
}

fn setting_error<S: socketserver::strategy::ServingStrategy>(server: ServerBuilder<S>, name: &str) {
    match server.bind("127.0.0.1:0", Lines) {
        Err(Error::Setting { name: named, why }) => {
            assert_eq!(named, name);
            assert!(!why.is_empty());
        }
        Err(other) => panic!("{name}: {other}"),
        Ok(_) => panic!("{name}: it was taken"),
    }
}

#[test]
fn time_limits_of_zero_or_of_ages_are_errors() {
    type Set = fn(ServerBuilder, Duration) -> ServerBuilder;
    let limits: [(&str, Set); 4] = [
        ("idle_timeout", |b, t| b.idle_timeout(t)),
        ("read_timeout", |b, t| b.read_timeout(t)),
        ("write_timeout", |b, t| b.write_timeout(t)),
        ("request_timeout", |b, t| b.request_timeout(t)),
    ];
    for (name, set) in limits {
        for value in [Duration::ZERO, Duration::MAX, Duration::from_secs(u64::MAX)] {
            setting_error(set(ServerBuilder::new(), value), name);
        }
    }
    setting_error(ServerBuilder::new().drain_timeout(Duration::MAX), "drain_timeout");
}

#[test]
fn sizes_of_zero_or_beyond_reason_are_errors() {
    type Set = fn(ServerBuilder, usize) -> ServerBuilder;
    let sizes: [(&str, Set); 6] = [
        ("max_connections", |b, n| b.max_connections(n)),
        ("max_line_length", |b, n| b.max_line_length(n)),
        ("read_buffer", |b, n| b.read_buffer(n)),
        ("write_buffer", |b, n| b.write_buffer(n)),
        ("writer_capacity", |b, n| b.writer_capacity(n)),
        ("backlog", |b, n| b.backlog(n)),
    ];
    for (name, set) in sizes {
        for value in [0, usize::MAX] {
            setting_error(set(ServerBuilder::new(), value), name);
        }
    }
}

#[test]
fn settings_of_a_strategy_are_checked_at_bind() {
    setting_error(ServerBuilder::new().strategy(ThreadPool::new(0)), "ThreadPool::new");
    setting_error(ServerBuilder::new().strategy(ThreadPool::new(0)).max_connections(5), "ThreadPool::new");
    setting_error(ServerBuilder::new().strategy(ThreadPool::new(usize::MAX)), "ThreadPool::new");
    setting_error(ServerBuilder::new().strategy(Threading::new().spare_threads(0)), "spare_threads");
    setting_error(ServerBuilder::new().strategy(Threading::new().thread_name("a\0b")), "thread_name");
    setting_error(ServerBuilder::new().strategy(ThreadPool::new(1).thread_name("a\0b")), "thread_name");
}

#[test]
fn a_stack_beyond_reason_is_an_error_at_bind() {
    setting_error(ServerBuilder::new().strategy(Threading::new().stack_size(usize::MAX)), "stack_size");
    setting_error(ServerBuilder::new().strategy(ThreadPool::new(1).stack_size(usize::MAX)), "stack_size");
}

/// The shortest and longest that make sense are taken, and work.
#[test]
fn extreme_settings_that_make_sense_work() {
    let ages = Duration::from_secs(1 << 31);
    let server = ServerBuilder::new()
        .strategy(Threading::new().stack_size(0).keep_alive(Duration::MAX).spare_threads(usize::MAX))
        .idle_timeout(ages)
        .read_timeout(ages)
        .write_timeout(ages)
        .request_timeout(ages)
        .drain_timeout(ages)
        .max_connections(i32::MAX as usize)
        .read_buffer(1)
        .write_buffer(1)
        .writer_capacity(1)
        .backlog(1);
    let server = kit::serve(server.bind("127.0.0.1:0", Lines).unwrap());
    assert_eq!(server.ask("hello\n"), "hello\n");
    assert_eq!(server.stop().served, 1);
}

#[test]
fn live_limits_are_checked_too() {
    let server = ServerBuilder::new().strategy(Sequential).bind("127.0.0.1:0", Lines).unwrap();
    for limit in [0, usize::MAX] {
        let error = server.handle().set_max_connections(limit).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "max_connections", .. }), "{error}");
    }
    assert!(server.handle().wait(Some(ms(0))).unwrap(), "it is not serving");
}
