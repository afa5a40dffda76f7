//! P and R: what clients and their sockets do.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use nix::sys::socket::{setsockopt, sockopt};
use socketserver::testing::TestServer;
use socketserver::{handler, Connection, HandlerResult, ServerBuilder};

use crate::support::{tool, until};
use crate::{torture, Settled, ALL};

/// A real client that ends its side first, and waits.
#[test]
fn p10_nc_gets_its_answer_after_its_own_end() {
    for strategy in ALL {
        let Some(mut nc) = tool("nc") else { return };
        let mut server = torture(strategy, &[]);
        let before = Settled::of(&server);
        let port = server.port().to_string();
        let nc = nc.args(["-N", "127.0.0.1", &port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut nc = nc.spawn().unwrap();
        nc.stdin.take().unwrap().write_all(b"BIG 300000\nECHO last\n").unwrap();
        let output = nc.wait_with_output().unwrap().stdout;
        assert_eq!(output.len(), 300_000 + 1 + 5, "{strategy}");
        assert!(output.ends_with(b"\nlast\n"), "{strategy}");
        before.still(&mut server, strategy);
    }
}

/// A client that takes a reply byte by byte makes progress, so the write limit does not end it: the request limit does.
#[test]
fn p12_a_slow_reader_is_ended_by_the_request_limit() {
    for strategy in ALL {
        let mut server = torture(strategy, &["--request-timeout", "400"]);
        let before = Settled::of(&server);
        let mut client = server.connect();
        client.send("BIG 50000000\n");
        let (mut taken, mut few) = (0, [0; 512]);
        until("it is cut, while it is still reading", || {
            taken += client.read(&mut few).unwrap_or(0);
            server.stderr().iter().any(|line| line.contains("request limit of 400ms exceeded"))
        });
        assert!(taken < 50_000_000);
        server.until_stats("it is counted", |s| s["timed_out"] == 1);
        drop(client);
        before.still(&mut server, strategy);
    }
}

/// The smallest buffer that the kernel allows: slow, and right.
#[test]
fn r3_a_tiny_send_buffer_loses_nothing() {
    fn much(conn: &mut Connection) -> HandlerResult {
        setsockopt(&conn.as_fd(), sockopt::SndBuf, &1)?;
        let part: Vec<u8> = (0..=250).collect();
        for _ in 0..2000 {
            conn.write_all(&part)?;
        }
        Ok(())
    }
    let server = TestServer::with(ServerBuilder::new(), handler(much));
    let mut client = server.connect();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 251 * 2000);
    assert!(all.chunks(251).all(|chunk| chunk.iter().copied().eq(0..=250)));
    assert_eq!(server.stop().served, 1);
}
