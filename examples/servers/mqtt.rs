//! A broker of MQTT 3.1.1, for `mosquitto_sub -p 1234 -t 'home/#'` and `mosquitto_pub -p 1234 -t home/lamp -m on`. It is an
//! event loop, where each filter is a group. Packets are read and written by `mqtt-proto`. Subscribers get messages at most
//! once (quality of service 0), and miss what they do not read in time. No passwords, no sessions without a connection.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use common::tls::TLS;
use mqtt_proto::v3::{Connack, Connect, ConnectReturnCode, Header, LastWill, Packet, Publish, Suback, Subscribe};
use mqtt_proto::{total_len, v3::SubscribeReturnCode, QosPid, TopicName};
use socketserver::{event_loop::ConnId, framing::FrameBuffer, HandlerResult, Lost, PeerFault, Transport};
use socketserver::{factory, Context, EventLoop, Group, Protocol, ServerBuilder};

/// Longest packet in bytes, most filters of a client, and most retained messages: they fit into a client's queue.
const LONGEST: usize = 64 << 10;
const MOST_FILTERS: usize = 100;
const MOST_RETAINED: usize = 100;

#[derive(Default)]
struct Broker {
    clients: RefCell<HashMap<String, ConnId>>,
    filters: RefCell<BTreeMap<String, Group>>,
    retained: RefCell<BTreeMap<TopicName, Publish>>,
}

impl Broker {
    fn publish(&self, cx: &mut Context<'_>, mut publish: Publish) -> HandlerResult {
        (publish.qos_pid, publish.dup) = (QosPid::Level0, false);
        if publish.retain {
            let mut retained = self.retained.borrow_mut();
            retained.remove(&publish.topic_name);
            if !publish.payload.is_empty() && retained.len() < MOST_RETAINED {
                retained.insert(publish.topic_name.clone(), publish.clone());
            }
            publish.retain = false; // it is new to the subscribers
        }
        let topic = publish.topic_name.clone();
        let bytes = Packet::from(publish).encode()?;
        for (_, group) in self.filters.borrow().iter().filter(|(filter, _)| matches(filter, &topic)) {
            cx.broadcast(*group, bytes.as_ref(), None);
        }
        Ok(())
    }

    /// Forgets a filter that nobody has any more.
    fn forget(&self, cx: &Context<'_>, filter: &str) {
        let mut filters = self.filters.borrow_mut();
        if filters.get(filter).is_some_and(|group| cx.members(*group) == 0) {
            filters.remove(filter);
        }
    }
}

/// Whether a topic is one of those that a filter stands for (section 4.7): `+` is any level, `#` any levels at the end.
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            (part, Some(level)) if part == "+" || part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

struct Client {
    id: ConnId,
    broker: Rc<Broker>,
    input: FrameBuffer,
    is_connected: bool,
    will: Option<LastWill>,
    filters: BTreeSet<String>,
}

impl Protocol for Client {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.set_idle_timeout(Some(Duration::from_secs(10))); // until it says CONNECT
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.input.push(data)?;
        while !t.is_closing() {
            let len = match Header::decode(self.input.unread()) {
                Ok(header) => total_len(header.remaining_len as usize)?,
                Err(e) if e.is_eof() => break,
                Err(e) => return Err(PeerFault::new(e).into()),
            };
            if len > LONGEST {
                return Err(PeerFault::new(format!("a packet of {len} bytes")).into());
            }
            let Some(bytes) = self.input.unread().get(..len) else { break };
            let packet = Packet::decode(bytes).map_err(PeerFault::new)?;
            let packet = packet.ok_or_else(|| PeerFault::new("a packet ends before its fields"))?;
            self.input.consume(len);
            self.received(t, packet)?;
        }
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _: &Lost) {
        self.filters.iter().for_each(|filter| self.broker.forget(cx, filter));
        if let Some(will) = self.will.take() {
            let publish = Publish::new(QosPid::Level0, will.topic_name, will.message);
            let _ = self.broker.publish(cx, Publish { retain: will.retain, ..publish });
        }
        self.broker.clients.borrow_mut().retain(|_, id| *id != self.id);
    }
}

impl Client {
    fn received(&mut self, t: &mut Transport<'_>, packet: Packet) -> HandlerResult {
        let reply = match packet {
            Packet::Connect(connect) if !self.is_connected => self.connect(t, connect),
            _ if !self.is_connected => return Err(PeerFault::new("CONNECT comes first").into()),
            Packet::Publish(publish) => {
                let pid = publish.qos_pid;
                self.broker.publish(t, publish)?;
                match pid {
                    QosPid::Level0 => return Ok(()),
                    QosPid::Level1(pid) => Packet::Puback(pid),
                    QosPid::Level2(pid) => Packet::Pubrec(pid),
                }
            }
            Packet::Pubrel(pid) => Packet::Pubcomp(pid),
            Packet::Subscribe(subscribe) => return self.subscribe(t, subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                for filter in unsubscribe.topics.iter().filter(|filter| self.filters.remove(&***filter)) {
                    if let Some(group) = self.broker.filters.borrow().get(&**filter) {
                        t.leave(*group);
                    }
                    self.broker.forget(t, filter);
                }
                Packet::Unsuback(unsubscribe.pid)
            }
            Packet::Pingreq => Packet::Pingresp,
            Packet::Disconnect => {
                self.will = None;
                t.close();
                return Ok(());
            }
            other => return Err(PeerFault::new(format!("a client does not send {:?}", other.get_type())).into()),
        };
        Ok(t.write(reply.encode()?.as_ref())?)
    }

    /// Closes another client of the same name (section 3.1.4).
    fn connect(&mut self, t: &mut Transport<'_>, connect: Connect) -> Packet {
        (self.is_connected, self.will) = (true, connect.last_will);
        let silence = u64::from(connect.keep_alive) * 3 / 2;
        t.set_idle_timeout((silence > 0).then(|| Duration::from_secs(silence)));
        if !connect.client_id.is_empty() {
            let other = self.broker.clients.borrow_mut().insert(connect.client_id.to_string(), self.id);
            other.map(|other| t.abort_connection(other));
        }
        Connack::new(false, ConnectReturnCode::Accepted).into()
    }

    fn subscribe(&mut self, t: &mut Transport<'_>, subscribe: Subscribe) -> HandlerResult {
        for (filter, _) in &subscribe.topics {
            t.join(*self.broker.filters.borrow_mut().entry(filter.to_string()).or_insert_with(Group::lossy));
            self.filters.insert(filter.to_string());
        }
        if self.filters.len() > MOST_FILTERS {
            return Err(PeerFault::new(format!("more than {MOST_FILTERS} filters")).into());
        }
        let codes = vec![SubscribeReturnCode::MaxLevel0; subscribe.topics.len()];
        t.write(Packet::from(Suback::new(subscribe.pid, codes)).encode()?.as_ref())?;
        for (topic, publish) in self.broker.retained.borrow().iter() {
            if subscribe.topics.iter().any(|(filter, _)| matches(filter, topic)) {
                t.write(Packet::from(publish.clone()).encode()?.as_ref())?;
            }
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("A broker of MQTT 3.1.1.", &[common::LIMITS, TLS]);
    let broker = Rc::new(Broker::default());
    let client = factory(move |peer| Client {
        id: peer.id(),
        broker: broker.clone(),
        input: FrameBuffer::new(2 * LONGEST),
        is_connected: false,
        will: None,
        filters: BTreeSet::new(),
    });
    let builder = args.tls(args.limits(ServerBuilder::new().handle_signals()));
    let mut server = builder.strategy(EventLoop::new()).bind(&args.addr, client)?;
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
