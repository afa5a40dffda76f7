use socketserver::{handler, ServerBuilder};

fn main() {
    let hello = handler(|conn| {
        conn.send_line("hello")?;
    });
    let _ = ServerBuilder::new().bind("127.0.0.1:0", hello);
    let silent = handler(|_conn| ());
    let _ = ServerBuilder::new().bind("127.0.0.1:0", silent);
}
