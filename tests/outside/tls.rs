//! TLS as clients of other makes see it: OpenSSL's, curl, Python's `ssl`.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socketserver::{handler, AtLimit, ServerBuilder, TlsConfig};

use crate::kit::{connect, read, serve, Running};
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};
use crate::support::{output, run, tool, until, Server, AT_ONCE};

/// How an example serves, by its options.
const WAYS: &[&str] = &[
    "--strategy sequential",
    "--strategy threading",
    "--strategy thread-pool",
    "--strategy forking",
    "--strategy preforking --workers 2",
    "--strategy event-loop",
    "--strategy event-loops --workers 2",
    "--strategy preforking --workers 2 --inner event-loop",
    "--strategy threading --as protocol",
    "--strategy forking --as protocol",
];

fn start(pki: &Pki, options: &str) -> Server {
    let tls = pki.options();
    let args: Vec<&str> = options.split(' ').chain(tls.iter().map(String::as_str)).collect();
    Server::start("torture_server", &args)
}

/// Feeds a command its input, and returns its output.
fn talk(mut command: Command, input: &str) -> (String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have ended already
    let done = output(child, &format!("{command:?}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&done.stdout), text(&done.stderr))
}

fn s_client(pki: &Pki, server: &Server, options: &[&str], input: &str) -> (String, String) {
    let mut command = tool("openssl").unwrap();
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect", server.addr()]);
    command.args(["-CAfile", &pki.file("ca.pem"), "-verify_hostname", "localhost"]).args(options);
    talk(command, input)
}

#[test]
fn openssl_is_served_by_every_strategy() {
    let Some(pki) = Pki::make() else { return };
    for way in WAYS {
        let mut server = start(&pki, way);
        for version in ["-tls1_3", "-tls1_2"] {
            let (said, errors) = s_client(&pki, &server, &[version], "ECHO hello\nCLOSE\n");
            assert_eq!(said, "hello\n", "{way} {version}: {errors}");
        }
        let (said, errors) = s_client(&pki, &server, &["-tls1_1"], "ECHO hello\nCLOSE\n");
        assert!(said.is_empty() && errors.contains("alert"), "{way}: {errors}");
        server.term().well_within(AT_ONCE);
    }
}

#[test]
fn the_example_greets_by_tls_with_a_certificate_that_it_has_made() {
    let Some(mut client) = tool("openssl") else { return };
    let mut server = Server::start("tls_server", &[]);
    client.args(["s_client", "-quiet", "-connect", server.addr()]);
    let (greeting, said) = talk(client, "");
    assert_eq!(greeting, "Thank you for connecting\n", "{said}");
    server.term().well_within(AT_ONCE);
}

/// The server's part of TLS, for a server in the process of the test.
fn config(pki: &Pki) -> TlsConfig {
    TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap()
}

#[test]
fn curl_reads_a_page_over_tls() {
    let (Some(pki), Some(mut curl)) = (Pki::make(), tool("curl")) else { return };
    let page = handler(|conn| {
        while conn.next_line()?.is_some_and(|line| !line.is_empty()) {}
        conn.send_line("HTTP/1.0 200 OK\r\n\r\nhello\r")
    });
    let server = serve(ServerBuilder::new().tls(config(&pki)).bind("127.0.0.1:0", page).unwrap());
    let url = format!("https://localhost:{}/", server.addr().port());
    curl.args(["-sS", "--max-time", "20", "--cacert", &pki.file("ca.pem"), &url]);
    let (said, errors) = talk(curl, "");
    assert_eq!(said, "hello\r\n", "{errors}");
    let mut stranger = tool("curl").unwrap();
    stranger.args(["-sS", "--max-time", "20", &url]);
    assert!(talk(stranger, "").1.contains("certificate"), "it trusts no such authority");
    until("its alert is counted", || server.handle.stats().greetings.tls == 1);
}

#[test]
fn behind_a_proxy_the_header_comes_first_and_tls_behind_it() {
    let Some(pki) = Pki::make() else { return };
    let (seen, sees) = std::sync::mpsc::channel();
    let tell = handler(|conn| conn.send_line(format!("{} {}", conn.peer_addr(), conn.tls().is_some())));
    let builder = ServerBuilder::new().tls(config(&pki)).proxy_protocol(["127.0.0.0/8"]);
    let builder = builder.verify_request(move |client| seen.send(client.peer_addr().clone()).is_ok());
    let server = serve(builder.bind("127.0.0.1:0", tell).unwrap());
    let mut tcp = connect(server.addr());
    tcp.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n").unwrap();
    let mut client = TlsClient::over(tcp, &Arc::new(trust(&pki))).unwrap();
    assert_eq!(client.read_all(), "203.0.113.9:56324 true\n");
    assert_eq!(sees.recv().unwrap().to_string(), "203.0.113.9:56324");
}

#[test]
fn a_client_that_is_refused_reads_an_alert() {
    let Some(pki) = Pki::make() else { return };
    let hello = || handler(|conn| conn.send_line("hello"));
    let builder = ServerBuilder::new().max_connections(1).tls(config(&pki));
    let builder = builder.at_limit(AtLimit::Refuse(b"busy\n".to_vec()));
    let full = serve(builder.bind("127.0.0.1:0", hello()).unwrap());
    let _first = connect(full.addr());
    until("it is being greeted", || full.handle.stats().active == 1);
    let alert = |server: &Running| {
        let mut read = Vec::new();
        connect(server.addr()).read_to_end(&mut read).unwrap();
        read
    };
    assert_eq!(alert(&full), [0x15, 3, 3, 0, 2, 2, 80], "internal_error, and no text");
    let closed = ServerBuilder::new().tls(config(&pki)).verify_request(|_| false);
    let closed = serve(closed.bind("127.0.0.1:0", hello()).unwrap());
    assert_eq!(alert(&closed), [0x15, 3, 3, 0, 2, 2, 49], "access_denied");
}

/// Runs a Python program that has `address`, `port` and a function `context()`, and returns what it prints.
fn python(pki: &Pki, server: &Server, program: &str) -> Option<String> {
    let mut python = tool("python3")?;
    let (host, port) = server.addr().rsplit_once(':').unwrap();
    let head = format!(
        "import socket, ssl\naddress, port = '{host}', {port}\ndef context():\n    return \
         ssl.create_default_context(cafile='{}')\ndef connect(context, **more):\n    return context.wrap_socket(\
         socket.create_connection((address, port), 30), server_hostname='localhost', **more)\ndef line(c):\n    \
         text = b''\n    while not text.endswith(b'\\n'):\n        text += c.recv(1) or b'(end)\\n'\n    return text.decode().strip()\n",
        pki.file("ca.pem"),
    );
    python.args(["-c", &(head + program)]);
    let (said, errors) = talk(python, "");
    assert!(errors.is_empty(), "{errors}");
    Some(said)
}

/// Each connection of `Forking` is served by another process, and each of `PreForking` may be.
#[test]
fn a_ticket_of_one_process_is_taken_by_all_others() {
    let Some(pki) = Pki::make() else { return };
    for way in WAYS {
        let server = start(&pki, way);
        let program = "
import itertools
c, session, resumed = context(), None, []
for n in range(8):
    s = connect(c, session=session)
    s.sendall(b'ECHO hello\\n')
    line(s)
    resumed.append(s.session_reused)
    session = s.session
    s.close()
print(resumed.count(True))
";
        let Some(said) = python(&pki, &server, program) else { return };
        assert_eq!(said, "7\n", "{way}: all but the first");
    }
}

#[test]
fn python_may_leave_with_and_without_close_notify() {
    let Some(pki) = Pki::make() else { return };
    for way in ["--strategy threading", "--strategy forking", "--strategy event-loop"] {
        let mut server = start(&pki, way);
        let program = "
for how in ('unwrap', 'close'):
    for n in range(3):
        s = connect(context())
        s.sendall(b'ECHO hello\\n')
        line(s)
        if how == 'unwrap': s.unwrap()
        s.close()
print('done')
";
        let Some(said) = python(&pki, &server, program) else { return };
        assert_eq!(said, "done\n");
        server.term().well_within(AT_ONCE);
        server.until_reported("accepted 6, served 6");
    }
}

#[test]
fn hostile_hellos_cost_their_clients_the_connection_and_nothing_else() {
    let Some(pki) = Pki::make() else { return };
    for way in ["--strategy threading", "--strategy forking", "--strategy event-loop"] {
        let server = start(&pki, way);
        let program = "
import random
random.seed(1)
i, o = ssl.MemoryBIO(), ssl.MemoryBIO()
x = context().wrap_bio(i, o, server_hostname='localhost')
try: x.do_handshake()
except ssl.SSLWantReadError: pass
hello = o.read()
for n in range(100):
    bad = bytearray(hello)
    if n % 3 == 0: bad = bad[:random.randrange(len(bad))]
    else:
        for k in range(1 + n % 7): bad[random.randrange(len(bad))] = random.randrange(256)
    if n % 10 == 0: bad = random.randbytes(random.randrange(1, 20000))
    s = socket.create_connection((address, port), 30)
    try:
        s.sendall(bad)
        s.shutdown(socket.SHUT_WR)
        while s.recv(4096): pass
    except OSError: pass
    s.close()
s = connect(context())
s.sendall(b'ECHO alive\\n')
print(line(s))
";
        let Some(said) = python(&pki, &server, program) else { return };
        assert_eq!(said, "alive\n", "{way}");
        assert!(server.stderr().iter().all(|line| !line.contains("ERROR")), "{way}: {:?}", server.stderr());
    }
}

#[test]
fn a_reload_of_preforking_reads_the_certificate_again() {
    let Some(pki) = Pki::make() else { return };
    pki.sign("renewed");
    let server = start(&pki, "--strategy preforking --workers 2");
    let shown = || s_client(&pki, &server, &["-showcerts"], "ECHO hello\nCLOSE\n");
    let serial = |name: &str| {
        let mut x509 = tool("openssl").unwrap();
        x509.args(["x509", "-noout", "-serial", "-in", &pki.file(name)]);
        talk(x509, "").0
    };
    let served = || {
        let mut fetch = tool("openssl").unwrap();
        fetch.args(["s_client", "-connect", server.addr(), "-CAfile", &pki.file("ca.pem")]);
        let page = talk(fetch, "Q\n").0;
        let begin = page.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{page}"));
        let mut x509 = tool("openssl").unwrap();
        x509.args(["x509", "-noout", "-serial"]);
        talk(x509, &page[begin..]).0
    };
    assert_eq!(shown().0, "hello\n");
    assert_eq!(served(), serial("server.pem"));
    let new = serial("renewed.pem");
    for kind in ["pem", "key"] {
        std::fs::copy(pki.file(&format!("renewed.{kind}")), pki.file(&format!("server.{kind}"))).unwrap();
    }
    server.signal("HUP");
    until("the new certificate is served", || served() == new);
    std::fs::write(pki.file("server.pem"), "").unwrap();
    server.signal("HUP");
    server.until_logged("the reload keeps the old certificate");
    // A worker from before both reloads may serve until the first reload has replaced it.
    until("the new certificate is kept", || served() == new);
}

#[test]
fn an_example_names_what_is_wrong_with_its_files() {
    let Some(pki) = Pki::make() else { return };
    let fail = |args: &[&str]| {
        let ran = run("echo_server", &[&["127.0.0.1:0"], args].concat());
        assert_eq!(ran.status.code(), Some(1));
        String::from_utf8(ran.stderr).unwrap()
    };
    let alone = fail(&["--tls-cert", &pki.file("server.pem")]);
    assert!(alone.contains("--tls-key"), "{alone}");
    let swapped = fail(&["--tls-cert", &pki.file("server.key"), "--tls-key", &pki.file("server.pem")]);
    assert!(swapped.contains("server.key") && swapped.contains("no certificate"), "{swapped}");
}

#[test]
fn mail_clients_begin_tls() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let smtp = handler(move |conn| {
        conn.send_line("220 test\r")?;
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            match line.split(' ').next().unwrap_or("").to_uppercase().as_str() {
                "EHLO" if conn.tls().is_none() => conn.send_line("250-test\r\n250 STARTTLS\r")?,
                "EHLO" => conn.send_line("250-test\r\n250 SECRET\r")?,
                "STARTTLS" => {
                    conn.send_line("220 go ahead\r")?;
                    conn.start_tls(&tls)?;
                }
                "QUIT" => return conn.send_line("221 bye\r"),
                _ => conn.send_line("250 fine\r")?,
            }
        }
        Ok(())
    });
    let server = serve(ServerBuilder::new().bind("127.0.0.1:0", smtp).unwrap());
    let mut openssl = tool("openssl").unwrap();
    let (address, ca) = (server.addr().to_string(), pki.file("ca.pem"));
    openssl.args(["s_client", "-quiet", "-starttls", "smtp", "-connect", &address, "-CAfile", &ca]);
    let (said, errors) = talk(openssl, "NOOP\r\nQUIT\r\n");
    assert!(said.contains("250 fine") && said.contains("221 bye"), "{said} {errors}");
    let Some(mut python) = tool("python3") else { return };
    let program = format!(
        "import smtplib, ssl\ns = smtplib.SMTP('localhost', {})\ns.starttls(context=ssl.create_default_context(cafile='{ca}'))\n\
         s.ehlo()\nprint(s.has_extn('secret'), s.noop()[0])\ns.quit()",
        server.addr().port()
    );
    python.args(["-c", &program]);
    assert_eq!(talk(python, "").0, "True 250\n");
}

/// A thousand clients that begin no handshake, in front of an honest one. A stop ends them.
#[test]
fn a_thousand_mute_clients_hold_up_nobody() {
    let Some(pki) = Pki::make() else { return };
    for strategy in ["threading", "event-loop"] {
        let mut server = start(&pki, &format!("--strategy {strategy} --max-connections 1010"));
        let crowd: Vec<_> = (0..1000).map(|_| connect(server.addr().parse().unwrap())).collect();
        let (said, errors) = s_client(&pki, &server, &[], "ECHO hello\nCLOSE\n");
        assert_eq!(said, "hello\n", "{strategy}: {errors}");
        server.term().well_within(AT_ONCE);
        // The honest one has seen its end, and may have been counted in the drain.
        let counts = ["accepted 1001, served 1, refused 1000, ", "failed greetings 1000"];
        let is_report = |line: &String| counts.iter().all(|count| line.contains(count));
        until("the report counts all", || server.stderr().iter().any(is_report));
        drop(crowd);
    }
}

/// A byte at a time, so that each wait is short: the limit is on the whole handshake.
#[test]
fn a_hello_that_trickles_is_cut_by_the_handshake_limit() {
    let Some(pki) = Pki::make() else { return };
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::new(trust(&pki)), name).unwrap().write_tls(&mut hello).unwrap();
    thread::scope(|scope| {
        for way in WAYS {
            let (pki, hello) = (&pki, &hello);
            scope.spawn(move || {
                let server = start(pki, &format!("{way} --handshake-timeout 300"));
                let mut client = connect(server.addr().parse().unwrap());
                client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let is_cut = hello.iter().any(|byte| {
                    let sent = client.write_all(&[*byte]);
                    let waits = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
                    sent.is_err() || read(&mut client, &mut [0]).map_or_else(|e| !waits(&e), |_| true)
                });
                assert!(is_cut, "{way}: all of {} bytes came", hello.len());
            });
        }
    });
}
