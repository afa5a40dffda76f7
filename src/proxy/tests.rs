//! The parser, by every prefix of right headers, and by wrong ones with their reasons.

use super::parse::{parse, ProxyError, LONGEST};
use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
}

/// Addresses 198.51.100.3:4242 and 192.0.2.1:443, and these TLVs.
fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[198, 51, 100, 3, 192, 0, 2, 1, 0x10, 0x92, 1, 0xBB], tlvs].concat())
}

/// The same, with a checksum in the last TLV.
fn with_checksum(tlvs: &[u8]) -> Vec<u8> {
    let mut header = tcp4(&[tlvs, &tlv(0x03, &[0; 4])].concat());
    let sum = crc32c::of(&[&header]).to_be_bytes();
    let end = header.len();
    header[end - 4..].copy_from_slice(&sum);
    header
}

fn right_headers() -> Vec<Vec<u8>> {
    let mut six = vec![0; 36];
    (six[0], six[1], six[15], six[31], six[33], six[34]) = (0x20, 0x01, 9, 1, 7, 1);
    vec![
        b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n".to_vec(),
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::9 ::1 9 443\r\n".to_vec(),
        format!("PROXY TCP6 {0} {0} 65535 65535\r\n", ["ffff"; 8].join(":")).into_bytes(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f any thing \xff\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16)).into_bytes(),
        tcp4(&[]),
        tcp4(&[tlv(0x04, b"ab"), tlv(0x01, b"h2"), tlv(0x04, b"")].concat()),
        with_checksum(&tlv(0x05, b"unique")),
        v2(0x21, 0x21, &six),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[0; 12]),
        v2(0x20, 0x11, b""),
        v2(0x20, 0xFF, &tlv(0x04, b"x")),
        v2(0x21, 0x31, &[0; 216]),
        v2(0x21, 0x00, &tlv(0x04, b"x")),
        v2(0x21, 0x12, &[1; 12]),
        tcp4(&tlv(0x04, &vec![0; LONGEST - 16 - 12 - 3])),
    ]
}

fn whole(data: &[u8]) -> (ProxyHeader, usize) {
    parse(data).unwrap().unwrap_or_else(|| panic!("not whole: {data:?}"))
}

#[test]
fn a_header_ends_where_it_ends() {
    for header in right_headers() {
        let alone = whole(&header);
        assert_eq!(alone.1, header.len(), "{header:?}");
        for after in [&b"GET / HTTP/1.1\r\n"[..], b"\r\n", b"\0", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n"] {
            assert_eq!(whole(&[&header, after].concat()), alone, "{after:?} after {header:?}");
        }
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(None), "{cut} bytes of {header:?}");
        }
    }
}

#[test]
fn addresses_are_those_of_the_client_and_of_the_proxy() {
    for (header, client, destination) in [
        (&b"PROXY TCP4 192.0.2.7 127.0.0.1 56324 443\r\n"[..], "192.0.2.7:56324", "127.0.0.1:443"),
        (b"PROXY TCP6 2001:db8::9 ::1 9 443\r\n", "[2001:db8::9]:9", "[::1]:443"),
        (&tcp4(&[]), "198.51.100.3:4242", "192.0.2.1:443"),
        (&right_headers()[11], "[2001::9]:7", "[::1]:256"),
    ] {
        let (header, _) = whole(header);
        assert_eq!(header.client(), client.parse().ok());
        assert_eq!(header.destination(), destination.parse().ok());
        assert!(!header.is_local());
    }
    for nobody in [&b"PROXY UNKNOWN\r\n"[..], &v2(0x20, 0x11, &[1; 12]), &v2(0x21, 0x31, &[1; 216])] {
        let (header, _) = whole(nobody);
        assert_eq!((header.client(), header.destination()), (None, None));
    }
    assert_eq!([&b"PROXY UNKNOWN\r\n"[..], &tcp4(&[])].map(|data| whole(data).0.version()), [1, 2]);
    for block in [&b""[..], b"neither addresses nor TLVs", &[0xff; 300]] {
        for family in [0, 0x11, 0x75] {
            let (header, length) = whole(&v2(0x20, family, block));
            assert!(
                header.is_local() && length == 16 + block.len(),
                "the proxy's own block is skipped, whatever it has"
            );
        }
    }
}

#[test]
fn common_tlvs_have_names() {
    let of_tls = [tlv(0x21, b"TLSv1.3"), tlv(0x22, "J\u{fc}rgen".as_bytes()), tlv(0x23, b"AES")].concat();
    let tls = tlv(0x20, &[&[0x05, 0, 0, 0, 0], &of_tls[..]].concat());
    let all = [tlv(0x01, b"h2"), tlv(0x02, b"example.org"), tlv(0x05, b"\xff1"), tls, tlv(0xEA, b"own")].concat();
    let (header, _) = whole(&with_checksum(&all));
    assert_eq!(header.alpn(), Some(&b"h2"[..]));
    assert_eq!(header.authority(), Some("example.org"));
    assert_eq!(header.unique_id(), Some(&b"\xff1"[..]));
    assert_eq!(header.tlv(0xEA), Some(&b"own"[..]));
    assert_eq!(header.tlvs().map(|(kind, _)| kind).collect::<Vec<_>>(), [0x01, 0x02, 0x05, 0x20, 0xEA, 0x03]);
    let tls = header.tls().unwrap();
    assert!(tls.is_used() && tls.has_certificate() && tls.is_verified());
    assert_eq!((tls.version(), tls.cipher(), tls.common_name()), (Some("TLSv1.3"), Some("AES"), Some("J\u{fc}rgen")));

    let of = |value: &[u8]| whole(&tcp4(&tlv(0x20, value))).0;
    assert!(!of(&[0x03, 0, 0, 0, 1]).tls().unwrap().is_verified(), "the verification has failed");
    assert!(!of(&[0x01, 0, 0, 0, 0]).tls().unwrap().is_verified(), "no certificate is none that is verified");
    assert_eq!(whole(&tcp4(&tlv(0x02, b"\xff"))).0.authority(), None, "no UTF-8");
    assert!(whole(b"PROXY UNKNOWN\r\n").0.tls().is_none());
}

#[track_caller]
fn assert_refused(data: &[u8], reason: ProxyError) {
    assert_eq!(parse(data), Err(reason), "{}", data.escape_ascii());
}

#[test]
fn a_malformed_line_is_refused_with_its_reason() {
    use ProxyError::*;
    for (reason, data) in [
        (Signature, &b"GET / HTTP/1.0\r\n\r\n"[..]),
        (Signature, b"PROXX"),
        (Signature, b"PROXYxTCP4 1.2.3.4 127.0.0.1 1 2\r\n"),
        (Signature, b"\r\n\r\n\0\r\nQUIX"),
        (Signature, b"\n"),
        (Signature, b"\x16\x03\x01"),
        (Family, b"PROXY WUT "),
        (Family, b"PROXY TCP5"),
        (Family, b"PROXY UNKNOWNxyz\r\n"),
        (Family, b"PROXY tcp4 1.2.3.4 127.0.0.1 1 2\r\n"),
        (Family, b"PROXY  TCP4 1.2.3.4 127.0.0.1 1 2\r\n"),
        (Family, b"PROXY \r\n"),
        (Words, b"PROXY TCP4\r\n"),
        (Words, b"PROXY TCP4 1.2.3.4 127.0.0.1 1\r\n"),
        (Words, b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2 \r\n"),
        (Words, b"PROXY TCP4 1.2.3.4  127.0.0.1 1 2\r\n"),
        (Address, b"PROXY TCP4 999.1.1.1 127.0.0.1 1 2\r\n"),
        (Address, b"PROXY TCP4 01.1.1.1 127.0.0.1 1 2\r\n"),
        (Address, b"PROXY TCP4 ::1 ::1 1 2\r\n"),
        (Address, b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n"),
        (Address, b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
        (Address, b"PROXY TCP4 1.2.3.4 \xff 1 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 80x 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 +8 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 08 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 00 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 65536 2\r\n"),
        (Port, b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2\r\r\n"),
        (LineEnd, b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2\n"),
        (LineEnd, b"PROXY UNKNOWN a\nb\r\n"),
        (LineTooLong, format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15)).as_bytes()),
        (LineTooLong, format!("PROXY TCP4 {}", "1".repeat(107)).as_bytes()),
    ] {
        assert_refused(data, reason);
    }
}

#[test]
fn a_malformed_header_of_version_2_is_refused_with_its_reason() {
    use ProxyError::*;
    let mut wrong_sum = with_checksum(&[]);
    wrong_sum[16] ^= 1;
    let too_long = vec![0; LONGEST - 16 + 1];
    for (reason, data) in [
        (Version, &[SIGNATURE, &[0x11]].concat()[..]),
        (Version, &[SIGNATURE, &[0x31]].concat()),
        (Command, &[SIGNATURE, &[0x22]].concat()),
        (Family, &[SIGNATURE, &[0x21, 0x41]].concat()),
        (Family, &[SIGNATURE, &[0x21, 0x13]].concat()),
        (TooLong, &v2(0x21, 0x11, &too_long)[..16]),
        (TooShort, &v2(0x21, 0x11, &[0; 11])),
        (TooShort, &v2(0x21, 0x21, &[0; 35])),
        (TooShort, &v2(0x21, 0x31, &[0; 215])),
        (Tlv, &tcp4(b"x")),
        (Tlv, &tcp4(b"\x04\0")),
        (Tlv, &tcp4(b"\x04\0\x09ab")),
        (Tlv, &tcp4(&tlv(0x20, &[0; 4]))),
        (Tlv, &tcp4(&tlv(0x20, b"\x01\0\0\0\0\x22\0\x09ab"))),
        (Tlv, &tcp4(&tlv(0x03, b"abc"))),
        (Tlv, &tcp4(&tlv(0x05, &[0; 129]))),
        (Checksum, &tcp4(&tlv(0x03, b"abcd"))),
        (Checksum, &wrong_sum),
    ] {
        assert_refused(data, reason);
    }
}
