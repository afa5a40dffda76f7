use socketserver::{Connection, HandlerResult, StreamRequestHandler};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, mut conn: Connection) -> HandlerResult {
        conn.send_line("hello")
    }
}

struct Counter(usize);

impl StreamRequestHandler for Counter {
    fn handle(&mut self, _: &mut Connection) -> HandlerResult {
        self.0 += 1;
        Ok(())
    }
}

struct Silent;

impl StreamRequestHandler for Silent {
    fn handle(&self, _: &mut Connection) {}
}

fn main() {}
