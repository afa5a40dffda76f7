use socketserver::{handler, ServerBuilder};

fn main() {
    let mut count = 0;
    let counts = handler(|_| {
        count += 1;
        Ok(())
    });
    let _ = ServerBuilder::new().bind("127.0.0.1:0", counts);
}
