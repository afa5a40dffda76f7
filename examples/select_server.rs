//! One thread, one loop, many clients: prints what each of them sends.
//! `cargo run --example select_server`, then `nc 127.0.0.1 1234` in several terminals.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use common::{plain, AnyError};
use socketserver::selectors::{Events, Selector};

#[derive(Clone)]
enum Source {
    Stop,
    Listener,
    Client(Rc<Client>),
}

struct Client {
    stream: File,
    addr: String,
}

fn main() -> Result<(), AnyError> {
    let args = common::args("Prints what its clients send, all on one thread.", &[]);
    let stop = plain::stop_signal()?;
    let listener = plain::listen(&args.addr)?;
    let mut selector = Selector::new()?;
    selector.register(&stop, Events::READ, Source::Stop)?;
    selector.register(&listener, Events::READ, Source::Listener)?;
    let mut running = true;
    while running {
        for (key, _) in selector.select(None)? {
            match key.data {
                Source::Stop => running = false, // after this pass: what has come by now is printed
                Source::Listener => accept(&listener, &mut selector)?,
                Source::Client(client) if is_served(&client)? => {}
                Source::Client(client) => {
                    selector.unregister(&client.stream)?;
                    plain::say(format_args!("{} disconnected", client.addr));
                    if selector.get_key(&listener).is_none() {
                        selector.register(&listener, Events::READ, Source::Listener)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn accept(listener: &plain::Listener, selector: &mut Selector<Source>) -> io::Result<()> {
    match listener.accept() {
        Ok((stream, addr)) => {
            plain::say(format_args!("got connection from {addr}"));
            let client = Rc::new(Client { stream, addr });
            selector.register(&client.stream, Events::READ, Source::Client(client.clone()))?;
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
        Err(e) => {
            // Most likely out of descriptors. The listener stays ready, so it rests until a client goes.
            log::warn!("cannot accept: {e}");
            selector.unregister(listener)?;
        }
    }
    Ok(())
}

/// Prints what has come; `false` where the client is gone.
fn is_served(client: &Client) -> io::Result<bool> {
    let mut buf = [0; 65536];
    match (&client.stream).read(&mut buf) {
        Ok(0) => Ok(false),
        Ok(n) => {
            let text = String::from_utf8_lossy(&buf[..n]);
            plain::say(text.trim_end_matches(['\r', '\n']));
            Ok(true)
        }
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(e) => {
            log::info!("{}: {e}", client.addr);
            Ok(false)
        }
    }
}
