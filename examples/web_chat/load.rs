//! Members of a chat, for measuring: `cargo run --release --example load -- STRATEGY MEMBERS RATE SECONDS [OPTION...]`.
//! Starts the server with the options, lets MEMBERS join by WebSocket, and says RATE messages a second in all. With a
//! RATE of 0 they have no names and say nothing. A message has the time at which it was said. SERVERS=N in the
//! environment: this number of servers, which want `--broker URL`.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socketserver::event_loop::{ConnId, Peer};
use socketserver::framing::FrameBuffer;
use socketserver::framing::{Decoded, Decoder, Frame, FrameError};
use socketserver::{factory, Context, HandlerResult, Protocol, Reactor, Transport};

/// Connections that are begun at once.
const AT_ONCE: usize = 100;

struct Run {
    servers: Vec<(Child, String)>,
    members: usize,
    rate: usize,
    start: Instant,
    arrived: RefCell<Vec<ConnId>>,
    begun: Cell<usize>,
    said: Cell<usize>,
    /// Microseconds from a member's mouth to another one's ear, one for each frame.
    delays: RefCell<Vec<u32>>,
    cpu_before: Cell<Duration>,
    rss_before: Cell<u64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [strategy, members, rate, seconds, options @ ..] = &args[..] else {
        return Err("STRATEGY MEMBERS RATE SECONDS [OPTION...]".into());
    };
    let count = std::env::var("SERVERS").map_or(Ok(1), |n| n.parse())?;
    let servers = (0..count).map(|_| start_server(strategy, options)).collect::<Result<Vec<_>, _>>()?;
    let run = Rc::new(Run {
        members: members.parse()?,
        rate: rate.parse()?,
        start: Instant::now(),
        arrived: RefCell::default(),
        begun: Cell::new(0),
        said: Cell::new(0),
        delays: RefCell::default(),
        cpu_before: Cell::default(),
        rss_before: Cell::new(sum(&servers, memory_kib)),
        servers,
    });
    let seconds = Duration::from_secs_f64(seconds.parse()?);
    let mut reactor = Reactor::new()?;
    let theirs = run.clone();
    reactor.call_when_running(move |cx| arrive(cx, theirs, seconds));
    reactor.run()?;
    let mut run = Rc::into_inner(run).ok_or("the run is over, and somebody still has it")?;
    for (server, _) in &mut run.servers {
        server.kill()?;
        server.wait()?;
    }
    Ok(())
}

/// Of all servers.
fn sum<T: std::iter::Sum>(servers: &[(Child, String)], of: fn(u32) -> T) -> T {
    servers.iter().map(|(server, _)| of(server.id())).sum()
}

/// The server beside this program, and the address of its page.
fn start_server(strategy: &str, options: &[String]) -> Result<(Child, String), Box<dyn std::error::Error>> {
    let path = std::env::current_exe()?;
    let path = path.parent().and_then(Path::parent).ok_or("no folder of builds")?.join("web_chat");
    let mut command = Command::new(&path);
    command.args(["127.0.0.1:0", "--strategy", strategy, "--max-connections", "20000"]).args(options);
    let mut server = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{}: {e}", path.display()))?;
    // Both lines, the second is of the other port: without a reader the server could not print it.
    let lines: Result<Vec<_>, _> = BufReader::new(server.stdout.take().ok_or("no output")?).lines().take(2).collect();
    let addr = lines?.first().and_then(|line| line.strip_prefix("listening on ")).ok_or("no address")?.to_owned();
    Ok((server, addr))
}

/// Begins some connections; goes on when they have joined.
fn arrive(cx: &mut Context<'_>, run: Rc<Run>, seconds: Duration) {
    if run.arrived.borrow().len() == run.members {
        println!("{} members after {:.1} s", run.members, run.start.elapsed().as_secs_f64());
        // All members hear that the others have joined, before the numbers count.
        cx.call_later(Duration::from_secs(3), move |cx| measure(cx, run, seconds));
        return;
    }
    while run.begun.get() < run.members && run.begun.get() < run.arrived.borrow().len() + AT_ONCE {
        let (number, theirs) = (run.begun.get(), run.clone());
        run.begun.set(number + 1);
        let member = move |_: &Peer| Member { run: theirs.clone(), number, unread: FrameBuffer::new(1 << 20) };
        cx.connect_tcp(run.servers[number % run.servers.len()].1.as_str(), factory(member));
    }
    cx.call_later(Duration::from_millis(5), move |cx| arrive(cx, run, seconds));
}

fn measure(cx: &mut Context<'_>, run: Rc<Run>, seconds: Duration) {
    run.delays.borrow_mut().clear();
    run.cpu_before.set(sum(&run.servers, processor_time));
    if run.rate > 0 {
        speak(cx, run.clone(), Instant::now(), seconds);
    }
    cx.call_later(seconds + Duration::from_secs(2), move |cx| report(cx, &run, seconds));
}

/// The next member says something; and so on, at the rate.
fn speak(cx: &mut Context<'_>, run: Rc<Run>, begun: Instant, seconds: Duration) {
    if begun.elapsed() >= seconds {
        return;
    }
    let said = run.said.replace(run.said.get() + 1);
    let speaker = run.arrived.borrow()[said % run.members];
    cx.write_to(speaker, &frame(&format!("{:>12} {}", run.start.elapsed().as_micros(), "x".repeat(60))));
    let next = begun + Duration::from_secs_f64((said + 1) as f64 / run.rate as f64);
    cx.call_later(next.saturating_duration_since(Instant::now()), move |cx| speak(cx, run, begun, seconds));
}

fn report(cx: &mut Context<'_>, run: &Run, seconds: Duration) {
    let cpu = sum(&run.servers, processor_time) - run.cpu_before.get();
    let mut delays = run.delays.borrow_mut();
    delays.sort_unstable();
    let (frames, expected) = (delays.len(), run.said.get() * (run.members - 1));
    println!("{} messages in {seconds:?}, {frames} frames of {expected}", run.said.get());
    if frames > 0 {
        let at = |part: f64| f64::from(delays[((frames - 1) as f64 * part) as usize]) / 1000.0;
        println!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
        println!("processor: {:.2} us a frame", cpu.as_secs_f64() * 1e6 / frames as f64);
    }
    println!("processor: {:.1} ms in {:.0} s", cpu.as_secs_f64() * 1e3, seconds.as_secs_f64() + 2.0);
    let (before, now) = (run.rss_before.get(), sum(&run.servers, memory_kib));
    let each = (now - before) as f64 / run.members as f64;
    println!("memory: {:.1} MiB, before the members {:.1}; {each:.2} KiB a member", mib(now), mib(before));
    cx.shutdown(Duration::ZERO);
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// What all threads of a process have used, see proc_pid_schedstat.
fn processor_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn memory_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0, |pages: u64| pages * 4)
}

/// A short text as a client's frame, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The answer to the upgrade, then frames of a server, which have no mask.
struct Frames;

impl Decoder for Frames {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        let (start, len) = match unread {
            [b'H', ..] => match unread.windows(4).position(|end| end == b"\r\n\r\n") {
                Some(end) => (0, end + 4),
                None => return Ok(Decoded::More),
            },
            [_, 126, high, low, ..] => (4, usize::from(*high) << 8 | usize::from(*low)),
            [_, len @ ..=125, ..] => (2, usize::from(*len)),
            _ => return Ok(Decoded::More),
        };
        match unread.len() >= start + len {
            true => Ok(Decoded::Frame(Frame { payload: start..start + len, len: start + len })),
            false => Ok(Decoded::More),
        }
    }

    fn reset(&mut self) {}
}

struct Member {
    run: Rc<Run>,
    number: usize,
    unread: FrameBuffer,
}

impl Protocol for Member {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        Ok(t.write(
            b"GET /ws HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let (run, now) = (self.run.clone(), self.run.start.elapsed().as_micros() as u32);
        self.unread.push(data)?;
        while let Some(payload) = self.unread.next(&mut Frames)? {
            let text = std::str::from_utf8(payload)?;
            let arrived = match text.strip_prefix("* member ") {
                _ if text.starts_with("HTTP/1.1 101") => {
                    if run.rate > 0 {
                        t.write(&frame(&format!("member {}", self.number)))?;
                    }
                    run.rate == 0
                }
                Some(news) => news.strip_suffix(" has joined") == Some(&self.number.to_string()),
                None if text.starts_with('*') => false,
                None => {
                    let said = text.split_once(": ").and_then(|(_, said)| said.trim_start().split(' ').next());
                    let at: u32 = said.unwrap_or_default().parse()?;
                    run.delays.borrow_mut().push(now - at);
                    false
                }
            };
            if arrived {
                run.arrived.borrow_mut().push(t.id());
            }
        }
        Ok(())
    }
}
