//! Answers for the names of a hosts file, over UDP and TCP: `dig @127.0.0.1 -p 1234 localhost`. Messages are read and
//! written by `simple-dns`. One function makes the answers. With `--strategy threading` it runs in handlers: one
//! thread for UDP, and a thread for each TCP connection. With `event-loop` it runs in the protocols of one reactor.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{AnyError, Args};
use simple_dns::rdata::{RData, OPT};
use simple_dns::{Packet, PacketFlag, ResourceRecord, CLASS, OPCODE, QCLASS, RCODE};
use socketserver::event_loop::{strings, DatagramProtocol, DatagramTransport, FramedTransport, StringReceiver};
use socketserver::framing::{Encoder, LengthPrefixed};
use socketserver::{factory, Addr, Reactor, Sequential, ServerBuilder, Threading};
use socketserver::{Connection, Datagram, DatagramRequestHandler, HandlerResult, StreamRequestHandler};

/// The addresses of each name; names are in lower case.
#[derive(Clone)]
struct Hosts(Arc<BTreeMap<String, Vec<IpAddr>>>);

/// Longest answer by UDP, in bytes: what no network cuts into pieces (DNS flag day 2020). A client without EDNS takes
/// 512 (RFC 1035). An answer is at most 25 times as long as its question, for attackers that forge its sender.
const UDP: u16 = 1232;

/// How long others may keep an answer, in seconds.
const TTL: u32 = 60;

/// How long a client of TCP may be silent, and how long it may take for a question (RFC 7766 wants seconds).
const IDLE: Duration = Duration::from_secs(10);

impl Hosts {
    /// Reads the format of hosts(5): an address and its names on each line.
    fn read(text: &str) -> Result<Self, AnyError> {
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(address) = words.next() else { continue };
            let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
            words.for_each(|name| hosts.entry(name.to_ascii_lowercase()).or_default().push(address));
        }
        Ok(Self(Arc::new(hosts)))
    }

    /// The answer to a question; none to what is no question.
    fn answer(&self, question: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let &[id, id2, flags, _, q, _, a, _, n, _, x, _, ..] = question else { return None };
        if flags & 0x80 != 0 {
            return None; // an answer: two servers would go on answering each other
        }
        // The parser makes room for as many parts as a header says, so thousands are refused before.
        let query = if [q, a, n, x] == [0; 4] { Packet::parse(question).ok() } else { None };
        let Some(query) = query else {
            let mut answer = Packet::new_reply(u16::from_be_bytes([id, id2]));
            *answer.rcode_mut() = RCODE::FormatError;
            return answer.build_bytes_vec().ok();
        };
        let mut answer = Packet::new_reply(query.id());
        *answer.opcode_mut() = query.opcode();
        answer.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        if query.has_flags(PacketFlag::RECURSION_DESIRED) {
            answer.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        *answer.opt_mut() = query.opt().map(|_| OPT { opt_codes: Vec::new(), udp_packet_size: UDP, version: 0 });
        let found = self.records(&query);
        *answer.rcode_mut() = found.as_ref().err().copied().unwrap_or(RCODE::NoError);
        answer.answers = found.unwrap_or_default();
        answer.questions = query.questions.clone();
        let taken = query.opt().map_or(512, |opt| opt.udp_packet_size.clamp(512, UDP));
        let most = if is_udp { taken } else { u16::MAX };
        let bytes = answer.build_bytes_vec_compressed().ok()?;
        if bytes.len() <= usize::from(most) {
            return Some(bytes);
        }
        answer.answers.clear();
        answer.set_flags(PacketFlag::TRUNCATION); // ask again by TCP
        answer.build_bytes_vec_compressed().ok()
    }

    fn records<'a>(&self, query: &Packet<'a>) -> Result<Vec<ResourceRecord<'a>>, RCODE> {
        let [question] = query.questions.as_slice() else { return Err(RCODE::FormatError) };
        if query.opcode() != OPCODE::StandardQuery {
            return Err(RCODE::NotImplemented);
        }
        if question.qclass != QCLASS::CLASS(CLASS::IN) {
            return Err(RCODE::Refused);
        }
        let name = question.qname.to_string().to_ascii_lowercase();
        let addresses = self.0.get(&name).ok_or(RCODE::NameError)?;
        let records = addresses.iter().map(|address| {
            let data = match *address {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data)
        });
        Ok(records.filter(|record| record.match_qtype(question.qtype)).collect())
    }
}

impl DatagramRequestHandler for Hosts {
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        if let Some(answer) = self.answer(datagram.data(), true) {
            datagram.write_all(&answer)?;
        }
        Ok(())
    }
}

impl StreamRequestHandler for Hosts {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        let mut frames = LengthPrefixed::u16();
        while conn.next_request()? {
            let Some(question) = conn.read_frame(&mut frames)? else { break };
            let Some(answer) = self.answer(question, false) else { break };
            let mut frame = Vec::new();
            frames.encode(&answer, &mut frame)?;
            conn.write_all(&frame)?;
        }
        Ok(())
    }
}

impl DatagramProtocol for Hosts {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        if let Some(answer) = self.answer(data, true) {
            t.send_to(from, &answer)?;
        }
        Ok(())
    }
}

impl StringReceiver for Hosts {
    fn connection_made(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        t.set_idle_timeout(Some(IDLE));
        t.set_request_timeout(Some(IDLE));
        Ok(())
    }

    fn string_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, question: &[u8]) -> HandlerResult {
        match self.answer(question, false) {
            Some(answer) => t.send_string(answer)?,
            None => t.close(),
        }
        Ok(())
    }
}

/// Two servers, each with the thread that waits for it.
fn on_threads(args: &Args, hosts: Hosts) -> Result<(), AnyError> {
    let threading = ServerBuilder::new().strategy(Threading::new()).idle_timeout(IDLE).request_timeout(IDLE);
    let mut tcp = threading.handle_signals().bind(&args.addr, hosts.clone())?;
    let mut udp = ServerBuilder::new().strategy(Sequential).bind_udp(tcp.local_addr().to_string(), hosts)?;
    let handle = udp.handle();
    common::listening(tcp.local_addr());
    let of_udp = thread::spawn(move || udp.serve_forever());
    let of_tcp = tcp.serve_forever();
    handle.shutdown();
    let of_udp = of_udp.join().map_err(|_| "the thread of UDP has panicked")?;
    common::report(&of_udp?);
    common::report(&of_tcp?);
    Ok(())
}

/// Both ports of one loop.
fn in_a_loop(args: &Args, hosts: Hosts) -> Result<(), AnyError> {
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    let of_tcp = hosts.clone();
    let tcp = reactor.listen_tcp(&args.addr, factory(move |_| strings(LengthPrefixed::u16(), of_tcp.clone())))?;
    reactor.listen_udp(tcp.local_addr().to_string(), hosts)?;
    common::listening(tcp.local_addr());
    common::report(&reactor.run()?);
    Ok(())
}

fn main() -> Result<(), AnyError> {
    let options = [
        ("strategy S", "threading or event-loop [threading]"),
        ("hosts FILE", "addresses and their names, as in hosts(5) [/etc/hosts]"),
    ];
    let args = common::args("Answers for the names of a hosts file, by UDP and TCP.", &[&options]);
    let file = args.choice("hosts", "/etc/hosts");
    let hosts = Hosts::read(&fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?)?;
    match args.choice("strategy", "threading") {
        "threading" => on_threads(&args, hosts),
        "event-loop" => in_a_loop(&args, hosts),
        other => common::fail(format!("--strategy {other}: it is threading or event-loop")),
    }
}
