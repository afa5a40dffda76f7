//! Rooms for IRC clients: `irssi -c 127.0.0.1 -p 1234 -n ada`, then `/join #rust`. On one event loop, where a channel is a
//! group. Messages are read and written by `irc-proto`. There are no topics, modes, operators and passwords.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use common::tls::TLS;
use irc_proto::{Command, Message, Prefix, Response};
use socketserver::event_loop::{ConnId, FramedTransport as LineTransport};
use socketserver::{factory, lines, Context, EventLoop, Group, HandlerResult, LineReceiver, Lost, ServerBuilder};

const HERE: &str = "irc.localhost";

/// Longest line in bytes, without its CR LF (RFC 2812, section 2.3); most channels of a client.
const LINE: usize = 510;
const MOST_CHANNELS: usize = 20;

/// By nickname and by name, in small letters.
#[derive(Default)]
struct Network {
    people: RefCell<HashMap<String, ConnId>>,
    channels: RefCell<BTreeMap<String, Channel>>,
}

struct Channel {
    group: Group,
    nicks: BTreeMap<ConnId, String>,
}

struct Client {
    net: Rc<Network>,
    id: ConnId,
    nick: Option<String>,
    user: Option<String>,
    is_welcome: bool,
}

/// A message as a line, cut where it would be too long.
fn line(from: &str, command: Command) -> String {
    let message = Message { tags: None, prefix: Some(Prefix::new_from_str(from)), command }.to_string();
    let text = message.trim_end_matches(['\r', '\n']);
    let end = (0..=text.len().min(LINE)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}\r\n", &text[..end])
}

impl LineReceiver for Client {
    fn connection_made(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        t.set_max_length(LINE);
        t.set_idle_timeout(Some(Duration::from_secs(300))); // irssi and its like send a PING now and then
        Ok(())
    }

    fn line_received(&mut self, t: &mut LineTransport<'_>, text: &[u8]) -> HandlerResult {
        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !matches!(c, '\r' | '\0')).collect();
        let Ok(message) = text.parse::<Message>() else { return Ok(()) };
        match message.command {
            Command::CAP(..) | Command::PONG(..) | Command::PASS(_) => Ok(()),
            Command::NICK(nick) => self.nick(t, nick),
            Command::USER(user, ..) => {
                self.user.get_or_insert(user.chars().filter(char::is_ascii_alphanumeric).take(10).collect());
                self.welcome(t)
            }
            Command::PING(token, _) => Ok(t.write(line(HERE, Command::PONG(HERE.to_owned(), Some(token))).as_bytes())?),
            Command::QUIT(_) => {
                t.close();
                Ok(())
            }
            _ if !self.is_welcome => self.reply(t, Response::ERR_NOTREGISTERED, &["NICK and USER come first"]),
            Command::JOIN(names, ..) => names.split(',').try_for_each(|name| self.join(t, name)),
            Command::PART(names, _) => names.split(',').try_for_each(|name| self.part(t, name)),
            Command::PRIVMSG(to, text) => self.say(t, &to, Command::PRIVMSG(to.clone(), text)),
            Command::NOTICE(to, text) => self.say(t, &to, Command::NOTICE(to.clone(), text)),
            Command::WHO(..) | Command::ChannelMODE(..) | Command::UserMODE(..) => Ok(()), // clients ask at each JOIN
            _ => self.reply(t, Response::ERR_UNKNOWNCOMMAND, &[text.split(' ').next().unwrap_or(""), "not served"]),
        }
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        let quit = line(&self.mask(), Command::QUIT(Some(why.reason.to_string())));
        let Some(nick) = self.nick.take() else { return };
        self.net.people.borrow_mut().remove(&nick.to_ascii_lowercase());
        self.net.channels.borrow_mut().retain(|_, channel| {
            if channel.nicks.remove(&self.id).is_some() {
                cx.broadcast(channel.group, quit.as_bytes(), None);
            }
            !channel.nicks.is_empty()
        });
    }
}

impl Client {
    fn mask(&self) -> String {
        let (nick, user) = (self.nick.as_deref().unwrap_or("*"), self.user.as_deref().unwrap_or("unknown"));
        format!("{nick}!{user}@{HERE}")
    }

    fn reply(&self, t: &mut LineTransport<'_>, code: Response, args: &[&str]) -> HandlerResult {
        let nick = self.nick.as_deref().unwrap_or("*");
        let args = [&[nick], args].concat().into_iter().map(str::to_owned).collect();
        Ok(t.write(line(HERE, Command::Response(code, args)).as_bytes())?)
    }

    fn nick(&mut self, t: &mut LineTransport<'_>, nick: String) -> HandlerResult {
        let is_sign = |c: char| c.is_ascii_alphanumeric() || "-_[]{}\\|^`".contains(c);
        let begins = nick.starts_with(|c: char| !c.is_ascii_digit());
        if !begins || nick.len() > 30 || !nick.chars().all(is_sign) {
            return self.reply(t, Response::ERR_ERRONEOUSNICKNAME, &["*", "that is no nickname"]);
        }
        let key = nick.to_ascii_lowercase();
        if self.net.people.borrow().get(&key).is_some_and(|id| *id != self.id) {
            return self.reply(t, Response::ERR_NICKNAMEINUSE, &[&nick, "somebody has that nickname"]);
        }
        let news = line(&self.mask(), Command::NICK(nick.clone()));
        if let Some(old) = self.nick.replace(nick.clone()) {
            self.net.people.borrow_mut().remove(&old.to_ascii_lowercase());
            t.write(news.as_bytes())?;
        }
        self.net.people.borrow_mut().insert(key, self.id);
        for channel in self.net.channels.borrow_mut().values_mut() {
            if let Some(name) = channel.nicks.get_mut(&self.id) {
                name.clone_from(&nick);
                t.broadcast(channel.group, news.as_bytes(), Some(self.id));
            }
        }
        self.welcome(t)
    }

    fn welcome(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        if self.is_welcome || self.nick.is_none() || self.user.is_none() {
            return Ok(());
        }
        self.is_welcome = true;
        self.reply(t, Response::RPL_WELCOME, &[&format!("welcome, {}", self.mask())])?;
        self.reply(t, Response::ERR_NOMOTD, &["no message of the day"])
    }

    fn join(&self, t: &mut LineTransport<'_>, name: &str) -> HandlerResult {
        let (key, mut channels) = (name.to_ascii_lowercase(), self.net.channels.borrow_mut());
        let count = channels.values().filter(|channel| channel.nicks.contains_key(&self.id)).count();
        let is_bad = name.len() > 50 || name.contains(|c: char| c.is_control() || c == ' ');
        if !name.starts_with('#') || is_bad || count >= MOST_CHANNELS {
            return self.reply(t, Response::ERR_NOSUCHCHANNEL, &["*", "no channel, or one too many"]);
        }
        let channel = channels.entry(key).or_insert_with(|| Channel { group: Group::new(), nicks: BTreeMap::new() });
        if t.join(channel.group) {
            channel.nicks.insert(self.id, self.nick.clone().unwrap_or_default());
            let news = line(&self.mask(), Command::JOIN(name.to_owned(), None, None));
            t.broadcast(channel.group, news.as_bytes(), None);
        }
        drop(channels);
        self.names(t, name)
    }

    fn names(&self, t: &mut LineTransport<'_>, name: &str) -> HandlerResult {
        if let Some(channel) = self.net.channels.borrow().get(&name.to_ascii_lowercase()) {
            for some in channel.nicks.values().map(String::as_str).collect::<Vec<_>>().chunks(10) {
                self.reply(t, Response::RPL_NAMREPLY, &["=", name, &some.join(" ")])?;
            }
        }
        self.reply(t, Response::RPL_ENDOFNAMES, &[name, "end of NAMES"])
    }

    fn part(&self, t: &mut LineTransport<'_>, name: &str) -> HandlerResult {
        let (key, mut channels) = (name.to_ascii_lowercase(), self.net.channels.borrow_mut());
        let Some(channel) = channels.get_mut(&key).filter(|c| c.nicks.contains_key(&self.id)) else { return Ok(()) };
        t.broadcast(channel.group, line(&self.mask(), Command::PART(name.to_owned(), None)).as_bytes(), None);
        t.leave(channel.group);
        channel.nicks.remove(&self.id);
        channels.retain(|_, channel| !channel.nicks.is_empty());
        Ok(())
    }

    /// To a channel that this client is in, or to one person.
    fn say(&self, t: &mut LineTransport<'_>, to: &str, command: Command) -> HandlerResult {
        let (key, text) = (to.to_ascii_lowercase(), line(&self.mask(), command));
        if let Some(channel) = self.net.channels.borrow().get(&key).filter(|c| c.nicks.contains_key(&self.id)) {
            t.broadcast(channel.group, text.as_bytes(), Some(self.id));
        } else if let Some(person) = self.net.people.borrow().get(&key) {
            t.write_to(*person, text.as_bytes());
        } else {
            self.reply(t, Response::ERR_NOSUCHNICK, &[to, "no such nickname, or you are not in that channel"])?;
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Rooms for IRC clients.", &[common::LIMITS, TLS]);
    let net = Rc::new(Network::default());
    let client = factory(move |peer| {
        lines(Client { net: net.clone(), id: peer.id(), nick: None, user: None, is_welcome: false })
    });
    let builder = args.tls(args.limits(ServerBuilder::new().handle_signals()));
    let mut server = builder.strategy(EventLoop::new()).bind(&args.addr, client)?;
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
