//! A small HTTP client for tests, blocking and asynchronous.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::Value;

use crate::harness::process::Server;
use crate::harness::replica::runtime;

/// How long replicas may take to get where a test waits for them on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection pool for all tests.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| Client::builder().build().unwrap())
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The stable code of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request; an error when the connection breaks.
pub async fn try_send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Reply, reqwest::Error> {
    let mut request = client().request(method, url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    Ok(Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// Sends a request and waits for the answer.
pub fn send(method: Method, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let sent = runtime().block_on(try_send(method, url, headers, body));
    sent.unwrap_or_else(|error| panic!("{url}: {error:?}"))
}

/// Puts a state; the status of the answer, if there was one.
pub fn try_put(url: &str, bytes: &[u8]) -> Option<u16> {
    let sent = runtime().block_on(try_send(Method::PUT, url, &[], bytes.to_vec()));
    sent.ok().map(|reply| reply.status)
}

impl Server {
    /// The URL of a path below the default namespace.
    pub fn at(&self, path: &str) -> String {
        format!("{}/v1/ns/default/{path}", self.url)
    }

    pub fn get(&self, id: &str) -> Reply {
        send(
            Method::GET,
            &self.at(&format!("states/{id}")),
            &[],
            Vec::new(),
        )
    }

    /// Puts a state and returns the receipt.
    pub fn put(&self, id: &str, bytes: &[u8]) -> Value {
        let url = self.at(&format!("states/{id}"));
        let reply = send(Method::PUT, &url, &[], bytes.to_vec());
        assert!(matches!(reply.status, 200 | 201), "{id}: {reply:?}");
        reply.json()
    }

    pub fn delete(&self, id: &str) {
        let url = self.at(&format!("states/{id}"));
        let reply = send(Method::DELETE, &url, &[], Vec::new());
        assert_eq!(reply.status, 204, "{id}: {reply:?}");
    }

    pub fn root(&self) -> String {
        let reply = send(Method::GET, &self.at("root"), &[], Vec::new());
        reply.json()["root"].as_str().unwrap().to_owned()
    }

    pub fn count(&self) -> u64 {
        let reply = send(Method::GET, &self.at("root"), &[], Vec::new());
        reply.json()["count"].as_u64().unwrap()
    }

    /// Configures a peer at run time.
    pub fn add_peer(&self, name: &str, url: &str) {
        let body = serde_json::json!({ "url": url }).to_string();
        let at = format!("{}/v1/peers/{name}", self.url);
        let reply = send(Method::PUT, &at, &[], body.into_bytes());
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    }

    pub fn remove_peer(&self, name: &str) {
        let at = format!("{}/v1/peers/{name}", self.url);
        let reply = send(Method::DELETE, &at, &[], Vec::new());
        assert_eq!(reply.status, 204, "{reply:?}");
    }

    /// What `/v1/peers` says of a peer.
    pub fn peer(&self, name: &str) -> Value {
        let at = format!("{}/v1/peers", self.url);
        let reply = send(Method::GET, &at, &[], Vec::new()).json();
        let mut peers = reply["peers"].as_array().unwrap().iter();
        let found = peers.find(|peer| peer["name"] == name);
        found.unwrap_or_else(|| panic!("{reply}")).clone()
    }
}

/// Waits until `reached` says so; fails when that takes longer than any machine needs.
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
