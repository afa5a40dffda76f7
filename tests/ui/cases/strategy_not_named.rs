use socketserver::{handler, TcpServer};

fn main() {
    let _ = TcpServer::bind("127.0.0.1:0", handler(|_| Ok(())));
}
