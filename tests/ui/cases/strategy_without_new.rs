use socketserver::{handler, Forking, ServerBuilder, Threading};

fn main() {
    let _ = ServerBuilder::new().strategy(Threading).bind("127.0.0.1:0", handler(|_| Ok(())));
    let _ = ServerBuilder::new().strategy(Forking).bind("127.0.0.1:0", handler(|_| Ok(())));
}
