use std::io::Write;

use socketserver::{Connection, HandlerResult, Protocol, StreamRequestHandler, Transport};

struct Hello;

impl StreamRequestHandler for Hello {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.write_all("hello\n")?;
        conn.write_all(format!("you are {}\n", conn.peer_addr()))?;
        conn.send_line(7)
    }
}

impl Protocol for Hello {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        transport.write(format!("{} bytes\n", data.len()))?;
        Ok(())
    }
}

fn main() {}
