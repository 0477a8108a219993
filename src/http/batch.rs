//! `POST /v1/ns/{ns}/batch`: many writes, all or nothing, in one commit.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::app::{App, blocking_holding, commit};
use crate::http::body::{Bound, receive};
use crate::http::conditions;
use crate::http::extract::{Headers, InNamespace};
use crate::http::members::{LOOKED_AT, Object, from_object};
use crate::http::problem::Problem;
use crate::http::states::ReceiptBody;
use crate::replica::command::{Change, Command, Content, Precondition, Write};
use crate::runtime::queue::SubmitError;
use crate::types::id::GameId;
use crate::types::limits::WHOLE_STATE_MAX;
use crate::types::version::check_content_type;

/// Writes that one batch may hold.
const WRITES_MAX: usize = 10_000;

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Line {
    Put(Put),
    Delete(Delete),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    id: String,
    content: String,
    content_type: Option<String>,
    ttl: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    id: String,
    if_match: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct BatchBody {
    receipts: Vec<ReceiptBody>,
    seq: u64,
    root: String,
}

/// Carries out a batch.
///
/// # Errors
/// [`Problem`] when nothing was done, with the line at fault where there is one.
pub async fn post(
    State(app): State<App>,
    InNamespace(namespace): InNamespace,
    Headers(headers): Headers,
    body: Body,
) -> Result<Json<BatchBody>, Problem> {
    let limits = *app.replica.limits();
    let state_bytes = limits.state_bytes.min(WHOLE_STATE_MAX);
    let bound = Bound {
        // The largest state in base64, with room for its line and for smaller company.
        bytes: state_bytes / 3 * 4 + limits.transfer_bytes,
        exceeded: Problem::body_too_large,
    };
    let received = receive(&app, &headers, body, bound).await?;
    let (text, mut reservation) = (received.bytes, received.reservation);
    // The decoded states come on top of the text.
    reservation.cover(text.len() as u64 * 2).await?;
    let work = move || parse(&text, state_bytes);
    let (writes, reservation) = blocking_holding(reservation, work).await?;
    let (writes, lines): (Vec<Write>, Vec<usize>) = writes.into_iter().unzip();
    let command = Command::Write(writes);
    let committed = commit(namespace, command, reservation).await;
    let committed = committed.map_err(|error| at_its_line(error, &lines))?;
    let head = committed.view.head();
    Ok(Json(BatchBody {
        receipts: committed
            .accepted
            .receipts
            .into_iter()
            .map(ReceiptBody::new)
            .collect(),
        seq: head.seq,
        root: head.root.hash.to_hex(),
    }))
}

/// The writes with the numbers of their lines.
fn parse(text: &Bytes, state_bytes: u64) -> Result<Vec<(Write, usize)>, Problem> {
    let mut writes = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if writes.len() == WRITES_MAX {
            let detail = format!("a batch holds at most {WRITES_MAX} writes; send several batches");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "batch_too_large",
                detail,
            ));
        }
        let write = write(line, state_bytes).map_err(|problem| problem.with("line", number))?;
        writes.push((write, number));
    }
    if writes.is_empty() {
        return Err(bad_batch("the batch is empty; send one JSON object a line"));
    }
    Ok(writes)
}

fn write(line: &[u8], state_bytes: u64) -> Result<Write, Problem> {
    let read = serde_json::from_slice(line);
    match read.map_err(|error| bad_batch(mistake(line, &error)))? {
        Line::Delete(Delete { id, if_match }) => Ok(Write {
            id: GameId::new(&id)?,
            precondition: precondition(if_match.as_deref(), None)?,
            change: Change::Delete,
        }),
        Line::Put(put) => {
            let bytes = STANDARD.decode(put.content);
            let bytes =
                bytes.map_err(|error| bad_batch(format!("content is not base64: {error}")))?;
            if bytes.len() as u64 > state_bytes {
                return Err(Problem::whole_state_too_large(state_bytes));
            }
            if let Some(content_type) = &put.content_type {
                check_content_type(content_type)?;
            }
            let content = Content {
                ttl: put.ttl.as_deref().map(str::parse).transpose()?,
                ..Content::new(&bytes, put.content_type)
            };
            Ok(Write {
                id: GameId::new(&put.id)?,
                precondition: precondition(put.if_match.as_deref(), put.if_none_match.as_deref())?,
                change: Change::Put(content),
            })
        }
    }
}

/// What is wrong with a line, by the members of the operation that it names.
fn mistake(line: &[u8], error: &serde_json::Error) -> String {
    if line.trim_ascii().starts_with(b"[") {
        return "a batch is no JSON array: send one JSON object a line".to_owned();
    }
    let short = line.len() <= LOOKED_AT;
    let object = Some(line).filter(|_| short).map(serde_json::from_slice);
    let Some(Ok(Object(mut members))) = object else {
        return format!("the line is not the expected JSON: {error}");
    };
    let at = members.iter().position(|(name, _)| name == "op");
    let op = at.map(|at| members.remove(at).1);
    let object = Object(members);
    let told = match op.as_ref().and_then(Value::as_str) {
        Some("put") => from_object::<Put>(object).err(),
        Some("delete") => from_object::<Delete>(object).err(),
        _ => return "the member op is to be \"put\" or \"delete\"".to_owned(),
    };
    match told {
        Some(mistake) => mistake.told("member", "beside op this operation"),
        None => format!("the line is not the expected JSON: {error}"),
    }
}

fn precondition(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Precondition, Problem> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tags), None) => conditions::of_if_match(tags),
        _ => Err(bad_batch(
            "if_none_match takes * only, and not together with if_match",
        )),
    }
}

fn bad_batch(detail: impl Into<String>) -> Problem {
    Problem::bad_request("bad_batch", detail)
}

/// The writer tells which write a batch failed at; the client wants to know the line.
fn at_its_line(error: SubmitError, lines: &[usize]) -> Problem {
    let line = match &error {
        SubmitError::Refused(refused) => lines.get(refused.index).copied(),
        _ => None,
    };
    let problem = Problem::from(error);
    match line {
        Some(line) => problem.with("line", line),
        None => problem,
    }
}
