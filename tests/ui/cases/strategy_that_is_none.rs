use socketserver::{handler, ServerBuilder};

fn main() {
    let _ = ServerBuilder::new().strategy("threading").bind("127.0.0.1:0", handler(|_| Ok(())));
}
