//! The limit on descriptors, which is the whole process's.

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use socketserver::{handler, ServerBuilder};

#[test]
fn r1_the_limit_is_raised_on_request_and_as_far_as_needed() {
    alone!();
    let none = || handler(|_conn| Ok(()));
    let limits = || getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let hard = limits().1;
    assert!(hard > 2000, "this machine has too few for the test: {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();

    let server = ServerBuilder::new().bind("127.0.0.1:0", none()).unwrap();
    assert_eq!(server.handle().stats().max_connections, 100 - 64, "the strategy's default keeps a reserve");
    assert_eq!(limits(), (100, hard), "nobody has asked");

    let server = ServerBuilder::new().max_connections(500).raise_descriptor_limit().bind("127.0.0.1:0", none());
    assert_eq!(server.unwrap().handle().stats().max_connections, 500);
    assert_eq!(limits(), (564, hard), "as far as needed");

    let server = ServerBuilder::new().raise_descriptor_limit().bind("127.0.0.1:0", none());
    assert_eq!(server.unwrap().handle().stats().max_connections, 1024, "the strategy's default where there is no lack");
    assert_eq!(limits(), (1024 + 64, hard));

    let server = ServerBuilder::new().max_connections(10).raise_descriptor_limit().bind("127.0.0.1:0", none());
    assert_eq!((server.is_ok(), limits()), (true, (1024 + 64, hard)), "never lowered");

    let most = hard as usize;
    let server = ServerBuilder::new().max_connections(most).raise_descriptor_limit().bind("127.0.0.1:0", none());
    assert_eq!((server.is_ok(), limits()), (true, (hard, hard)), "never beyond the hard limit");
}
