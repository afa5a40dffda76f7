//! The protocol of the comparisons.

use std::any::Any;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::thread;

use socketserver::event_loop::{Eof, LostReason, TimerId};
use socketserver::{Context, HandlerResult, Lost, Protocol, Transport};

use crate::kit::ms;

/// As many bytes as no kernel takes at once.
pub(crate) const BIG: usize = 6_000_000;

/// What was called, in order.
pub(crate) type Journal = Arc<Mutex<Vec<String>>>;

/// Does what the data says, and keeps a journal.
pub(crate) struct Doer {
    journal: Journal,
    /// What it has noted last.
    last: String,
    left: usize,
    keeps_open: bool,
}

impl Doer {
    pub(crate) fn new(journal: &Journal) -> Self {
        Self { journal: journal.clone(), last: String::new(), left: 0, keeps_open: false }
    }

    fn note(&mut self, entry: impl Into<String>) {
        self.last = entry.into();
        self.journal.lock().unwrap().push(self.last.clone());
    }

    fn go_on(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        while self.left > 0 && !t.is_writing_paused() {
            let part = self.left.min(65_536);
            t.write(&vec![b'x'; part])?;
            self.left -= part;
            if self.left == 0 {
                t.close();
            }
        }
        Ok(())
    }

    fn act(&mut self, t: &mut Transport<'_>, word: &str) -> HandlerResult {
        let (id, handle) = (t.id(), t.handle());
        match word {
            "quit" => {
                t.write(b"bye")?;
                t.close();
            }
            "fail" => {
                t.write(b"kept")?;
                return Err("asked to fail".into());
            }
            "panic" => {
                t.write(b"kept")?;
                panic!("asked to panic");
            }
            "abort" => t.abort(),
            "timer" => _ = t.set_timer(ms(10)),
            "later" => {
                t.call_later(ms(10), move |cx| assert!(cx.write_to(id, b"later")));
            }
            "post" => assert!(t.post(id, "posted")),
            "thread" => drop(thread::spawn(move || handle.write(id, *b"from a thread"))),
            "half" => self.keeps_open = true,
            "big" => {
                self.left = BIG;
                self.go_on(t)?;
            }
            "flood" => (0..200).try_for_each(|_| t.write(&[b'x'; 65_536]))?,
            "rest" => {
                t.pause_reading();
                t.set_timer(ms(10));
            }
            "hold" => t.pause_reading(),
            "stay" => {
                t.write(b".")?;
                t.pause_reading();
            }
            "hush" => {
                t.write(b"hushed.")?;
                t.pause_reading();
            }
            "begin" => {
                t.write(b".")?;
                t.request_begins();
                t.set_timer(ms(300));
            }
            "tick" => {
                t.write(b".")?;
                t.set_timer(ms(5));
            }
            "total" => {
                t.set_total_timeout(Some(ms(50)));
                t.set_timer(ms(5)); // whatever is under way
                self.note("tick");
            }
            "reader" => {
                t.send_reader(io::repeat(b'x').take(BIG as u64))?;
                t.write(b"end")?;
                t.close();
            }
            "shut" => {
                t.write(b"last")?;
                t.shutdown_write();
            }
            "switch:rest" => t.switch_protocol(Doer::new(&self.journal), b"rest"),
            "work" => {
                let here = thread::current().id();
                let work = move || assert_ne!(thread::current().id(), here);
                t.blocking(work, move |cx, done| {
                    assert_eq!((done.unwrap(), thread::current().id()), ((), here));
                    assert!(cx.write_to(id, b"worked"));
                });
            }
            "shutdown" => t.server().shutdown(),
            "grace" => t.shutdown(ms(50)),
            "overstay" => {
                t.pause_reading();
                t.shutdown(ms(50));
            }
            "stop" => t.stop(),
            "more" => {}
            word => t.write(word.as_bytes())?,
        }
        Ok(())
    }
}

impl Protocol for Doer {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.note("made");
        assert_eq!(t.connections(), 1);
        Ok(t.write(b">")?)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let word = String::from_utf8_lossy(data);
        self.note(&*word);
        self.act(t, &word)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.note("eof");
        if self.keeps_open {
            t.set_timer(ms(10));
            return Ok(Eof::KeepOpen);
        }
        Ok(Eof::Close)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.go_on(t)
    }

    fn reading_resumed(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        self.note("resumed");
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        match self.last.as_str() {
            "tick" => {
                t.set_timer(ms(5)); // for ever
                return Ok(());
            }
            "begin" | "shutting_down" => {
                t.write(b"done")?;
                t.request_ends();
            }
            _ => t.write(b"timer")?,
        }
        self.note("timer");
        if t.is_reading_paused() {
            t.resume_reading();
        } else if self.keeps_open {
            t.close();
        }
        Ok(())
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.note("message");
        Ok(t.write(message.downcast_ref::<&str>().unwrap().as_bytes())?)
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        if self.last == "stay" {
            t.write(b"!")?;
        }
        if self.last != "tick" {
            self.note("shutting_down");
        }
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, why: &Lost) {
        // Which error a reset shows as is a matter of what was asked first.
        let reason = if let LostReason::Reset(_) = why.reason { "broken:".to_owned() } else { why.reason.to_string() };
        self.note(format!("lost: {reason}"));
    }
}
