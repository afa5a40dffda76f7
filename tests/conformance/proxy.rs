//! Behind a proxy, the client's address is known, and no connection is held up by its beginning.

use crate::Traits;

/// A header of version 2 for the client 198.51.100.3:4242, with a unique id.
pub(crate) fn v2() -> Vec<u8> {
    let body = [198, 51, 100, 3, 192, 0, 2, 1, 0x10, 0x92, 1, 0xBB, 5, 0, 2, b'i', b'd'];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", &[17][..], &body].concat()
}

pub(crate) const V1: &[u8] = b"PROXY TCP6 2001:db8::9 ::1 9 443\r\n";

pub(crate) fn tells_the_clients_address_behind_a_proxy(of: &Traits) {
    let server = of.start(&["--proxy-from", "127.0.0.1,::1"]);
    for (header, address) in [(V1, "[2001:db8::9]:9"), (&v2(), "198.51.100.3:4242")] {
        let mut client = server.connect();
        client.send([header, b"PEER\n"].concat());
        assert_eq!(client.line(), address);
        assert_eq!(client.ask("ECHO goes on"), "goes on");
        drop(client);

        let mut slow = server.connect();
        for byte in [header, b"PEER\n"].concat() {
            slow.send([byte]);
        }
        assert_eq!(slow.line(), address, "byte by byte");
    }
    let mut nobody = server.connect();
    let ours = nobody.local_addr().to_string();
    nobody.send("PROXY UNKNOWN\r\nPEER\n");
    assert_eq!(nobody.line(), ours, "the proxy does not know its client");
}
