//! Two `irssi`, each on a terminal that `script` makes, which log what they see; and lines that are no messages.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use crate::start;
use crate::support::{tool, until, Client, Server, AT_ONCE};

/// A member at his terminal. Keys go in; what is said in a channel goes into a file.
struct Irssi {
    child: Child,
    keys: ChildStdin,
    log: PathBuf,
}

impl Irssi {
    /// `None` where irssi is not installed.
    fn start(server: &Server, nick: &str) -> Option<Self> {
        tool("irssi")?;
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("irssi.{nick}"));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir(&home).unwrap();
        let (path, port) = (home.display(), server.port());
        let config = format!(
            "servers = ({{ address = \"127.0.0.1\"; port = \"{port}\"; chatnet = \"here\"; autoconnect = \"yes\"; }});\n\
             chatnets = {{ here = {{ type = \"IRC\"; }}; }};\n\
             channels = ({{ name = \"#rust\"; chatnet = \"here\"; autojoin = \"yes\"; }});\n\
             settings = {{\n\
               core = {{ nick = \"{nick}\"; user_name = \"{nick}\"; }};\n\
               \"fe-common/core\" = {{ autolog = \"yes\"; autolog_path = \"{path}/$0.log\"; }};\n\
             }};\n"
        );
        std::fs::write(home.join("config"), config).unwrap();
        let irssi = format!("irssi --home={path}");
        let mut command = tool("script")?;
        command.args(["-qfec", &irssi, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let keys = child.stdin.take().unwrap();
        Some(Self { child, keys, log: home.join("#rust.log") })
    }

    fn enter(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    #[track_caller]
    fn until_seen(&self, text: &str) {
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        until(&format!("{text:?} in the log of irssi"), || log().contains(text));
    }
}

impl Drop for Irssi {
    fn drop(&mut self) {
        let _ = self.child.kill(); // the terminal is gone, and so is irssi
        let _ = self.child.wait();
    }
}

/// A client without a terminal, in the channel.
fn member(server: &Server, nick: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("NICK {nick}\r\nUSER {nick} 0 * :x\r\nJOIN #Rust\r\n"));
    until_line(&mut client, "366");
    client
}

/// Reads up to a line with this word.
#[track_caller]
fn until_line(client: &mut Client, word: &str) -> String {
    loop {
        let line = client.line();
        assert!(!line.is_empty(), "no line with {word:?}");
        if line.contains(word) {
            return line;
        }
    }
}

#[test]
fn two_irssi_talk() {
    let mut server = start!("irc");
    let Some(mut ada) = Irssi::start(&server, "ada") else { return };
    ada.until_seen("ada [ada@irc.localhost] has joined #rust");
    let mut bob = Irssi::start(&server, "bob").unwrap();
    ada.until_seen("bob [bob@irc.localhost] has joined #rust");
    bob.until_seen("bob [bob@irc.localhost] has joined #rust");
    ada.enter("/msg #rust hello bob");
    bob.until_seen("ada> hello bob");
    bob.enter("/msg #rust hello ada, grüß dich");
    ada.until_seen("bob> hello ada");
    bob.enter("/nick rob");
    ada.until_seen("bob is now known as rob");
    bob.enter("/quit");
    ada.until_seen("rob [bob@irc.localhost] has quit");
    server.term().well_within(AT_ONCE);
}

#[test]
fn a_name_is_one_persons_and_a_channel_is_its_members() {
    let server = start!("irc");
    let (mut ada, mut bob) = (member(&server, "ada"), member(&server, "bob"));
    until_line(&mut ada, ":bob!bob@irc.localhost JOIN #Rust");
    let mut eve = server.connect();
    eve.send("PRIVMSG #rust :x\r\nNICK 1x\r\nNICK Ada\r\nUSER eve 0 * :x\r\nNICK eve\r\nPRIVMSG #rust :x\r\n");
    for code in [" 451 ", " 432 ", " 433 ", " 001 eve ", " 401 eve #rust "] {
        until_line(&mut eve, code);
    }
    eve.send("PRIVMSG ADA :for you\r\n");
    assert_eq!(ada.line(), ":eve!eve@irc.localhost PRIVMSG ADA :for you");
    bob.send("PART #rust\r\nJOIN #other\r\nPRIVMSG #rust :gone\r\n");
    until_line(&mut bob, " 401 ");
    assert_eq!(ada.line(), ":bob!bob@irc.localhost PART #rust");
    // A text that would be too long behind its sender's name is cut, between two letters.
    eve.send(format!("PRIVMSG ada :{}\r\n", "ü".repeat(245)));
    let cut = ada.line();
    assert!((509..=510).contains(&cut.len()), "{}", cut.len());
    eve.send("JOIN #rust\r\n");
    until_line(&mut ada, "JOIN");
    drop(eve);
    assert!(ada.line().starts_with(":eve!eve@irc.localhost QUIT"));
}

#[test]
fn what_is_no_message_harms_nothing() {
    let mut server = start!("irc");
    let mut ada = member(&server, "ada");
    let mut noise = member(&server, "noise");
    for line in [
        "",
        " ",
        ":",
        "@",
        "@ ",
        "@a=b",
        ": :",
        ":x",
        "JOIN",
        "JOIN ,#,",
        "NICK",
        "MODE #rust +o",
        "CAP",
        "\u{1}",
        "PING",
    ] {
        noise.send(format!("{line}\r\n"));
    }
    noise.send("PRIVMSG #rust :a\rQUIT\r\n");
    assert!(until_line(&mut ada, "PRIVMSG").ends_with("aQUIT"));
    for _ in 0..30 {
        noise.send("JOIN #a,#b,#c,#d,#e,#f,#g,#h,#i,#j,#k,#l,#m,#n,#o,#p,#q,#r,#s,#t,#u\r\n");
    }
    until_line(&mut noise, " 403 ");
    noise.send("x".repeat(100_000));
    noise.until_closed();
    ada.send("PING :still here\r\n");
    until_line(&mut ada, "PONG irc.localhost :still here");
    server.term().well_within(AT_ONCE);
    server.until_all_is_read();
    assert!(!server.stderr().join("\n").contains("panic"), "{:?}", server.stderr());
}
