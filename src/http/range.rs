//! Single byte ranges (RFC 9110 section 14).

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};

/// Which bytes of a representation a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// All of them. Also what several or malformed ranges come to, as the RFC allows.
    Whole,
    /// These.
    Part(Range<u64>),
    /// None that exist.
    Outside,
}

/// What `Range` asks for of a representation of `size` bytes with this entity tag.
pub fn of_request(headers: &HeaderMap, size: u64, etag: &str) -> Span {
    // A part is of use only together with the other parts that the client has.
    let same = headers.get(IF_RANGE).is_none_or(|tag| tag == etag);
    let range = headers.get(RANGE).filter(|_| same);
    let span = range.and_then(|range| parse(range.to_str().ok()?, size));
    span.unwrap_or(Span::Whole)
}

fn parse(text: &str, size: u64) -> Option<Span> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(number(last)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    let part = start..end;
    Some(if part.is_empty() {
        Span::Outside
    } else {
        Span::Part(part)
    })
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn ranges() {
        for (given, expected) in [
            ("bytes=0-0", Span::Part(0..1)),
            ("bytes=2-", Span::Part(2..10)),
            ("bytes=-3", Span::Part(7..10)),
            ("bytes=-30", Span::Part(0..10)),
            ("bytes=5-99999999999999999999999", Span::Part(5..10)),
            ("bytes=10-", Span::Outside),
            ("bytes=-0", Span::Outside),
            ("bytes=5-4", Span::Whole),
            ("bytes=0-1,4-5", Span::Whole),
            ("bytes=+1-2", Span::Whole),
            ("bytes=-", Span::Whole),
            ("lines=0-1", Span::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static(given));
            assert_eq!(of_request(&headers, 10, "\"e\""), expected, "{given}");
            headers.insert(IF_RANGE, HeaderValue::from_static("\"other\""));
            assert_eq!(of_request(&headers, 10, "\"e\""), Span::Whole, "{given}");
        }
    }
}
