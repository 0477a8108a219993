//! What the demonstration asks of one replica, over HTTP like everybody else.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MATCH};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::client::{Client, ServerUrl};
use crate::cli::demo::meter::Session;
use crate::cli::demo::recording::State;
use crate::cli::error::CliError;
use crate::types::id::{GameId, Namespace};

/// Longest time for any answer; all of them are short.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest state that is read back; the recorded ones are smaller.
const STATE_BYTES_MAX: usize = 64 << 20;

/// Talks to one replica.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
}

/// `GET /root`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Root {
    /// The Merkle root.
    pub root: String,
    /// States that are not deleted.
    pub count: u64,
    /// Their bytes.
    pub total_size: u64,
}

/// The answer to a write.
#[derive(Debug, Deserialize)]
pub struct Written {
    /// The root right after it.
    pub root: String,
}

/// A state as read back.
#[derive(Debug)]
pub struct Read {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// For `If-Match`.
    pub etag: String,
    /// How many versions it has besides the shown one.
    pub conflicts: u64,
}

/// A state with versions that did not see each other.
#[derive(Debug, Deserialize)]
pub struct Conflict {
    /// Its id.
    pub id: String,
    /// What a write that resolves it has to match.
    pub etag: String,
    /// Its versions, the shown one first.
    pub versions: Vec<ConflictVersion>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub struct ConflictVersion {
    /// Its content; none when it is a deletion.
    pub content_hash: Option<String>,
}

#[derive(Deserialize)]
struct Conflicts {
    conflicts: Vec<Conflict>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

impl Api {
    /// Talks to the replica at `url`.
    ///
    /// # Errors
    /// [`CliError::NotSamestate`] when that is no URL, [`CliError::Start`].
    pub fn new(url: &str) -> Result<Self, CliError> {
        let server: ServerUrl = url.parse().map_err(|_| CliError::NotSamestate {
            server: url.to_owned(),
            what: "it gave a malformed address".to_owned(),
        })?;
        let client = Client::new(server, Namespace::default_namespace(), None)?;
        Ok(Self { client })
    }

    /// Root and count.
    ///
    /// # Errors
    /// [`CliError`] as for all requests here.
    pub async fn root(&self) -> Result<Root, CliError> {
        self.json(self.client.request(Method::GET, "root", &[]))
            .await
    }

    /// Stores a state, if it still has the entity tag `if_match`, when one is given.
    ///
    /// # Errors
    /// [`CliError`]; whether it was stored is unknown unless the replica refused.
    pub async fn put(
        &self,
        id: &str,
        bytes: Vec<u8>,
        if_match: Option<&str>,
    ) -> Result<Written, CliError> {
        let mut request = self.state(Method::PUT, id, &[])?.body(bytes);
        if let Some(etag) = if_match {
            request = request.header(IF_MATCH, etag);
        }
        self.json(request).await
    }

    /// Stores several states in one commit.
    ///
    /// # Errors
    /// [`CliError`]; then none is stored.
    pub async fn put_all(&self, states: &[State]) -> Result<Written, CliError> {
        let lines: Vec<String> = states
            .iter()
            .map(|state| {
                let content = STANDARD.encode(&state.bytes);
                json!({"op": "put", "id": state.id, "content": content}).to_string()
            })
            .collect();
        let request = self.client.request(Method::POST, "batch", &[]);
        self.json(request.body(lines.join("\n"))).await
    }

    /// Reads a state, or a version of it by its content hash.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn get(&self, id: &str, version: Option<&str>) -> Result<Read, CliError> {
        let query: Vec<(&str, &str)> = version.iter().map(|hash| ("version", *hash)).collect();
        let request = self.state(Method::GET, id, &query)?.timeout(TIMEOUT);
        let mut response = self.client.send(request).await?;
        let headers = response.headers();
        let (etag, conflicts) = (text_of(headers, &ETAG), conflicts_of(headers));
        let mut bytes = Vec::new();
        while let Some(piece) = self.client.piece(&mut response).await? {
            if bytes.len() + piece.len() > STATE_BYTES_MAX {
                return Err(self.wrong("it answered with more than any state may have"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Read {
            bytes,
            etag: etag.ok_or_else(|| self.wrong("it answered without ETag"))?,
            conflicts: conflicts.ok_or_else(|| self.wrong("no Samestate-Conflicts header"))?,
        })
    }

    /// States in conflict.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn conflicts(&self) -> Result<Vec<Conflict>, CliError> {
        let request = self.client.request(Method::GET, "conflicts", &[]);
        let answer: Conflicts = self.json(request).await?;
        Ok(answer.conflicts)
    }

    /// Runs a session that takes over what the replica at `from` has.
    ///
    /// # Errors
    /// [`CliError::SessionFailed`], or what kept it from starting.
    pub async fn learn_from(&self, from: &str) -> Result<Session, CliError> {
        let order = json!({"from": from, "pull": true, "push": false, "strategy": "auto"});
        let request = self.client.request(Method::POST, "sync/run", &[]);
        let session: Session = self.json(request.json(&order)).await?;
        match session.outcome.as_str() {
            "complete" => Ok(session),
            other => Err(CliError::SessionFailed {
                reason: session.reason.unwrap_or_else(|| other.to_owned()),
            }),
        }
    }

    /// Sessions that it ran or runs, the newest ones first.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn sessions(&self) -> Result<Vec<Session>, CliError> {
        let request = self.client.server_request(Method::GET, "sessions");
        let answer: Sessions = self.json(request).await?;
        Ok(answer.sessions)
    }

    /// Makes it keep in step with a peer.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn link(&self, name: &str, url: &str) -> Result<(), CliError> {
        let path = format!("peers/{name}");
        let request = self.client.server_request(Method::PUT, &path);
        self.done(request.json(&json!({"url": url}))).await
    }

    /// Cuts that again.
    ///
    /// # Errors
    /// [`CliError`].
    pub async fn unlink(&self, name: &str) -> Result<(), CliError> {
        let path = format!("peers/{name}");
        self.done(self.client.server_request(Method::DELETE, &path))
            .await
    }

    fn state(
        &self,
        method: Method,
        id: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, CliError> {
        let id = GameId::new(id).map_err(|error| CliError::NoId(error.to_string()))?;
        self.client.state_request(method, "states", &id, query)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let response = self.client.send(request.timeout(TIMEOUT)).await?;
        self.client.parse(&self.client.text(response).await?)
    }

    async fn done(&self, request: RequestBuilder) -> Result<(), CliError> {
        let response = self.client.send(request.timeout(TIMEOUT)).await?;
        self.client.text(response).await.map(drop)
    }

    fn wrong(&self, what: &str) -> CliError {
        CliError::NotSamestate {
            server: self.client.server(),
            what: what.to_owned(),
        }
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn conflicts_of(headers: &HeaderMap) -> Option<u64> {
    const CONFLICTS: HeaderName = HeaderName::from_static("samestate-conflicts");
    text_of(headers, &CONFLICTS)?.parse().ok()
}
