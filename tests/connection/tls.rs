//! TLS as a handler meets it: the same calls as without, and nothing of its protocol shows.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;

use socketserver::framing::Netstrings;
use socketserver::tls::ClientAuth;
use socketserver::{handler, Connection, Error, HandlerResult, Limit, ServerBuilder, TlsConfig, TlsInfo};

use crate::kit::{connect, ms, serve, strategies, until, Running, LONG};
use crate::support::pki::Pki;
use crate::support::tls::{trust, trust_and_show, TlsClient};

/// A server's side that trusts nobody, and one that this handler serves on a thread for each connection.
fn config(pki: &Pki) -> TlsConfig {
    TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap()
}

fn server(config: &TlsConfig, handle: impl Fn(&mut Connection) -> HandlerResult + Send + Sync + 'static) -> Running {
    let builder = ServerBuilder::new().tls(config.clone());
    serve(builder.bind("127.0.0.1:0", handler(handle)).unwrap())
}

/// Answers each line with its length.
fn lengths(conn: &mut Connection) -> HandlerResult {
    while conn.next_request()? {
        let Some(line) = conn.next_line()? else { break };
        conn.send_line(line.len().to_string())?;
    }
    Ok(())
}

#[test]
fn a_dialogue_is_as_without() {
    let Some(pki) = Pki::make() else { return };
    for (name, strategy) in strategies() {
        let builder = ServerBuilder::new().strategy(strategy).tls(config(&pki));
        let server = serve(builder.bind("127.0.0.1:0", handler(lengths)).unwrap());
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        for n in [1, 100, 60_000] {
            client.say("x".repeat(n) + "\n");
            client.expect(&format!("{n}\n"));
        }
        client.say("1\n22\n".repeat(500)); // pipelined
        client.expect(&"1\n2\n".repeat(500));
        for record in "in pieces\n".bytes() {
            client.say([record]);
        }
        client.expect("9\n");
        client.close_notify();
        assert_eq!(client.read_all(), "", "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.failed), (1, 0), "{name}: {report}");
    }
}

#[test]
fn both_ways_of_reading_and_writing_carry_megabytes() {
    let Some(pki) = Pki::make() else { return };
    let server = server(&config(&pki), |conn| {
        let (mut input, mut output) = conn.halves();
        std::io::copy(&mut input, &mut output)?;
        Ok(())
    });
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    let (mut writer, mut got) = (vec![0_u8; 8 << 20], Vec::new());
    writer.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / 7) as u8);
    // It reads nothing until all is said, so every buffer on the way is full once.
    for piece in writer.chunks(48 << 10) {
        client.write_all(piece).unwrap();
        let mut room = vec![0; piece.len()];
        client.read_exact(&mut room).unwrap();
        got.extend(room);
    }
    client.close_notify();
    client.read_to_end(&mut got).unwrap();
    assert!(got == writer);
}

#[test]
fn a_slow_reader_gets_everything_and_close_notify_behind_it() {
    let Some(pki) = Pki::make() else { return };
    let (sent, is_sent) = mpsc::channel();
    let server = server(&config(&pki), move |conn| {
        conn.write_all(&vec![b'x'; 8 << 20])?;
        sent.send(())?;
        Ok(())
    });
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    thread::sleep(ms(50)); // for the kernel's buffers to fill; a shorter time makes the test weaker, not wrong
    assert_eq!(client.read_all().len(), 8 << 20);
    is_sent.recv().unwrap();
}

#[test]
fn the_handler_learns_what_was_agreed_upon() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel::<TlsInfo>();
    let tls = config(&pki).alpn(["h2", "http/1.1"]).client_ca(pki.file("ca.pem"), ClientAuth::Optional).unwrap();
    let server = server(&tls, move |conn| Ok(tell.send(conn.tls().ok_or("no TLS")?)?));
    let mut client = trust_and_show(&pki);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsClient::connect(server.addr(), client).read_all();
    let info = told.recv().unwrap();
    assert_eq!((info.version, info.resumed), ("TLSv1.3", false));
    assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
    assert_eq!((info.alpn.as_deref(), info.server_name.as_deref()), (Some(&b"http/1.1"[..]), Some("localhost")));
    assert_eq!(info.peer_certificates.len(), 1);
    TlsClient::connect(server.addr(), trust(&pki)).read_all();
    let info = told.recv().unwrap();
    assert_eq!((info.alpn, info.peer_certificates), (None, vec![]), "nothing was named or shown");
}

#[test]
fn a_connection_without_tls_says_so() {
    assert!(Connection::pair().unwrap().0.tls().is_none());
}

#[test]
fn a_client_must_show_a_certificate_where_that_is_asked() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki).client_ca(pki.file("ca.pem"), ClientAuth::Required).unwrap();
    let server = server(&tls, lengths);
    let mut known = TlsClient::connect(server.addr(), trust_and_show(&pki));
    known.say("hello\n");
    known.expect("5\n");
    // In TLS 1.3 the client's part of the handshake ends before the server has seen its certificate.
    let refused = TlsClient::connect_with(server.addr(), &Arc::new(trust(&pki))).and_then(|mut c| c.read(&mut [0; 9]));
    assert!(refused.unwrap_err().to_string().contains("CertificateRequired"));
}

/// The ends of a stream, for a handler that reads a line at a time.
#[test]
fn an_end_without_close_notify_counts_between_requests_and_fails_within() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel();
    let server = server(&config(&pki), move |conn| {
        let done = lengths(conn);
        tell.send(done.as_ref().err().map(ToString::to_string))?;
        done
    });
    type End = fn(&mut TlsClient);
    let ends: [(&str, End, bool); 5] = [
        ("nothing was said", TlsClient::cut, true),
        (
            "after an answer",
            |client| {
                client.say("hello\n");
                client.expect("5\n");
                client.cut()
            },
            true,
        ),
        (
            "after an answer, in order",
            |client| {
                client.say("hello\n");
                client.expect("5\n");
                client.close_notify()
            },
            true,
        ),
        (
            "within a line",
            |client| {
                client.say("DELETE /tmp/x");
                client.cut()
            },
            false,
        ),
        (
            "within a record",
            |client| {
                let record = client.sealed("hello\n");
                client.tcp.write_all(&record[..9]).unwrap();
                client.cut()
            },
            true,
        ),
    ];
    for (when, end, is_served) in ends {
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        end(&mut client);
        let error = told.recv().unwrap();
        assert_eq!(error.is_none(), is_served, "{when}: {error:?}");
    }
    let report = server.stop();
    assert_eq!((report.served, report.disconnected, report.failed), (4, 1, 0), "{report}");
}

#[test]
fn the_peer_s_half_may_end_before_ours() {
    let Some(pki) = Pki::make() else { return };
    let server = server(&config(&pki), |conn| {
        let mut all = String::new();
        conn.read_to_string(&mut all)?;
        conn.send_line(all.to_uppercase())
    });
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    client.say("to be ");
    client.say("continued");
    client.close_notify();
    assert_eq!(client.read_all(), "TO BE CONTINUED\n");
}

#[test]
fn a_record_that_trickles_is_cut_by_the_limits() {
    let Some(pki) = Pki::make() else { return };
    for (limit, requests) in [(Limit::Idle, true), (Limit::Read, false)] {
        let (tell, told) = mpsc::channel();
        let builder = ServerBuilder::new().tls(config(&pki)).idle_timeout(ms(300)).read_timeout(ms(300));
        let read = handler(move |conn| {
            if !requests {
                conn.fill_buf()?; // the beginning of a request
            }
            let failed = if requests { conn.next_request().map(drop) } else { conn.next_line().map(drop) };
            tell.send(failed.err().and_then(|e| Limit::of(&e)))?;
            Ok(())
        });
        let server = serve(builder.bind("127.0.0.1:0", read).unwrap());
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        if !requests {
            client.say("beginning, ");
        }
        let record = client.sealed("x".repeat(2000));
        let mut came = None;
        for byte in record {
            let _ = client.tcp.write_all(&[byte]);
            came = told.recv_timeout(ms(5)).ok();
            if came.is_some() {
                break;
            }
        }
        assert_eq!(came, Some(Some(limit)), "no whole record, so no byte of the request has come");
    }
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_cut_by_the_request_limit() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel();
    let builder = ServerBuilder::new().tls(config(&pki)).request_timeout(ms(300));
    let big = handler(move |conn| {
        conn.next_request()?;
        let sent = conn.write_all(&vec![b'x'; 16 << 20]);
        Ok(tell.send(sent.err().and_then(|e| Limit::of(&e)))?)
    });
    let server = serve(builder.bind("127.0.0.1:0", big).unwrap());
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    client.say("go");
    let (by, mut came) = (std::time::Instant::now() + LONG, None);
    while came.is_none() {
        assert!(std::time::Instant::now() < by, "it is not cut");
        let _ = client.tcp.read(&mut [0; 1000]);
        came = told.recv_timeout(ms(2)).ok();
    }
    assert_eq!(came, Some(Some(Limit::Request)));
}

#[test]
fn frames_and_writers_work() {
    let Some(pki) = Pki::make() else { return };
    let server = server(&config(&pki), |conn| {
        let writer = conn.writer()?;
        let mut strings = Netstrings::new();
        while conn.next_request()? {
            let Some(frame) = conn.read_frame(&mut strings)?.map(<[u8]>::to_vec) else { break };
            let writer = writer.clone();
            thread::spawn(move || writer.send(frame)).join().expect("it does not panic")?;
        }
        Ok(())
    });
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    let record = client.sealed("5:hello,5:wor");
    client.tcp.write_all(&record).unwrap();
    client.expect("hello");
    client.say("ld,");
    client.expect("world");
}

#[test]
fn start_tls_encrypts_from_there_on() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let builder = ServerBuilder::new();
    let serves = handler(move |conn: &mut Connection| {
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                Some("STARTTLS") => {
                    conn.send_line("220 go ahead")?;
                    match conn.start_tls(&tls) {
                        Err(e) if e.kind() == ErrorKind::InvalidData => return conn.send_line(format!("554 {e}")),
                        begun => begun?,
                    }
                }
                Some(_) => conn.send_line(if conn.tls().is_some() { "secret" } else { "open" })?,
                None => break,
            }
        }
        Ok(())
    });
    let server = serve(builder.bind("127.0.0.1:0", serves).unwrap());
    let mut plain = connect(server.addr());
    plain.write_all(b"how?\nSTARTTLS\n").unwrap();
    crate::kit::expect(&mut plain, "open\n220 go ahead\n");
    let mut client = TlsClient::over(plain, &Arc::new(trust(&pki))).unwrap();
    client.say("how?\nSTARTTLS\n");
    client.expect("secret\n220 go ahead\n"); // and its second start is an error of the handler

    let mut attacker = connect(server.addr());
    attacker.write_all(b"STARTTLS\nRCPT TO:<mallory>\n").unwrap();
    let answer = crate::kit::read_all(&mut attacker);
    assert!(answer.starts_with("220 go ahead\n554 input came before the handshake"), "{answer}");
}

#[test]
fn injected_input_is_the_peers_fault() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let serves = handler(move |conn: &mut Connection| {
        conn.next_line()?;
        Ok(conn.start_tls(&tls)?)
    });
    let server = serve(ServerBuilder::new().bind("127.0.0.1:0", serves).unwrap());
    let mut attacker = connect(server.addr());
    attacker.write_all(b"STARTTLS\nRCPT TO:<mallory>\n").unwrap();
    assert_eq!(crate::kit::read_all(&mut attacker), "");
    let report = server.stop();
    assert_eq!((report.failed, report.peer_faults), (1, 1));
}

#[test]
fn a_renewed_certificate_is_served_after_a_reload_and_a_bad_one_never() {
    let Some(pki) = Pki::make() else { return };
    pki.sign("renewed");
    let tls = config(&pki);
    let server = server(&tls, lengths);
    let config = Arc::new(trust(&pki));
    let shown = || {
        let mut client = TlsClient::connect_with(server.addr(), &config).unwrap();
        client.say("hello\n");
        client.expect("5\n");
        client.tls.peer_certificates().unwrap()[0].to_vec()
    };
    let (old, copy) = (shown(), |from: &str, to: &str| std::fs::copy(pki.file(from), pki.file(to)).unwrap());
    copy("renewed.pem", "server.pem"); // the key is still the old one
    let mismatch = tls.reload().unwrap_err().to_string();
    assert!(mismatch.contains("server.key") && mismatch.contains("does not belong"), "{mismatch}");
    assert_eq!(shown(), old);
    copy("renewed.key", "server.key");
    tls.reload().unwrap();
    // The session is resumed, so the certificate of the old handshake is shown until the client forgets it.
    let fresh = TlsClient::connect(server.addr(), trust(&pki));
    assert_ne!(fresh.tls.peer_certificates().unwrap()[0].to_vec(), old);
    std::fs::write(pki.file("server.pem"), "-----BEGIN CERTIFICATE-----\ngarbage").unwrap();
    assert!(tls.reload().is_err());
    assert_ne!(TlsClient::connect(server.addr(), trust(&pki)).tls.peer_certificates().unwrap()[0].to_vec(), old);
}

/// Certificates change while clients shake hands, and files are broken in between.
#[test]
fn certificates_are_swapped_under_load_without_an_error() {
    let Some(pki) = Pki::make() else { return };
    pki.sign("renewed");
    let copy = |from: &str, to: &str| std::fs::copy(pki.file(from), pki.file(to)).unwrap();
    for kind in ["pem", "key"] {
        copy(&format!("server.{kind}"), &format!("old.{kind}"));
    }
    let tls = config(&pki);
    let server = server(&tls, lengths);
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let mut client = TlsClient::connect(server.addr(), trust(&pki));
                    client.say("hello\n");
                    client.expect("5\n");
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for name in ["renewed", "old"].into_iter().cycle().take(10) {
            let before = served.load(SeqCst);
            until("clients are served", || served.load(SeqCst) > before + 3);
            std::fs::write(pki.file("server.pem"), "").unwrap();
            assert!(tls.reload().is_err());
            for kind in ["pem", "key"] {
                copy(&format!("{name}.{kind}"), &format!("server.{kind}"));
            }
            tls.reload().unwrap();
        }
        stop.store(true, SeqCst);
    });
    let report = server.stop();
    assert_eq!((report.served, report.failed), (served.load(SeqCst), 0));
}

#[test]
fn sessions_are_resumed_also_after_a_reload_but_not_by_a_client_whose_authority_is_gone() {
    let Some(pki) = Pki::make() else { return };
    pki.openssl(
        &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"]
            .iter()
            .chain(&["-subj", "/CN=Other", "-keyout", "other.key", "-out", "other.pem"])
            .copied()
            .collect::<Vec<_>>(),
    );
    std::fs::copy(pki.file("ca.pem"), pki.file("trusted.pem")).unwrap();
    let tls = config(&pki).client_ca(pki.file("trusted.pem"), ClientAuth::Required).unwrap();
    let server = server(&tls, |conn| conn.send_line(format!("{:?}", conn.tls().map(|tls| tls.resumed))));
    let client = Arc::new(trust_and_show(&pki));
    let ask = || {
        TlsClient::connect_with(server.addr(), &client).map(|mut client| {
            let mut text = String::new();
            client.read_to_string(&mut text).map(|_| text)
        })
    };
    assert_eq!(ask().unwrap().unwrap(), "Some(false)\n");
    assert_eq!(ask().unwrap().unwrap(), "Some(true)\n");
    tls.reload().unwrap();
    assert_eq!(ask().unwrap().unwrap(), "Some(true)\n");
    std::fs::copy(pki.file("other.pem"), pki.file("trusted.pem")).unwrap();
    tls.reload().unwrap();
    assert!(ask().and_then(|read| read).is_err(), "its ticket says that it was verified, by an authority that is gone");
}

#[test]
fn a_stop_ends_idle_connections_in_order_and_handshakes_at_once() {
    let Some(pki) = Pki::make() else { return };
    let server = server(&config(&pki), lengths);
    let mut idle = TlsClient::connect(server.addr(), trust(&pki));
    idle.say("hello\n");
    idle.expect("5\n");
    let _mute = connect(server.addr());
    until("both are accepted", || server.handle.stats().active == 2);
    server.handle.shutdown();
    assert_eq!(idle.read_all(), "", "close_notify");
    assert_eq!(server.join().forced, 0);
}

#[test]
fn bad_files_are_named_with_what_to_do() {
    let Some(pki) = Pki::make() else { return };
    let write = |name: &str, text: &str| std::fs::write(pki.file(name), text).unwrap();
    write("empty.pem", " \n");
    write("text.pem", "hello");
    write("damaged.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    pki.openssl(&["x509", "-in", "server.pem", "-outform", "der", "-out", "server.der"]);
    pki.openssl(&["pkey", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "encrypted.key"]);
    pki.openssl(&["ec", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "encrypted-old.key"]);
    pki.openssl(&["req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "server.csr"]);
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "-1"];
    pki.openssl(&[&sign[..], &["-out", "expired.pem"]].concat());
    let cases = [
        ("none.pem", "server.key", "none.pem", "check its path"),
        ("empty.pem", "server.key", "empty.pem", "is empty"),
        ("text.pem", "server.key", "text.pem", "not PEM"),
        ("server.der", "server.key", "server.der", "-inform der"),
        ("damaged.pem", "server.key", "damaged.pem", "cannot be used"),
        ("cut.pem", "server.key", "cut.pem", "the file is cut off"),
        ("/dev/zero", "server.key", "/dev/zero", "more than 4 MiB"),
        ("server.pem", "/dev/zero", "/dev/zero", "more than 4 MiB"),
        ("server.key", "server.key", "server.key", "no certificate"),
        ("expired.pem", "server.key", "expired.pem", "has expired on 20"),
        ("server.pem", "none.key", "none.key", "check its path"),
        ("server.pem", "server.pem", "server.pem", "no private key"),
        ("server.pem", "encrypted.key", "encrypted.key", "openssl pkey -in"),
        ("server.pem", "encrypted-old.key", "encrypted-old.key", "openssl pkey -in"),
        ("server.pem", "client.key", "client.key", "does not belong to the certificate"),
    ];
    for (certificate, key, named, advice) in cases {
        let error = TlsConfig::from_pem(pki.file(certificate), pki.file(key)).unwrap_err();
        assert!(
            matches!(&error, Error::TlsFile { path, .. } if *path == std::path::Path::new(&pki.file(named))),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(named) && text.contains(advice), "{certificate} and {key}: {text}");
    }
    let no_authority = config(&pki).client_ca(pki.file("server.key"), ClientAuth::Required).unwrap_err();
    assert!(no_authority.to_string().contains("no certificate"), "{no_authority}");
}
