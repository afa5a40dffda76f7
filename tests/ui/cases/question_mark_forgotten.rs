use socketserver::{handler, ServerBuilder};

fn main() {
    let echo = handler(|conn| {
        while conn.next_request() {
            let Some(line) = conn.next_line() else { break };
            conn.send_line(line);
        }
        Ok(())
    });
    let mut server = ServerBuilder::new().bind("127.0.0.1:0", echo);
    server.serve_forever();
}
