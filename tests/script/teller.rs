//! A protocol that tells the test all it hears, over real sockets; and whether its loop sleeps.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{clock_gettime, ClockId};
use socketserver::event_loop::{ConnId, Eof};
use socketserver::{factory, Context, HandlerResult, Lost, Protocol, Transport};

use super::{run, Looped};

const LONG: Duration = Duration::from_secs(30);

/// What a protocol tells the test.
#[derive(Debug, PartialEq)]
pub enum News {
    Made(ConnId),
    Data(Vec<u8>),
    Eof,
    Lost(String),
}

/// Tells all, and does what the first byte says.
pub struct Teller {
    pub news: Sender<News>,
    pub left: usize,
}

impl Teller {
    fn produce(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        while self.left > 0 && !t.is_writing_paused() {
            let n = self.left.min(16 << 10);
            t.write(&vec![b'x'; n])?;
            self.left -= n;
        }
        if self.left == 0 {
            t.close();
        }
        Ok(())
    }
}

impl Protocol for Teller {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        Ok(self.news.send(News::Made(t.id()))?)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.news.send(News::Data(data.to_vec()))?;
        match data.first() {
            Some(b'p') => t.pause_reading(),
            Some(b'a') => {
                t.write(b"lost")?;
                t.abort();
            }
            Some(b'4') => {
                t.write(&vec![b'x'; 4 << 20])?;
                t.close();
            }
            Some(b'e') => {
                t.write(&vec![b'x'; 7 << 20])?;
                return Err("asked to".into());
            }
            Some(b'2') => self.left = 20 << 20,
            _ => {}
        }
        Ok(())
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.news.send(News::Eof)?;
        if self.left > 0 {
            self.produce(t)?;
            return Ok(Eof::KeepOpen);
        }
        Ok(Eof::Close)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.produce(t)
    }

    fn connection_lost(&mut self, _: &mut Context<'_>, why: &Lost) {
        let _ = self.news.send(News::Lost(why.to_string()));
    }
}

pub fn teller() -> (Looped, Receiver<News>) {
    let (news, told) = mpsc::channel();
    let build = factory(move |_| Teller { news: news.clone(), left: 0 });
    (run(move |reactor| reactor.listen_tcp("127.0.0.1:0", build).unwrap()), told)
}

pub fn next(told: &Receiver<News>) -> News {
    told.recv_timeout(LONG).expect("news of the protocol")
}

pub fn made(told: &Receiver<News>) -> ConnId {
    match next(told) {
        News::Made(id) => id,
        other => panic!("{other:?}"),
    }
}

pub fn until_lost(told: &Receiver<News>) -> String {
    loop {
        if let News::Lost(why) = next(told) {
            assert!(told.try_recv().is_err(), "it is the last");
            return why;
        }
    }
}

/// The processor's time that the loop's thread has used.
fn cpu_of(looped: &Looped) -> Duration {
    looped.ask(|_| {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        Duration::from_nanos(time.num_nanoseconds() as u64)
    })
}

/// For so long nothing happens: the loop sleeps.
pub fn assert_no_spin(looped: &Looped, what: &str) {
    let before = cpu_of(looped);
    std::thread::sleep(Duration::from_millis(300));
    let used = cpu_of(looped) - before;
    assert!(used < Duration::from_millis(60), "{what}: {used:?} of the processor in 300 ms of waiting");
}
