//! Where a peer is.

use std::fmt;

use reqwest::Url;

use crate::runtime::peering::PeeringError;
use crate::types::id::Namespace;

/// The base URL of a samestate server, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress(String);

impl PeerAddress {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`PeeringError::BadUrl`] unless it is an `http://` URL with a host, without credentials
    /// and without query.
    pub fn parse(text: &str) -> Result<Self, PeeringError> {
        let bad = || PeeringError::BadUrl(text.chars().take(200).collect());
        let url = Url::parse(text).map_err(|_| bad())?;
        let plain = url.scheme() == "http" && url.host().is_some();
        let open = url.username().is_empty() && url.password().is_none();
        if !plain || !open || url.query().is_some() || url.fragment().is_some() {
            return Err(bad());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The URL of a message of the replication protocol.
    pub fn sync(&self, namespace: &Namespace, message: &str) -> String {
        format!("{}/v1/ns/{namespace}/sync/{message}", self.0)
    }

    /// The URL of something below a namespace.
    pub fn within(&self, namespace: &Namespace, path: &str) -> String {
        format!("{}/v1/ns/{namespace}/{path}", self.0)
    }

    /// The URL of the change feed.
    pub fn changes(&self, namespace: &Namespace) -> String {
        format!("{}/v1/ns/{namespace}/changes", self.0)
    }
}

/// Checks a peer's name: it follows the rule for namespaces, safe in URLs, logs and flags.
///
/// # Errors
/// [`PeeringError::BadName`].
pub fn check_name(name: &str) -> Result<(), PeeringError> {
    Namespace::new(name)
        .map(|_| ())
        .map_err(|_| PeeringError::BadName)
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_urls_are_taken() {
        let address = PeerAddress::parse("http://127.0.0.1:7400/").unwrap();
        assert_eq!(address.to_string(), "http://127.0.0.1:7400");
        for bad in [
            "",
            "127.0.0.1:7400",
            "ftp://a",
            "http://",
            "http://a?b=c",
            "http://user@a",
            "http://:secret@a",
            "file:///etc",
        ] {
            assert!(PeerAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
