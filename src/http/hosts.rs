//! By which names requests may call a replica. A page of a site whose name its owner lets point at this
//! machine (DNS rebinding) is of the same origin as the replica for the browser that shows it, and could read
//! and write everything here. What gives it away is the name in its requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::HOST;

/// Stands for every name.
const ANY: &str = "*";

/// The names that a replica goes by.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Option<Arc<[String]>>);

impl Hosts {
    /// Of a replica that listens on `address`. Addresses and `localhost` are always taken, since nobody can
    /// let them point elsewhere. Other names are all taken where none are `allowed` and the replica can be
    /// reached from other machines: there it goes by names that it does not know.
    pub fn of(address: SocketAddr, allowed: &[String]) -> Self {
        let is_open = allowed.is_empty() && !address.ip().is_loopback();
        let takes_any = is_open || allowed.iter().any(|name| name == ANY);
        Self((!takes_any).then(|| allowed.into()))
    }

    /// True when a request calls the replica by one of its names, or by none.
    pub fn take(&self, request: &Request) -> bool {
        let Some(allowed) = &self.0 else {
            return true;
        };
        authority(request).is_none_or(|authority| {
            let name = without_port(authority);
            is_own(name)
                || allowed
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(name))
        })
    }
}

/// What a request calls the replica: host, and port if it is not the usual one. Nothing that can be read
/// is the empty name.
pub fn authority(request: &Request) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let host = request.headers().get(HOST)?;
    Some(host.to_str().unwrap_or_default())
}

fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    let name = authority.split(':').next().unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name)
}

fn is_own(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// True when a name can stand in the list of those that are taken.
pub fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text == ANY || (!text.is_empty() && text.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn taken(hosts: &Hosts, host: &str) -> bool {
        let request = Request::get("/v1/ns").header(HOST, host);
        hosts.take(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn on_loopback_only_names_that_nobody_else_can_point_here_are_taken() {
        let hosts = Hosts::of(([127, 0, 0, 1], 7400).into(), &[]);
        for own in [
            "127.0.0.1:7400",
            "127.0.0.1",
            "[::1]:7400",
            "10.0.0.7:80",
            "localhost:7400",
            "LOCALHOST",
            "eu.localhost:7400",
            "localhost.:7400",
        ] {
            assert!(taken(&hosts, own), "{own}");
        }
        for other in [
            "evil.example:7400",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7400",
            "eu-1:7400",
            "",
        ] {
            assert!(!taken(&hosts, other), "{other}");
        }
        let nameless = Request::get("/v1/ns").body(Body::empty()).unwrap();
        assert!(hosts.take(&nameless), "browsers always name the host");
        let absolute = Request::get("http://evil.example/v1/ns").header(HOST, "localhost");
        assert!(!hosts.take(&absolute.body(Body::empty()).unwrap()));
    }

    #[test]
    fn names_are_taken_where_they_are_set_and_where_the_replica_cannot_know_them() {
        let (loopback, other) = (([127, 0, 0, 1], 1).into(), ([0, 0, 0, 0], 1).into());
        assert!(taken(&Hosts::of(other, &[]), "eu-1:7400"));
        let set = ["eu-1".to_owned()];
        for address in [loopback, other] {
            let hosts = Hosts::of(address, &set);
            assert!(taken(&hosts, "EU-1:7400") && taken(&hosts, "localhost"));
            assert!(!taken(&hosts, "evil.example:7400"));
            assert!(taken(
                &Hosts::of(address, &["*".to_owned()]),
                "evil.example"
            ));
        }
    }
}
