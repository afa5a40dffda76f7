//! The parser of PROXY headers: no input makes it panic, and it never takes a byte too many.
#![no_main]

use libfuzzer_sys::fuzz_target;
use socketserver::proxy::ProxyHeader;

fuzz_target!(|input: &[u8]| {
    if let Ok(Some((header, taken))) = ProxyHeader::parse(input) {
        assert!(taken <= input.len() && taken <= 4096);
        // A header is complete in itself: what follows it changes nothing.
        let again = ProxyHeader::parse(&input[..taken]).unwrap().unwrap();
        assert_eq!((again.1, again.0.client()), (taken, header.client()));
        let _ = (header.authority(), header.unique_id(), header.alpn(), header.tls().and_then(|tls| tls.common_name()));
    }
});
