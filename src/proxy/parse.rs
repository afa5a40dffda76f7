//! The parser: what the bytes so far mean. It takes any beginning of a header, so the bytes may come in any
//! pieces.
//!
//! It is exact. Whatever the format does not allow is refused, as soon as the bytes so far show it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::crc32c;
use super::header::ProxyHeader;
use super::tlv;

/// The longest header of version 2 that is taken, in bytes. nginx and HAProxy send much less.
pub(crate) const LONGEST: usize = 4096;
/// The longest line of version 1, in bytes, with its end.
const LONGEST_LINE: usize = 107;
/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// Why a header of the PROXY protocol was refused. The connection was closed without a handler. The error
/// stands inside the [`std::io::Error`] of [`Failure::Greeting`](crate::Failure::Greeting).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyError {
    /// The connection begins with something else: the signature of neither version.
    Signature,
    /// Version 1: no line end within 107 bytes.
    LineTooLong,
    /// Version 1: the line does not end in CR LF.
    LineEnd,
    /// An unknown address family or transport.
    Family,
    /// Version 1: not two addresses and two ports, with one space between them.
    Words,
    /// Version 1: an address that is none of its family.
    Address,
    /// Version 1: a port that is no plain number up to 65535.
    Port,
    /// Version 2: an unknown version.
    Version,
    /// Version 2: a command that is neither LOCAL nor PROXY.
    Command,
    /// Version 2: more than 4096 bytes.
    TooLong,
    /// Version 2: the length leaves no room for the addresses.
    TooShort,
    /// Version 2: a TLV that is cut off, or has an impossible length.
    Tlv,
    /// Version 2: the checksum (CRC-32C) is wrong.
    Checksum,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "no PROXY header: the connection begins with something else",
            Self::LineTooLong => "malformed PROXY header: no line end within 107 bytes",
            Self::LineEnd => "malformed PROXY header: the line does not end in CR LF",
            Self::Family => "malformed PROXY header: an unknown address family or transport",
            Self::Words => "malformed PROXY header: not two addresses and two ports",
            Self::Address => "malformed PROXY header: no address of its family",
            Self::Port => "malformed PROXY header: no port number",
            Self::Version => "malformed PROXY header: an unknown version",
            Self::Command => "malformed PROXY header: an unknown command",
            Self::TooLong => "malformed PROXY header: more than 4096 bytes",
            Self::TooShort => "malformed PROXY header: too short for its addresses",
            Self::Tlv => "malformed PROXY header: a TLV of a wrong length",
            Self::Checksum => "malformed PROXY header: a wrong checksum",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Parses what has come so far. `Some` is the header, and its length. `None`: all so far belongs to the
/// header, and more must come.
pub(super) fn parse(data: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    match data.first() {
        None => Ok(None),
        Some(b'P') => v1(data),
        Some(_) => v2(data),
    }
}

fn v1(data: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let Some(end) = data.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        check_beginning(data)?;
        return if data.len() < LONGEST_LINE { Ok(None) } else { Err(ProxyError::LineTooLong) };
    };
    let line = &data[..=end];
    let rest = line.strip_prefix(b"PROXY ").ok_or(ProxyError::Signature)?;
    let rest = rest.strip_suffix(b"\r\n").ok_or(ProxyError::LineEnd)?;
    let addresses = match rest {
        b"UNKNOWN" => None,
        // The format says that a receiver ignores what follows.
        _ if rest.starts_with(b"UNKNOWN ") => None,
        _ => Some(addresses_of_line(rest)?),
    };
    let header = ProxyHeader {
        version: 1,
        is_local: false,
        addresses,
        tlvs: Box::default(),
        proxy: None,
        waited: Duration::ZERO,
    };
    Ok(Some((header, line.len())))
}

/// Checks a line without an end as far as it goes. A client that speaks something else is refused at once, and
/// not at the time limit.
fn check_beginning(data: &[u8]) -> Result<(), ProxyError> {
    let agrees = |with: &[u8]| data.iter().zip(with).all(|(a, b)| a == b);
    if !agrees(b"PROXY ") {
        return Err(ProxyError::Signature);
    }
    let begins = [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r"].into_iter().any(agrees);
    begins.then_some(()).ok_or(ProxyError::Family)
}

fn addresses_of_line(rest: &[u8]) -> Result<(SocketAddr, SocketAddr), ProxyError> {
    let mut words = rest.split(|byte| *byte == b' ');
    let parse: fn(&str) -> Option<IpAddr> = match words.next() {
        Some(b"TCP4") => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some(b"TCP6") => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(ProxyError::Family),
    };
    let words: Vec<_> = words.collect();
    let [client, destination, client_port, destination_port] = words[..] else { return Err(ProxyError::Words) };
    let ip = |word| std::str::from_utf8(word).ok().and_then(parse).ok_or(ProxyError::Address);
    let (client, destination) = (ip(client)?, ip(destination)?);
    Ok((SocketAddr::new(client, port(client_port)?), SocketAddr::new(destination, port(destination_port)?)))
}

/// Reads a port. Rust's own parser also takes `+8` and `08`.
fn port(word: &[u8]) -> Result<u16, ProxyError> {
    let is_plain = word.iter().all(u8::is_ascii_digit) && (word == b"0" || !word.starts_with(b"0"));
    let text = std::str::from_utf8(word).ok().filter(|_| is_plain);
    text.and_then(|text| text.parse().ok()).ok_or(ProxyError::Port)
}

fn v2(data: &[u8]) -> Result<Option<(ProxyHeader, usize)>, ProxyError> {
    let is_local = match check_fixed(data)? {
        Some(is_local) if data.len() >= FIXED => is_local,
        _ => return Ok(None),
    };
    let (family, length) = (data[13], FIXED + usize::from(u16::from_be_bytes([data[14], data[15]])));
    if length > LONGEST {
        return Err(ProxyError::TooLong);
    }
    let needed = FIXED + length_of_addresses(family);
    if needed > length && !is_local {
        return Err(ProxyError::TooShort);
    }
    let Some(whole) = data.get(..length) else { return Ok(None) };
    // A proxy that speaks for itself may leave the addresses out, whatever family it names.
    let tlvs = whole.get(needed..).unwrap_or_default();
    // What follows its command is not to be judged (section 2.2 of the format).
    let tlvs = if is_local && tlv::check(tlvs).is_err() { &[] } else { tlvs };
    tlv::check(tlvs)?;
    check_sum(whole, tlvs)?;
    let addresses = if is_local { None } else { addresses_of(family, &whole[FIXED..needed]) };
    let (tlvs, proxy, waited) = (tlvs.into(), None, Duration::ZERO);
    Ok(Some((ProxyHeader { version: 2, is_local, addresses, tlvs, proxy, waited }, length)))
}

/// Checks the bytes before the length, as far as they have come. Returns whether the command is LOCAL.
fn check_fixed(data: &[u8]) -> Result<Option<bool>, ProxyError> {
    if data.iter().zip(SIGNATURE).any(|(a, b)| a != b) {
        return Err(ProxyError::Signature);
    }
    let is_local = match data.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(byte) if byte >> 4 != 2 => return Err(ProxyError::Version),
        Some(_) => return Err(ProxyError::Command),
    };
    match data.get(13) {
        Some(byte) if !is_local && (byte >> 4 > 3 || byte & 0x0F > 2) => Err(ProxyError::Family),
        _ => Ok(Some(is_local)),
    }
}

fn length_of_addresses(family: u8) -> usize {
    match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    }
}

/// Returns the client and the destination. `None` for datagrams, Unix sockets and what the proxy does not
/// know: then the real peer stays.
fn addresses_of(family: u8, bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    fn ip<const N: usize>(bytes: &[u8]) -> Option<IpAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        <[u8; N]>::try_from(bytes).ok().map(IpAddr::from)
    }
    let (client, destination, ports) = match family {
        0x11 => (ip::<4>(bytes.get(..4)?)?, ip::<4>(bytes.get(4..8)?)?, bytes.get(8..)?),
        0x21 => (ip::<16>(bytes.get(..16)?)?, ip::<16>(bytes.get(16..32)?)?, bytes.get(32..)?),
        _ => return None,
    };
    let [a, b, c, d] = ports.try_into().ok()?;
    let (client_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Some((SocketAddr::new(client, client_port), SocketAddr::new(destination, destination_port)))
}

/// Checks the checksum, if there is one. It is that of the whole header, with zeroes in its own place.
fn check_sum(whole: &[u8], tlvs: &[u8]) -> Result<(), ProxyError> {
    let Some(sum) = tlv::find(tlvs, tlv::CRC32C) else { return Ok(()) };
    let place = sum.as_ptr() as usize - whole.as_ptr() as usize;
    let (before, after) = (&whole[..place], &whole[place + sum.len()..]);
    if crc32c::of(&[before, &[0; 4], after]).to_be_bytes() == sum {
        Ok(())
    } else {
        Err(ProxyError::Checksum)
    }
}
