//! The example `keep_alive`: HTTP with keep-alive, by the clients that people use.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use crate::kit::LONG;
use crate::support::{tool, Server};

const STRATEGIES: &[&[&str]] = &[
    &["--strategy", "thread-pool", "--workers", "2"],
    &["--strategy", "threading"],
    &["--strategy", "sequential"],
    &["--strategy", "forking"],
    &["--strategy", "preforking", "--workers", "2", "--inner", "thread-pool"],
];

fn start(strategy: &[&str]) -> Server {
    Server::start_at("127.0.0.1:0", "keep_alive", strategy)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_keeps_its_connection_on_every_strategy() {
    for strategy in STRATEGIES {
        let server = start(strategy);
        let Some(mut curl) = tool("curl") else { return };
        let url = |path: &str| format!("http://{}/{path}", server.addr());
        let connects = "%{num_connects} ";
        curl.args(["-sS", "--max-time", "30", "-w", connects]).args([url("one"), url("two"), url("three")]);
        let said = output(&mut curl);
        assert_eq!(said, "you asked for /one\n1 you asked for /two\n0 you asked for /three\n0 ", "{strategy:?}");
        let Some(mut curl) = tool("curl") else { return };
        curl.args(["-sS", "--max-time", "30", "-H", "Expect: 100-continue", "-d", "a body", &url("")]);
        assert_eq!(output(&mut curl), "a body", "{strategy:?}");
    }
}

#[test]
fn ab_and_wrk_are_served_by_fewer_threads_than_they_have_connections() {
    for strategy in &STRATEGIES[..2] {
        let server = start(strategy);
        let url = format!("http://{}/", server.addr());
        if let Some(mut ab) = tool("ab") {
            let said = output(ab.args(["-q", "-k", "-n", "2000", "-c", "50", &url]));
            assert!(said.contains("Failed requests:        0"), "{said}");
            assert!(said.contains("Keep-Alive requests:    2000"), "{said}");
        }
        if let Some(mut wrk) = tool("wrk") {
            let said = output(wrk.args(["-t", "2", "-c", "100", "-d", "1s", &url]));
            assert!(said.contains("requests in") && !said.contains("Non-2xx"), "{said}");
        }
    }
}

/// Sends this, ends the stream, and reads to the end.
fn ask(server: &Server, text: &str) -> String {
    let mut client = TcpStream::connect(server.addr()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    answer
}

#[test]
fn bad_requests_are_refused_and_nothing_is_smuggled() {
    let server = start(STRATEGIES[0]);
    let cases = [
        ("nonsense\r\n\r\n", "400 "),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400 "),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", "400 "),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501 "),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "413 "),
        ("BREW / HTTP/1.1\r\n\r\n", "405 "),
        ("GET / HTTP/1.0\r\n\r\nGET /more HTTP/1.0\r\n\r\n", "200 "),
    ];
    for (request, status) in cases {
        let answer = ask(&server, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}: {answer}");
    }
    let two = ask(&server, "GET /a HTTP/1.1\r\n\r\nHEAD /b HTTP/1.1\r\n\r\n");
    assert!(two.contains("you asked for /a\n") && !two.contains("you asked for /b"), "{two}");
    assert_eq!(two.matches("HTTP/1.1 200").count(), 2, "{two}");
}

/// curl reports an error unless it has the whole reply, although the server leaves a part of the request unread.
#[test]
fn a_head_that_is_too_long_has_a_whole_reply() {
    for strategy in STRATEGIES {
        let server = start(strategy);
        let url = format!("http://{}/", server.addr());
        let fields: Vec<String> = (0..65).map(|n| format!("X-{n}: 1")).collect();
        for headers in
            [vec![format!("X: {}", "x".repeat(20 << 10))], vec![format!("X: {}", "x".repeat(90 << 10))], fields]
        {
            let Some(mut curl) = tool("curl") else { return };
            curl.args(["-sS", "--max-time", "30", "-w", "%{http_code} %{size_download}", &url]);
            curl.args(headers.iter().flat_map(|header| ["-H", header]));
            assert_eq!(output(&mut curl), "431 0", "{strategy:?}");
        }
    }
}
