//! All that an observer is told, as lines on stdout.

use std::io::{stdout, Write};

use socketserver::{Closed, Observer, Opened};

/// Prints a line for each connection that is opened, and for each that is closed.
pub struct Observed;

impl Observer for Observed {
    fn opened(&self, opened: &Opened<'_>) {
        say(format!("opened id={} peer={} local={}", opened.id, opened.peer, opened.local));
    }

    fn closed(&self, closed: &Closed<'_>) {
        let Closed { id, peer, local, bytes_read, bytes_written, outcome, .. } = closed;
        let age = closed.started.elapsed().unwrap_or_default();
        let micros = closed.duration.as_micros();
        let mut line = format!(
            "closed id={id} peer={peer} local={local} outcome={outcome} read={bytes_read} written={bytes_written} \
             micros={micros} age={}",
            age.as_micros()
        );
        #[cfg(any(feature = "tls", feature = "tls-ring"))]
        if let Some(tls) = closed.tls {
            let alpn = tls.alpn.as_deref().map(String::from_utf8_lossy);
            let (name, resumed) = (&tls.server_name, tls.resumed);
            line +=
                &format!(" tls={} cipher={} alpn={alpn:?} name={name:?} resumed={resumed}", tls.version, tls.cipher);
        }
        if let Some(header) = closed.proxy {
            line += &format!(" proxy={:?} destination={:?}", header.proxy(), header.destination());
        }
        if let Some(reason) = closed.reason {
            line += &format!(" reason={reason}");
        }
        say(line);
    }
}

/// One write for a line, so that those of several processes do not mix; and no panic, as of `println!`.
fn say(line: String) {
    let _ = stdout().write_all(format!("{line}\n").as_bytes());
}
