//! How many requests were answered, by method and kind of answer.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{Method, StatusCode};

/// The methods that are counted apart; all others count as the last one.
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "other"];
/// Kinds of status codes, by their first digit.
const KINDS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a request is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The bytes of a state.
    State,
    /// A message of another replica's session.
    Sync,
    /// Anything else.
    Other,
}

impl Target {
    const NAMES: [&str; 3] = ["state", "sync", "other"];

    /// What a path is of.
    pub fn of(path: &str) -> Self {
        let below = path.strip_prefix("/v1/ns/");
        let within = below.and_then(|rest| rest.split_once('/'));
        match within.map(|(_, rest)| rest) {
            Some(rest) if rest.starts_with("states/") => Self::State,
            Some(rest) if rest.starts_with("sync/") => Self::Sync,
            _ => Self::Other,
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub struct Requests([[[AtomicU64; KINDS.len()]; METHODS.len()]; Target::NAMES.len()]);

/// One count that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// `state`, `sync` or `other`.
    pub target: &'static str,
    /// The method.
    pub method: &'static str,
    /// `2xx` and so on.
    pub code: &'static str,
    /// How many.
    pub requests: u64,
}

impl Requests {
    /// Counts an answer.
    pub fn add(&self, target: Target, method: &Method, status: StatusCode) {
        let known = METHODS.iter().position(|known| *known == method.as_str());
        let method = known.unwrap_or(METHODS.len() - 1);
        let kind = usize::from(status.as_u16() / 100).clamp(1, KINDS.len()) - 1;
        self.0[target as usize][method][kind].fetch_add(1, Ordering::Relaxed);
    }

    /// Every count that is not zero.
    pub fn counts(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for (of_target, target) in self.0.iter().zip(Target::NAMES) {
            for (of_method, method) in of_target.iter().zip(METHODS) {
                for (count, code) in of_method.iter().zip(KINDS) {
                    let requests = count.load(Ordering::Relaxed);
                    if requests > 0 {
                        counts.push(Count {
                            target,
                            method,
                            code,
                            requests,
                        });
                    }
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_what_was_asked() {
        let (requests, strange) = (Requests::default(), Method::TRACE);
        for (path, target) in [
            ("/v1/ns/eu/states/match/1", Target::State),
            ("/v1/ns/eu/states", Target::Other),
            ("/v1/ns/eu/sync/open", Target::Sync),
            ("/v1/ns/states/states/x", Target::State),
            ("/v1/stats", Target::Other),
            ("/", Target::Other),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
        requests.add(Target::State, &Method::PUT, StatusCode::CREATED);
        requests.add(Target::State, &Method::PUT, StatusCode::OK);
        requests.add(Target::Other, &strange, StatusCode::NOT_FOUND);
        let counts = requests.counts().into_iter();
        let counts: Vec<_> = counts
            .map(|c| (c.target, c.method, c.code, c.requests))
            .collect();
        let expected = [("state", "PUT", "2xx", 2), ("other", "other", "4xx", 1)];
        assert_eq!(counts, expected);
    }
}
