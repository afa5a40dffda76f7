use socketserver::{ServerBuilder, Threading};

fn main() {
    let hello = |conn: &mut socketserver::Connection| -> socketserver::HandlerResult {
        let _ = conn;
        Ok(())
    };
    let _ = ServerBuilder::new().strategy(Threading::new()).bind("127.0.0.1:0", hello);
}
