//! The crate's servers by their names: they greet, or send back what comes.

use std::io::{BufRead, Write};

use socketserver::server::Engine;
use socketserver::{factory, handler, per_request, Connection, EventLoop, EventLoops, Forking, HandlerResult, Next};
use socketserver::{PerSource, PreForking, Protocol, ServerBuilder, ThreadPool, Threading, Transport};

use crate::load::GREETING;

/// Serves until SIGTERM. False if there is no such server.
pub fn serve(name: &str, mode: &str) -> bool {
    let greets = mode == "greet";
    let mut builder = ServerBuilder::new().handle_signals().read_buffer(if mode == "bulk" { 65536 } else { 8192 });
    if name.ends_with("an observer") {
        builder = builder.observer(());
    }
    if name.ends_with("`per_source`") {
        builder = builder.per_source(PerSource::new().at_once(1000));
    }
    let handler = handler(move |conn: &mut Connection| {
        if greets {
            return Ok(conn.write_all(GREETING.as_bytes())?);
        }
        while conn.next_request()? {
            echo(conn)?;
        }
        Ok(())
    });
    let protocol = factory(move |_| Echo { greets });
    match name.trim_end_matches(", an observer").trim_end_matches(", `per_source`") {
        "`Threading`" => run(builder, handler),
        "`ThreadPool` of 16" => run(builder.strategy(ThreadPool::new(16)), handler),
        "`ThreadPool` of 4, `per_request`" => {
            let builder = builder.strategy(ThreadPool::new(4));
            run(builder, per_request(|conn: &mut Connection| echo(conn).map(|()| Next::Request)))
        }
        "`Forking`" => run(builder.strategy(Forking::new()), handler),
        "`PreForking` of 4, `Threading`" => run(builder.strategy(PreForking::new(4, Threading::new())), handler),
        "`PreForking` of 4, `ThreadPool`" => run(builder.strategy(PreForking::new(4, ThreadPool::new(16))), handler),
        "`PreForking` of 4, `EventLoop`" => run(builder.strategy(PreForking::new(4, EventLoop::new())), protocol),
        "`EventLoop`" => run(builder.strategy(EventLoop::new()), protocol),
        "`EventLoops` of 2" => run(builder.strategy(EventLoops::new(2)), protocol),
        _ => return false,
    }
    true
}

pub fn run<H, S: Engine<H>>(builder: ServerBuilder<S>, handler: H) {
    let mut server = builder.bind("127.0.0.1:0", handler).unwrap();
    println!("{}", server.local_addr());
    server.serve_forever().unwrap();
}

/// Sends back what is in the read buffer.
fn echo(conn: &mut Connection) -> HandlerResult {
    let (mut input, mut output) = conn.halves();
    let data = input.fill_buf()?;
    output.write_all(data)?;
    let n = data.len();
    input.consume(n);
    Ok(())
}

struct Echo {
    greets: bool,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        if self.greets {
            transport.write(GREETING.as_bytes())?;
            transport.close();
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}
