//! Content codings of states (RFC 9110 section 8.4): zstd, and zstd with another version of the state
//! as dictionary (`dcz`, RFC 9842).

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, RANGE};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::delta::compress::{compress, looks_incompressible};
use crate::delta::dcz;
use crate::http::problem::Problem;
use crate::types::hash::ContentHash;

/// The dictionary that a client holds, as a structured byte sequence with its SHA-256.
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");
/// Shorter states gain nothing.
const CODED_MIN: u64 = 256;
/// Keeps up with a gigabit link on one core.
const LEVEL: i32 = 3;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// The bytes as they are.
    Identity,
    /// One zstd frame.
    Zstd,
    /// One zstd frame with a dictionary.
    Dcz,
}

impl Coding {
    /// Its name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Dcz => "dcz",
        }
    }

    /// The coding of a request's body.
    ///
    /// # Errors
    /// [`Problem`] `unsupported_content_encoding` when it is one that is not known, or several.
    pub fn of_body(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(coding) = headers.get(CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        let named = coding.as_bytes().to_ascii_lowercase();
        let known = [Self::Identity, Self::Zstd, Self::Dcz].into_iter();
        let mut known = known.filter(|known| known.name().as_bytes() == named);
        known.next().ok_or_else(|| {
            Self::unsupported("send the state as it is, or with Content-Encoding: zstd")
        })
    }

    /// The problem told when a body has another coding than can be used.
    pub fn unsupported(detail: &str) -> Problem {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_content_encoding",
            detail,
        )
    }
}

/// What a reader takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    zstd: bool,
    /// The dictionary that it holds and takes deltas against.
    pub dictionary: Option<ContentHash>,
}

impl Accepted {
    /// What a request says. Ranges are always ranges of the bytes as they are.
    pub fn of_request(headers: &HeaderMap, size: u64) -> Self {
        if headers.contains_key(RANGE) || size < CODED_MIN {
            return Self::default();
        }
        let takes_dcz = takes(headers, "dcz");
        Self {
            zstd: takes(headers, "zstd"),
            dictionary: dictionary(headers).filter(|_| takes_dcz),
        }
    }

    /// Brings a state into the smallest form that the reader takes, `base` being the dictionary that
    /// it holds, if that is held here, too.
    pub fn encode(self, base: Option<&[u8]>, bytes: Vec<u8>) -> (Coding, Vec<u8>) {
        if let (Some(base), Some(hash)) = (base, self.dictionary) {
            let delta = dcz::encode(base, &hash.0, &bytes);
            if let Some(delta) = delta.ok().filter(|delta| delta.len() < bytes.len()) {
                return (Coding::Dcz, delta);
            }
        }
        if self.zstd && !looks_incompressible(&bytes) {
            let frame = compress(&bytes, LEVEL);
            if let Some(frame) = frame.ok().filter(|frame| frame.len() < bytes.len()) {
                return (Coding::Zstd, frame);
            }
        }
        (Coding::Identity, bytes)
    }
}

/// True when `Accept-Encoding` names this coding, and not with a weight of 0.
fn takes(headers: &HeaderMap, coding: &str) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    let mut listed = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    listed.any(|entry| {
        let (name, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case(coding) && !matches!(weight, Some(Ok(0.0)))
    })
}

/// The hash in `Available-Dictionary: :BASE64:`.
fn dictionary(headers: &HeaderMap) -> Option<ContentHash> {
    let text = headers.get(AVAILABLE_DICTIONARY)?.to_str().ok()?.trim();
    let encoded = text.strip_prefix(':')?.strip_suffix(':')?;
    let hash = STANDARD.decode(encoded).ok()?;
    Some(ContentHash(hash.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn codings_are_taken_when_named_and_not_ruled_out() {
        for (line, zstd) in [
            ("zstd", true),
            ("gzip, br;q=0.5 , ZSTD;q=0.1", true),
            ("zstd;q=0", false),
            ("zstd;q=0.000", false),
            ("zstandard, gzip", false),
            ("*", false),
        ] {
            let accepted = Accepted::of_request(&headers(&[(ACCEPT_ENCODING, line)]), 1000);
            assert_eq!(accepted.zstd, zstd, "{line}");
        }
        let whole = headers(&[(ACCEPT_ENCODING, "zstd")]);
        assert_eq!(Accepted::of_request(&whole, 10), Accepted::default());
        let part = headers(&[(ACCEPT_ENCODING, "zstd"), (RANGE, "bytes=0-9")]);
        assert_eq!(Accepted::of_request(&part, 1000), Accepted::default());
    }

    #[test]
    fn a_dictionary_counts_only_whole_and_with_its_coding() {
        const HASH: &str = ":AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        let dictionary = |coding, hash| {
            let headers = headers(&[(ACCEPT_ENCODING, coding), (AVAILABLE_DICTIONARY, hash)]);
            Accepted::of_request(&headers, 1000).dictionary
        };
        assert_eq!(dictionary("dcz", HASH), Some(ContentHash([0; 32])));
        assert_eq!(dictionary("zstd", HASH), None);
        for bad in ["", "::", ":AAAA:", &HASH[1..], "AAAA"] {
            assert_eq!(dictionary("dcz", bad), None, "{bad}");
        }
    }
}
