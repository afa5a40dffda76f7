//! `smtplib` and `poplib` of Python, `swaks`, and clients that hide one message in another.

use std::path::PathBuf;

use crate::support::pki::Pki;
use crate::support::{until, Client, Server, AT_ONCE};
use crate::{client, start};

/// A server with an empty folder.
struct Mail {
    server: Server,
    folder: PathBuf,
}

impl Mail {
    fn start(test: &str, options: &[String]) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mail.{test}"));
        let _ = std::fs::remove_dir_all(&folder);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = start!("mail", "--folder", folder.to_str().unwrap(), "--password", "secret"; &options);
        until("the second address", || server.stdout().len() == 2);
        Self { server, folder }
    }

    fn pop3_port(&self) -> String {
        self.server.stdout()[1].rsplit(':').next().unwrap().to_owned()
    }

    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        names.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// A client that has begun a message.
    fn sender(&self) -> Client {
        let mut client = self.server.connect();
        client.send("HELO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
        for reply in ["220 ", "250 ", "250 ", "250 ", "354 "] {
            assert!(client.line().starts_with(reply), "{reply}");
        }
        client
    }
}

#[test]
fn python_sends_and_reads_by_tls() {
    let Some(pki) = Pki::make() else { return };
    for strategy in ["threading", "forking"] {
        let options = [pki.options(), vec!["--strategy".to_owned(), strategy.to_owned()]].concat();
        let mut mail = Mail::start(strategy, &options);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/mail.py");
        let args = [script, &mail.server.port().to_string(), &mail.pop3_port(), &pki.file("ca.pem")];
        let Some(said) = client("python3", &args) else { return };
        assert_eq!(said, "all is well\n");
        assert_eq!(mail.files().len(), 2);
        mail.server.term().well_within(AT_ONCE);
    }
}

#[test]
fn swaks_sends() {
    let Some(pki) = Pki::make() else { return };
    let mail = Mail::start("swaks", &pki.options());
    for tls in ["--tls", "--pipeline"] {
        let args = ["--server", mail.server.addr(), "--to", "b@example.org", "--from", "a@example.org", tls];
        let Some(said) = client("swaks", &[&args[..], &["--header", "Subject: .dots", "--body", ".\n.."]].concat())
        else {
            return;
        };
        assert!(said.contains("250 2.0.0 kept"), "{said}");
        assert_eq!(said.contains("TLS started"), tls == "--tls", "{said}");
    }
    let files = mail.files();
    assert_eq!(files.len(), 2);
    assert!(
        files.iter().all(|file| file.contains("\r\nSubject: .dots\r\n") && file.contains("\r\n\r\n.\r\n..\r\n")),
        "{files:?}"
    );
}

/// What other servers have taken for the end of a message, or for that of a line (CVE-2023-51764 and its like).
#[test]
fn a_message_within_a_message_is_refused() {
    let mail = Mail::start("smuggling", &[]);
    for end in ["\n.\r\n", "\r\n.\n", "\n.\n", "\r.\r\n", "\r\n.\r", "\r.\r", "\r\n\0.\n"] {
        let mut client = mail.sender();
        client.send(format!(
            "first{end}MAIL FROM:<admin@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nsecond\r\n.\r\n"
        ));
        assert_eq!(client.line(), "521 5.5.2 lines end with CR LF", "{end:?}");
        assert!(client.until_closed().is_empty(), "{end:?}");
    }
    assert!(mail.files().is_empty());
    let mut client = mail.server.connect();
    client.send("EHLO x\n");
    assert!(client.line().starts_with("220 "));
    assert_eq!(client.line(), "521 5.5.2 lines end with CR LF");
}

#[test]
fn a_message_that_is_cut_off_is_not_kept() {
    let mail = Mail::start("cut", &[]);
    let mut client = mail.sender();
    client.send("half of it\r\n");
    client.half_close();
    assert!(client.until_closed().is_empty());
    assert!(mail.files().is_empty());
    let mut client = mail.sender();
    client.send(".\r\nQUIT\r\n"); // an empty one is a message
    assert_eq!(client.rest(), "250 2.0.0 kept\r\n221 2.0.0 bye\r\n");
    assert_eq!(mail.files(), ["Return-Path: <a@example.org>\r\nDelivered-To: b@example.org\r\n"]);
}

/// A man in the middle says it before the client's TLS begins (CVE-2011-0411).
#[test]
fn what_is_said_before_tls_does_not_count_in_it() {
    let Some(pki) = Pki::make() else { return };
    let mail = Mail::start("injected", &pki.options());
    let mut client = mail.server.connect();
    client.send("STARTTLS\r\nMAIL FROM:<a@example.org>\r\n");
    assert_eq!(client.rest(), "220 localhost ESMTP\r\n220 2.0.0 go ahead\r\n");
}

#[test]
fn commands_in_the_wrong_order_are_refused() {
    let mail = Mail::start("order", &[]);
    let mut client = mail.server.connect();
    assert!(client.line().starts_with("220 "));
    let mut ask = |line: &str| {
        client.send(format!("{line}\r\n"));
        client.line()
    };
    for (command, reply) in [
        ("RCPT TO:<b@example.org>", "503"),
        ("DATA", "503"),
        ("MAIL FROM:<a@example.org> SIZE=99999999", "552"),
        ("MAIL FROM:<a@example.org>", "250"),
        ("MAIL FROM:<a@example.org>", "503"),
        ("DATA", "503"),
        ("STARTTLS", "502"),
        ("BDAT 3", "502"),
        ("", "502"),
        ("\0\u{ff}", "502"),
    ] {
        let said = ask(command);
        assert!(said.starts_with(reply), "{command}: {said}");
    }
    assert!((0..100).all(|n| ask(&format!("RCPT TO:<{n}@example.org>")).starts_with("250")));
    assert!(ask("RCPT TO:<b@example.org>").starts_with("452"));
    mail.server.signal("TERM");
    assert_eq!(client.rest(), "421 4.3.2 the server stops\r\n");
}
