//! TLS as clients of other makes see it: OpenSSL's, curl, Python's `ssl`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::pki::Pki;
use crate::support::{output, tool, Server, AT_ONCE};

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
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
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
