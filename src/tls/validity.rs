//! The time in which a certificate is valid, read from its DER (RFC 5280, section 4.1).
//!
//! rustls checks the certificates of peers, and takes its own as they are. A server with an expired certificate would
//! start, and every client would refuse it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Returns the first and the last moment of a certificate; `None` if it is malformed.
pub(super) fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (to_be_signed, _) = expect(certificate, SEQUENCE)?;
    // The version stands there from version 2 on.
    let rest = expect(to_be_signed, VERSION).map_or(to_be_signed, |(_, rest)| rest);
    let (_serial, rest) = expect(rest, INTEGER)?;
    let (_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (from, validity) = time(validity)?;
    let (to, _) = time(validity)?;
    Some((from, to))
}

/// Splits the first element off. Returns its tag, its contents, and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = split_at(rest, usize::from(first & 0x7f).min(9))?;
        let len = bytes.iter().try_fold(0usize, |len, byte| Some(len.checked_mul(256)? + usize::from(*byte)))?;
        (len, rest)
    };
    let (contents, rest) = split_at(rest, len)?;
    Some((tag, contents, rest))
}

fn split_at(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..len)?, bytes.get(len..)?))
}

fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(tag, ..)| *tag == wanted).map(|(_, contents, rest)| (contents, rest))
}

/// Reads a time: `YYMMDDHHMMSSZ`, or with four digits of the year.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (tag, text, rest) = element(der)?;
    let pairs: Vec<u64> = text
        .strip_suffix(b"Z")?
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok()?.parse().ok())
        .collect::<Option<_>>()?;
    let (year, pairs) = match tag {
        UTC_TIME => {
            let (&year, pairs) = pairs.split_first()?;
            (year + if year < 50 { 2000 } else { 1900 }, pairs)
        }
        GENERALIZED_TIME => {
            let (&[century, year], pairs) = pairs.split_first_chunk::<2>()?;
            (century * 100 + year, pairs)
        }
        _ => return None,
    };
    let &[month @ 1..=12, day @ 1..=31, hour, minute, second] = pairs else { return None };
    let since = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some((UNIX_EPOCH + Duration::from_secs(since), rest))
}

/// Returns the days since 1970; `None` for a day before it.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // The year begins with March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    (year * 365 + leap_days + (month * 153 + 2) / 5 + day).checked_sub(719_469)
}

/// Writes a moment as a day, for people: `2026-05-17`.
pub(super) fn day(at: SystemTime) -> String {
    let days = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    let is_after = |(year, month)| self::days(year, month, 1).is_some_and(|first| first > days);
    let year = (1970..9999).find(|year| is_after((year + 1, 1))).unwrap_or(9999);
    let month = (1..12).find(|month| is_after((year, month + 1))).unwrap_or(12);
    let first = self::days(year, month, 1).unwrap_or(0);
    format!("{year}-{month:02}-{:02}", days.saturating_sub(first) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tag: u8, text: &str) -> Option<u64> {
        let der = [&[tag, text.len() as u8][..], text.as_bytes()].concat();
        time(&der).map(|(at, _)| at.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_read_as_the_standard_says() {
        assert_eq!(at(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(at(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(at(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(at(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for wrong in ["", "Z", "7001010000Z", "701301000000Z", "700101000000", "70010100000xZ", "500101000000+0100"] {
            assert_eq!(at(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn days_are_written_as_they_are_read() {
        for (secs, text) in [(0, "1970-01-01"), (951_825_600, "2000-02-29"), (2_524_607_999, "2049-12-31")] {
            assert_eq!(day(UNIX_EPOCH + Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let lengths = [&[0x30, 0xff][..], &[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[0x30, 0x80], &[0x30, 0x05, 1]];
        assert!(lengths.iter().all(|der| validity(der).is_none()));
        let mut bytes = vec![0x30; 64];
        for n in 0..bytes.len() {
            bytes[n] = n as u8;
            assert!(validity(&bytes).is_none());
        }
    }
}
