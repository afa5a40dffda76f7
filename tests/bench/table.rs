//! The table: what is measured, and beside whom.

use crate::load::Load::{self, *};

pub struct Row {
    pub load: Load,
    pub ours: &'static str,
    pub beside: &'static [&'static str],
}

const fn row(load: Load, ours: &'static str, beside: &'static [&'static str]) -> Row {
    Row { load, ours, beside }
}

/// Rows of one load stand together, for their servers take turns.
pub const ROWS: &[Row] = &[
    row(Greet, "`Threading`", &["thread::spawn", "pool of accepts", "Python's ThreadingTCPServer"]),
    row(Greet, "`ThreadPool` of 16", &["pool of accepts", "crate threadpool"]),
    row(Greet, "`Forking`", &["fork", "Python's ForkingTCPServer"]),
    row(Greet, "`PreForking` of 4, `Threading`", &["pool of accepts", "fork"]),
    row(Greet, "`PreForking` of 4, `ThreadPool`", &["pool of accepts"]),
    row(Greet, "`PreForking` of 4, `EventLoop`", &["epoll"]),
    row(Greet, "`EventLoop`", &["epoll", "tokio"]),
    row(Greet, "`Threading`, an observer", &["`Threading`"]),
    row(Greet, "`Threading`, `per_source`", &["`Threading`"]),
    row(Greet, "`EventLoop`, an observer", &["`EventLoop`"]),
    row(Request, "`Threading`", &["thread::spawn", "pool of accepts"]),
    row(Request, "`ThreadPool` of 4, `per_request`", &["`EventLoop`"]),
    row(Request, "`EventLoop`", &["epoll", "tokio"]),
    row(ECHO, "`Threading`", &["thread::spawn"]),
    row(ECHO, "`ThreadPool` of 4, `per_request`", &["epoll, oneshot, 4 threads"]),
    row(ECHO, "`EventLoop`", &["epoll", "tokio", "tokio, 2 threads"]),
    row(ECHO, "`EventLoops` of 2", &["`EventLoop`"]),
    row(PIPED, "`Threading`", &["thread::spawn"]),
    row(PIPED, "`EventLoop`", &["epoll", "tokio"]),
    row(CROWD, "`EventLoop`", &["epoll", "tokio", "tokio, 2 threads"]),
    row(BULK, "`Threading`", &["thread::spawn"]),
    row(BULK, "`EventLoop`", &["epoll", "tokio"]),
    row(Idle, "`EventLoop`", &["epoll", "tokio"]),
    row(Idle, "`ThreadPool` of 4, `per_request`", &["epoll, oneshot, 4 threads"]),
    row(Idle, "`Threading`", &["thread::spawn"]),
    row(Idle, "`Forking`", &["fork"]),
    row(Start, "`Threading`", &["thread::spawn"]),
    row(Handshake, "`Threading`", &["rustls"]),
    row(Handshake, "`EventLoop`", &["rustls"]),
    row(Resumption, "`Threading`", &["rustls"]),
    row(Resumption, "`EventLoop`", &["rustls"]),
    row(Download, "`Threading`", &["rustls"]),
    row(Download, "`EventLoop`", &["rustls"]),
    row(Upload, "`Threading`", &["rustls"]),
    row(Upload, "`EventLoop`", &["rustls"]),
    row(TlsIdle, "`Threading`", &["rustls"]),
    row(TlsIdle, "`EventLoop`", &["rustls"]),
];

const ECHO: Load = Echo { clients: 64, ahead: 1, size: 64 };
const PIPED: Load = Echo { clients: 64, ahead: 16, size: 64 };
const CROWD: Load = Echo { clients: 512, ahead: 1, size: 64 };
const BULK: Load = Echo { clients: 4, ahead: 4, size: 65536 };

pub const HEAD: &str = "| | this crate | beside |\n|---|---|---|";

impl Row {
    /// Whether a word of it has the text, in lower case.
    pub fn matches(&self, text: &str) -> bool {
        let all = format!("{} {} {}", self.load.name(), self.ours, self.beside.join(" "));
        all.replace('`', "").to_lowercase().contains(text) || all.to_lowercase().contains(text)
    }

    /// Medians, and the median of the rounds' ratios. `costs` has nothing of a neighbour that is not there.
    pub fn line<'a>(&self, costs: impl Fn(&str) -> Option<&'a [f64]>) -> String {
        let ours = costs(self.ours).unwrap();
        let beside = self.beside.iter().filter_map(|name| {
            let theirs = costs(name)?;
            let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            ratios.sort_by(f64::total_cmp);
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            let (theirs, ratio) = (median(theirs), median(&ratios));
            if !ratio.is_finite() {
                return Some(format!("{} {name}", number(theirs))); // it needs nothing
            }
            Some(format!("{} {name} (**{ratio:.2}x**; {least:.2} to {most:.2})", number(theirs)))
        });
        let beside: Vec<_> = beside.collect();
        format!(
            "| {}, {} | {} {} | {} |",
            self.load.name(),
            self.ours,
            number(median(ours)),
            self.load.unit(),
            beside.join("; ")
        )
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        x if x < 9.995 => format!("{value:.2}"),
        x if x < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
