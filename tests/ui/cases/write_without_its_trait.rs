use socketserver::{handler, ServerBuilder};

fn main() {
    let hello = handler(|conn| {
        writeln!(conn, "hello {}", conn.peer_addr())?;
        Ok(conn.flush()?)
    });
    let _ = ServerBuilder::new().bind("127.0.0.1:0", hello);
}
