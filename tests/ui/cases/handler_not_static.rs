use std::io::Write;

use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandler};

struct Greets<'a>(&'a str);

impl StreamRequestHandler for Greets<'_> {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        Ok(conn.write_all(self.0.as_bytes())?)
    }
}

fn main() {
    let greeting = String::from("hello");
    let _ = ServerBuilder::new().bind("127.0.0.1:0", Greets(&greeting));
}
