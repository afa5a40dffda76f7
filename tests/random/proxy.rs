//! The PROXY protocol's parser, by changed headers and by noise.

use proptest::prelude::*;
use socketserver::proxy::ProxyHeader;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The most that is ever taken.
const LONGEST: usize = 4096;

/// Right headers of both versions.
fn headers() -> Vec<Vec<u8>> {
    let v2 = |fixed: &[u8; 4], body: &[u8]| [SIGNATURE, fixed, body].concat();
    vec![
        b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::9 ::1 9 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(b"\x21\x11\0\x0c", b"aaaabbbbccdd"),
        v2(b"\x21\x11\0\x1f", b"aaaabbbbccdd\x01\0\x02h2\x20\0\x0b\x01\0\0\0\0\x22\0\x03abc"),
        v2(b"\x21\x21\0\x24", &[7; 36]),
        v2(b"\x20\0\0\0", b""),
        v2(b"\x21\0\0\x07", b"\x03\0\x04abcd"), // a wrong checksum
    ]
}

/// One change of a header: a byte set, inserted, or all from there on dropped.
fn change() -> impl Strategy<Value = (prop::sample::Index, u8, u8)> {
    (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8)
}

fn changed(header: usize, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut data = headers()[header].clone();
    for (at, byte, kind) in changes {
        let at = at.index(data.len() + 1);
        match kind {
            0 if at < data.len() => data[at] = *byte,
            1 => data.insert(at, *byte),
            _ => data.truncate(at),
        }
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    /// A prefix of the bytes is incomplete, or says what all of them say; and no length is beyond the data.
    #[test]
    fn a_header_is_judged_alike_however_it_is_cut(
        header in 0..headers().len(),
        changes in prop::collection::vec(change(), 0..4),
        after in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let data = [changed(header, &changes), after].concat();
        let all = ProxyHeader::parse(&data);
        if let Ok(Some((_, length))) = &all {
            prop_assert!(*length <= data.len().min(LONGEST));
            prop_assert_eq!(&ProxyHeader::parse(&data[..*length]), &all);
        }
        for cut in 0..data.len() {
            match ProxyHeader::parse(&data[..cut]) {
                Ok(None) => prop_assert!(cut < LONGEST, "it asks for more than is ever taken"),
                Err(_) => prop_assert!(all.is_err()),
                found => prop_assert_eq!(&found, &all),
            }
        }
    }

    /// All that a header tells can be asked for, whatever it holds.
    #[test]
    fn what_a_header_tells_can_be_asked_for(body in prop::collection::vec(any::<u8>(), 0..60), family in any::<u8>()) {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        let data = [SIGNATURE, &[0x21, family], &length, &body].concat();
        if let Ok(Some((header, _))) = ProxyHeader::parse(&data) {
            let _ = (header.client(), header.destination(), header.authority(), header.unique_id(), header.alpn());
            let _ = header.tls().map(|tls| (tls.is_verified(), tls.version(), tls.cipher(), tls.common_name()));
            prop_assert!(header.tlvs().map(|(_, value)| value.len() + 3).sum::<usize>() <= body.len());
        }
    }
}
