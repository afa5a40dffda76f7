use socketserver::{per_connection, Connection, HandlerResult, ServerBuilder, StreamRequestHandler};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.send_line("hello")
    }
}

fn main() {
    let _ = ServerBuilder::new().bind("127.0.0.1:0", per_connection(|| Greeter));
}
