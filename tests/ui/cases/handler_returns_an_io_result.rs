use std::io::Write;

use socketserver::{handler, ServerBuilder};

fn main() {
    let hello = handler(|conn| conn.write_all(b"hello\n"));
    let _ = ServerBuilder::new().bind("127.0.0.1:0", hello);
}
