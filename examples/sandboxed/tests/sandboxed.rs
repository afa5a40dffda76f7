//! The sandbox refuses what it should, in each child and in no other process, and says what the kernel enforces.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// The example as a process, which ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: &str) -> Self {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        Self(BufReader::new(client))
    }

    fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

#[test]
fn a_handler_can_neither_open_nor_connect_nor_execute_and_the_others_are_served() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxed"));
    let mut server = Server(command.arg("127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(server.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = said.next().unwrap().replace("listening on ", "");
    let told: Vec<String> = said.take(4).collect();
    assert!(told[0].starts_with("landlock enforces "), "{told:?}");
    let enforces_all = told[0].ends_with("all of its rules");

    let mut bystander = Client::connect(&address);
    assert_eq!(bystander.ask("hello"), "hello");
    let target = TcpListener::bind("127.0.0.1:0").unwrap(); // it could connect there, if it might
    let mut client = Client::connect(&address);
    for act in [format!("connect {}", target.local_addr().unwrap()), "exec /bin/true".to_owned()] {
        assert_eq!(client.ask(&act), "refused: Operation not permitted (os error 1)", "{act}");
    }
    // An old kernel has no Landlock. Then the server has said so.
    let read = client.ask("read /etc/passwd");
    assert_eq!(read.starts_with("refused: Permission denied"), enforces_all, "{read}, but {told:?}");
    let told_so = told.iter().find_map(|line| line.strip_prefix("read /etc/passwd: "));
    assert_eq!(told_so.map(|said| said.starts_with("refused")), Some(enforces_all), "{told:?}");
    assert!(client.ask("list /usr/share").ends_with(" files"), "it may read the folder");
    client.0.get_ref().shutdown(Shutdown::Both).unwrap();

    assert_eq!(bystander.ask("still here"), "still here");
    assert_eq!(Client::connect(&address).ask("a new one"), "a new one");
}
