//! Servers behind the proxies that people run: HAProxy and nginx, with the configuration of the guide.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::kit::{expect, has_ipv6, serve, Folder, Running};
use crate::support::pki::Pki;
use crate::support::{comes_true, output, procfs, queues, tool, until, Client, Server, Stats, AT_ONCE, LIMIT};
use socketserver::proxy::ProxyHeader;
use socketserver::{factory, handler, lines, EventLoop, HandlerResult, LineReceiver, ServerBuilder, Threading};

/// The configurations that users copy.
const GUIDE: &str = include_str!("../../src/guide/exposing.md");

/// How an example serves, by its options.
const WAYS: &[&str] = &[
    "--strategy sequential",
    "--strategy threading",
    "--strategy thread-pool",
    "--strategy forking",
    "--strategy preforking --workers 2",
    "--strategy event-loop",
    "--strategy event-loops --workers 2",
];

/// The block of the guide in this language.
fn of_guide(language: &str) -> String {
    let (_, rest) = GUIDE.split_once(&format!("```{language}\n")).expect("a block of it");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[track_caller]
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "no {old:?} in {text}");
    text.replace(old, new)
}

/// A running proxy, which listens on sockets of ours: nobody can take their ports. Dropped, it is killed.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    /// The socket that it has as its stdout.
    other: SocketAddr,
    _folder: Folder,
}

impl Proxy {
    /// Starts a program with this configuration, and sockets as its stdin and stdout.
    fn start(mut command: Command, flags: &[&str], config: &str, on: [TcpListener; 2]) -> Self {
        let folder = Folder::new();
        let file = folder.path("proxy.cfg");
        std::fs::write(&file, config).unwrap();
        let [addr, other] = [&on[0], &on[1]].map(|listener| listener.local_addr().unwrap());
        let [stdin, stdout] = on.map(OwnedFd::from);
        command.args(flags).arg(&file).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
        Self { child: command.spawn().unwrap(), addr, other, _folder: folder }
    }

    fn haproxy(config: &str, on: [TcpListener; 2]) -> Option<Self> {
        Some(Self::start(tool("haproxy")?, &["-db", "-f"], config, on))
    }

    /// Ends it in order, so that it waits for the processes that it has started. If that fails, kills all of them.
    fn kill(&mut self) {
        let pid = self.child.id();
        for (signal, to) in [("-TERM", pid.to_string()), ("-KILL", format!("-{pid}"))] {
            let _ = Command::new("kill").args([signal, "--", &to]).stderr(Stdio::null()).status();
            if comes_true(LIMIT, || !matches!(self.child.try_wait(), Ok(None))) {
                break;
            }
        }
    }

    /// Ends it, and returns what it has said.
    fn end(mut self) -> String {
        self.kill();
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().unwrap());
        String::from_utf8_lossy(&output(child, "the proxy").stderr).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn v4() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn v6_if_there_is_such() -> TcpListener {
    TcpListener::bind(if has_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }).unwrap()
}

/// What a client that comes through the proxy is told of its own address, and what that is.
#[track_caller]
fn assert_known(proxy: SocketAddr, what: &str) {
    let mut client = Client::connect(&proxy.to_string());
    let ours = client.local_addr().to_string();
    assert_eq!(client.ask("PEER"), ours, "{what}");
}

const DEFAULTS: &str = "
defaults
    mode tcp
    timeout connect 20s
    timeout check 20s
    timeout client 30s
    timeout server 30s
";

/// One after the other, plain and by TLS: two proxies in one, with a version each.
#[test]
fn haproxy_tells_every_strategy_its_clients() {
    let Some(pki) = Pki::make() else { return };
    for (way, tls) in WAYS.iter().flat_map(|way| [(way, false), (way, true)]) {
        let own = if tls { pki.options() } else { Vec::new() };
        let proxies = ["--proxy-from", "127.0.0.0/8,::1"];
        let args: Vec<&str> = way.split(' ').chain(proxies).chain(own.iter().map(String::as_str)).collect();
        let mut server = Server::start("torture_server", &args);
        let verify = format!("ssl verify required ca-file {} sni str(localhost)", pki.file("ca.pem"));
        // A check every 50 ms, until 10,000 were good; each may take 20 s.
        let to = format!(
            "server app {} check fastinter 50ms inter 20s fall 10000 {}",
            server.addr(),
            if tls { &verify } else { "" }
        );
        let config = format!(
            "{DEFAULTS}
listen of-version-1
    bind fd@0
    {to} send-proxy
listen of-version-2
    bind fd@1
    {to} send-proxy-v2 proxy-v2-options unique-id,crc32c,authority check-send-proxy
    unique-id-format %ci:%cp
"
        );
        let Some(proxy) = Proxy::haproxy(&config, [v4(), v6_if_there_is_such()]) else { return };
        for _ in 0..3 {
            assert_known(proxy.addr, way);
            assert_known(proxy.other, way);
        }
        // HAProxy looks every 50 ms whether the server is there, with both versions.
        until("health checks", || {
            Stats::parse(&Client::connect(&proxy.addr.to_string()).ask("STATS"))["accepted"] > 30
        });
        let said = proxy.end();
        assert!(!said.contains("DOWN") && !said.contains("ALERT"), "{way}, TLS {tls}: {said}");
        server.term().well_within(AT_ONCE);
        let loud = |line: &String| ["ERROR", "WARN", "refused 127"].iter().any(|word| line.contains(word));
        let log = server.stderr();
        assert!(!log.iter().any(loud), "{way}, TLS {tls}: {log:#?}");
    }
}

#[test]
fn the_configuration_of_haproxy_in_the_guide_works() {
    let server = Server::start("torture_server", &["--proxy-from", "127.0.0.1"]);
    let config = replaced(&of_guide("haproxy"), "bind :25", "bind fd@0");
    let Some(proxy) = Proxy::haproxy(&replaced(&config, "127.0.0.1:1234", server.addr()), [v4(), v4()]) else { return };
    assert_known(proxy.addr, "as the guide says");
}

#[test]
fn the_configuration_of_nginx_in_the_guide_works() {
    let Some(mut command) = tool("nginx") else { return };
    let server = Server::start("torture_server", &["--proxy-from", "127.0.0.1"]);
    let (listener, folder) = (v4(), Folder::new());
    let listen = format!("listen {};", listener.local_addr().unwrap());
    let config = replaced(&of_guide("nginx"), "listen 25;", &listen);
    let config = replaced(&config, "127.0.0.1:1234", server.addr());
    let pid = folder.path("nginx.pid");
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if std::path::Path::new(module).exists() { format!("load_module {module};") } else { String::new() };
    let own = format!("{load} daemon off; pid {}; error_log stderr warn; events {{}}\n", pid.display());
    command.env("NGINX", "0;"); // the descriptors of sockets that it inherits
    let prefix = folder.path("");
    let flags = ["-e", "stderr", "-p", prefix.to_str().unwrap(), "-c"];
    let proxy = Proxy::start(command, &flags, &(own + &config), [listener, v4()]);
    assert_known(proxy.addr, "as the guide says");
}

/// Tells the test about each header, and answers a line.
#[derive(Clone)]
struct Tells(mpsc::Sender<Option<ProxyHeader>>);

impl LineReceiver for Tells {
    fn line_received(
        &mut self,
        transport: &mut socketserver::event_loop::FramedTransport<'_>,
        _: &[u8],
    ) -> HandlerResult {
        let _ = self.0.send(transport.proxy_header().cloned());
        transport.send_line("heard")
    }
}

fn on_threads(tell: mpsc::Sender<Option<ProxyHeader>>) -> Running {
    let tell = std::sync::Mutex::new(tell);
    let hears = handler(move |conn| {
        while conn.next_line()?.is_some() {
            let _ = tell.lock().unwrap().send(conn.proxy_header().cloned());
            conn.send_line("heard")?;
        }
        Ok(())
    });
    let builder = ServerBuilder::new().strategy(Threading::new()).proxy_protocol(["127.0.0.1"]);
    serve(builder.bind_tcp("127.0.0.1:0", hears).unwrap())
}

fn in_a_loop(tell: mpsc::Sender<Option<ProxyHeader>>) -> Running {
    let hears = factory(move |_peer| lines(Tells(tell.clone())));
    let builder = ServerBuilder::new().strategy(EventLoop::new()).proxy_protocol(["127.0.0.1"]);
    serve(builder.bind_tcp("127.0.0.1:0", hears).unwrap())
}

/// HAProxy ends the client's TLS, and passes on what it has learned.
#[test]
fn haproxy_passes_on_what_it_knows_of_its_clients_tls() {
    let Some(pki) = Pki::make() else { return };
    let both = [pki.file("server.pem"), pki.file("server.key")].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(pki.file("both.pem"), both.concat()).unwrap();
    for start in [on_threads, in_a_loop] {
        let (tell, told) = mpsc::channel();
        let server = start(tell);
        let config = format!(
            "{DEFAULTS}
listen tls
    bind fd@0 ssl crt {} ca-file {} verify required alpn line/1
    server app {} send-proxy-v2-ssl-cn proxy-v2-options unique-id,crc32c,authority,ssl,cert-cn,ssl-cipher
    unique-id-format the-id-%rt
",
            pki.file("both.pem"),
            pki.file("ca.pem"),
            server.addr()
        );
        let Some(proxy) = Proxy::haproxy(&config, [v4(), v4()]) else { return };
        let mut command = tool("openssl").unwrap();
        command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &proxy.addr.to_string()]);
        command.args([
            "-CAfile",
            &pki.file("ca.pem"),
            "-cert",
            &pki.file("client.pem"),
            "-key",
            &pki.file("client.key"),
        ]);
        command.args(["-servername", "localhost", "-alpn", "line/1"]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(client.stdin.as_mut().unwrap(), b"hello\n").unwrap();
        expect(client.stdout.as_mut().unwrap(), "heard\n");
        drop(client.stdin.take());
        output(client, "openssl");
        let header = told.recv().unwrap().expect("a header");
        assert_eq!((header.version(), header.is_local()), (2, false));
        assert_eq!(header.destination(), Some(proxy.addr));
        assert!(header.proxy().is_some() && header.client() != header.proxy());
        assert!(header.unique_id().unwrap().starts_with(b"the-id-"));
        assert_eq!((header.authority(), header.alpn()), (Some("localhost"), Some(&b"line/1"[..])));
        let tls = header.tls().expect("what it knows");
        assert!(tls.is_used() && tls.has_certificate() && tls.is_verified());
        assert_eq!(tls.common_name(), Some("client"));
        assert!(tls.version().unwrap().starts_with("TLSv1.") && tls.cipher().is_some());
    }
}

/// A thousand connections that say nothing, in front of an honest one.
#[test]
fn a_thousand_mute_connections_hold_up_nobody() {
    for strategy in ["threading", "event-loop"] {
        let args = ["--strategy", strategy, "--proxy-from", "127.0.0.1", "--max-connections", "1010"];
        let mut server = Server::start("torture_server", &args);
        let crowd: Vec<_> = (0..1000).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
        let mut honest = server.connect();
        honest.send("PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n");
        assert_eq!(honest.ask("PEER"), "192.0.2.7:56324");
        until("all are taken", || Stats::parse(&honest.ask("STATS"))["accepted"] == 1001);
        server.term().well_within(AT_ONCE);
        server.until_logged("accepted 1001, served 1, refused 1000, drained 1, failed greetings 1000");
        drop(crowd);
    }
}

/// The beginning of a header, and the rest of it.
const HEADER: (&str, &str) = ("PROXY TCP4 192.0.2.7 127.0", ".0.1 56324 443\r\n");

fn begun(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(HEADER.0);
    let ours = client.local_addr().port();
    until("the server takes the beginning", || queues::unread(server.port(), ours) == Some(0));
    client
}

/// Its client must not notice, and has not sent its request yet.
#[test]
fn a_worker_that_is_replaced_waits_for_a_header_that_has_begun() {
    for inner in ["threading", "thread-pool", "event-loop", "event-loops"] {
        let args = ["--strategy", "preforking", "--workers", "2", "--inner", inner, "--proxy-from", "127.0.0.1"];
        let mut server = Server::start("torture_server", &args);
        let ready = |server: &Server| server.stderr().iter().filter(|line| line.ends_with("is ready")).count();
        until("both workers", || ready(&server) == 2);
        let mut slow = begun(&server);
        server.signal("HUP");
        until("two others", || ready(&server) == 4);
        slow.send(HEADER.1);
        assert_eq!(slow.ask("PEER"), "192.0.2.7:56324", "{inner}");
        drop(slow);
        // At a stop of the whole server nothing is waited for.
        let mut cut = begun(&server);
        server.term().well_within(AT_ONCE);
        assert!(cut.until_closed().is_empty(), "{inner}");
    }
}

#[test]
fn out_of_descriptors_a_server_behind_a_proxy_rests_and_comes_back() {
    for strategy in ["threading", "event-loop"] {
        let Some(mut prlimit) = tool("prlimit") else { return };
        let args = ["--strategy", strategy, "--max-connections", "500", "--proxy-from", "127.0.0.1"];
        let mut server = Server::start("torture_server", &args);
        let mut first = begun(&server);
        let limit = format!("--nofile={0}:{0}", procfs::fds(server.pid()) + 20);
        assert!(prlimit.args(["--pid", &server.pid().to_string(), &limit]).status().unwrap().success());
        let crowd: Vec<_> = (0..150).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
        server.until_logged("Too many open files (os error 24)");
        first.send(HEADER.1);
        assert_eq!(first.ask("PEER"), "192.0.2.7:56324", "{strategy}: what was accepted is served");
        let mut waiting = server.connect();
        waiting.send(HEADER.0);
        waiting.send(HEADER.1);
        drop(crowd);
        assert_eq!(waiting.ask("PEER"), "192.0.2.7:56324", "{strategy}");
        drop((first, waiting));
        server.term().well_within(AT_ONCE);
        server.until_logged("served 2, disconnected ");
    }
}
